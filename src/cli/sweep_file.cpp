#include "cli/sweep_file.h"

#include <map>
#include <set>
#include <string>
#include <system_error>

#include "core/error.h"
#include "core/files.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// Whether the note in `folder` names every cell of `hashes`.
bool includes(const fs::path& folder, const std::set<std::string>& hashes) {
  std::string ignored;
  const auto noted = noted_cells(folder, ignored);
  if (!noted) return false;
  std::size_t found = 0;
  for (const PlannedCell& planned : *noted) found += hashes.count(planned.cell.hash);
  return found == hashes.size();
}

}  // namespace

void note_sweep(const RunConfig& config, Device device, const fs::path& root,
                const std::vector<PlannedCell>& plan) {
  RunConfig resolved = config;
  // Part of every cell's identity, and "auto" may mean something else where the note is read.
  resolved.device = device == Device::cuda ? DeviceRequest::cuda : DeviceRequest::cpu;
  resolved.threads = 0;  // of this process alone
  const std::string text = dump_config(resolved);
  std::map<std::string, std::set<std::string>> hashes;  // by name
  for (const PlannedCell& planned : plan) {
    hashes[planned.cell.config.name].insert(planned.cell.hash);
  }
  for (const auto& [name, of_name] : hashes) {
    const fs::path folder = root / name;
    if (has_sweep_note(folder) &&
        (read_file(sweep_note(folder)) == text || includes(folder, of_name))) {
      continue;
    }
    write_file_atomically(sweep_note(folder), text);
  }
}

fs::path sweep_note(const fs::path& folder) { return folder / "sweep.json"; }

bool has_sweep_note(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(sweep_note(folder), ignored);
}

std::optional<std::vector<PlannedCell>> noted_cells(const fs::path& folder,
                                                    std::string& complaint) {
  const fs::path note = sweep_note(folder);
  if (!has_sweep_note(folder)) return std::nullopt;
  try {
    const RunConfig config = parse_config(read_file(note), note.string());
    const Device device = config.device == DeviceRequest::cuda ? Device::cuda : Device::cpu;
    // A folder that was given another name still holds the cells of its config.
    std::vector<PlannedCell> plan = plan_cells(config, device, folder.parent_path());
    std::set<std::string> names;
    for (const PlannedCell& planned : plan) names.insert(planned.cell.config.name);
    const std::string name = folder.filename().string();
    if (names.count(name) > 0) {
      std::erase_if(plan, [&](const PlannedCell& one) { return one.cell.config.name != name; });
    }
    for (PlannedCell& planned : plan) planned.directory.folder = folder / planned.cell.hash;
    return plan;
  } catch (const BadInput& error) {
    complaint = error.what();
    return std::nullopt;
  }
}

}  // namespace vla_bench::cli
