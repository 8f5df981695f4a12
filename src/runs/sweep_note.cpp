#include "runs/sweep_note.h"

#include <algorithm>
#include <map>
#include <set>
#include <system_error>

#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

/// Whether the note in `folder` names every cell of `hashes`.
bool includes(const fs::path& folder, const std::set<std::string>& hashes) {
  const fs::path note = sweep_note(folder);
  std::set<std::string> noted;
  try {
    for (const CellConfig& cell :
         noted_cells(read_file(note), note.string(), folder.filename().string())) {
      noted.insert(cell.hash);
    }
  } catch (const BadInput&) {
    return false;
  }
  return std::includes(noted.begin(), noted.end(), hashes.begin(), hashes.end());
}

}  // namespace

fs::path sweep_note(const fs::path& folder) { return folder / "sweep.json"; }

bool has_sweep_note(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(sweep_note(folder), ignored);
}

void note_sweep(const RunConfig& config, Device device, const fs::path& root,
                const std::vector<CellConfig>& cells) {
  RunConfig resolved = config;
  // Part of every cell's identity, and "auto" may mean another device where the note is read.
  resolved.device = device == Device::cuda ? DeviceRequest::cuda : DeviceRequest::cpu;
  resolved.threads = 0;  // specific to this process
  const std::string text = dump_config(resolved);
  std::map<std::string, std::set<std::string>> hashes;  // by name
  for (const CellConfig& cell : cells) hashes[cell.config.name].insert(cell.hash);
  for (const auto& [name, of_name] : hashes) {
    const fs::path folder = root / name;
    if (has_sweep_note(folder) &&
        (read_file(sweep_note(folder)) == text || includes(folder, of_name))) {
      continue;
    }
    write_file_atomically(sweep_note(folder), text);
  }
}

std::vector<CellConfig> noted_cells(const std::string& text, const std::string& origin,
                                    const std::string& name) {
  const RunConfig config = parse_config(text, origin);
  const Device device = config.device == DeviceRequest::cuda ? Device::cuda : Device::cpu;
  std::vector<CellConfig> cells = expand_cells(config, device);
  const auto named = [&](const CellConfig& cell) { return cell.config.name == name; };
  if (std::any_of(cells.begin(), cells.end(), named)) {
    std::erase_if(cells, [&](const CellConfig& cell) { return !named(cell); });
  }
  return cells;
}

}  // namespace vla_bench
