// vla-bench pack: the sealed cells of one run as JSON Lines.
#include "runs/pack.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/files.h"
#include "runs/cell_folder.h"
#include "runs/find.h"
#include "runs/legacy.h"
#include "runs/sweep_note.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// JSON text without its line breaks. Throws BadInput.
std::string json_on_one_line(const std::string& json, const std::string& place) {
  try {
    return nlohmann::ordered_json::parse(json).dump();
  } catch (const nlohmann::json::exception& error) {
    throw BadInput(fmt::format("[{}] {}", place, error.what()));
  }
}

struct PackOptions {
  std::vector<std::string> folders;
  std::string out;
};

/// Collects the cells of one run for a pack.
class Packing {
 public:
  /// Adds the cells in `root`, a folder or a pack.
  void add(const fs::path& root) {
    std::error_code ignored;
    if (fs::is_regular_file(root, ignored)) {
      add_pack(root);
    } else {
      for (const ListedFolder& listed : list_folders(root)) add_folder(listed);
    }
  }

  std::size_t cells() const { return lines_.size(); }
  std::int64_t in_progress() const { return in_progress_; }

  /// Throws BadInput when the cells are not those of one run.
  void write(const fs::path& out) const {
    if (lines_.empty()) throw BadInput("pack: no finished cell in these folders");
    if (names_.size() > 1) {
      throw BadInput(fmt::format("pack: cells of several runs, expected those of one: {}",
                                 fmt::join(names_, ", ")));
    }
    std::vector<std::string> lines;  // sorted by hash
    for (const auto& [hash, line] : lines_) lines.push_back(line);
    write_pack(out, {.name = *names_.begin(), .sweep = sweep_}, lines);
  }

 private:
  void add_folder(const ListedFolder& listed) {
    const CellFolder cell{listed.path};
    if (listed.has(sweep_note(listed.path).filename().string())) {
      const fs::path note = sweep_note(listed.path);
      take_note(read_file(note), note.string());
    }
    if (listed.has("record.json")) {
      take(read_file(cell.record(), kLongestRecord), listed.path.string(),
           fs::weakly_canonical(listed.path).parent_path().filename().string());
    } else if (listed.has("begun.json")) {
      ++in_progress_;
    } else if (auto legacy = read_legacy_cell(listed)) {
      take(seal(*legacy), listed.path.string(), legacy->config.name);
    }
    for (const std::string& file : listed.files) {
      if (is_pack_name(file)) add_pack(listed.path / file);
    }
  }

  void add_pack(const fs::path& path) {
    PackReader reader(path);
    if (!reader.note().sweep.empty()) take_note(reader.note().sweep, path.string());
    while (const auto line = reader.next()) {
      take(line->text, place_in_pack(path, line->number), reader.note().name);
    }
  }

  /// Of several notes the first counts.
  void take_note(const std::string& text, const std::string& place) {
    // On one line, even if it was written by hand.
    const std::string sweep = json_on_one_line(text, place);
    if (sweep_.empty()) sweep_ = sweep;
    if (sweep_ != sweep) {
      log_warning(fmt::format("{}: another sweep than the one that was found first", place));
    }
  }

  void take(std::string line, const std::string& place, const std::string& name) {
    if (line.ends_with('\n')) line.pop_back();
    const CellRecord record = read_record(line, place);
    names_.insert(name);
    const auto [held, is_new] = lines_.try_emplace(record.hash, line);
    if (is_new) {
      places_[record.hash] = place;
    } else if (comparable_rows(read_record(held->second, place)) != comparable_rows(record)) {
      throw BadInput(fmt::format("pack: the same cell has different rows: {} and {}",
                                 places_.at(record.hash), place));
    }
  }

  std::map<std::string, std::string> lines_, places_;  // by hash
  std::set<std::string> names_;
  std::string sweep_;
  std::int64_t in_progress_ = 0;
};

int pack(const PackOptions& options) {
  const fs::path out = options.out;
  if (!is_pack_name(out)) {
    throw BadInput(fmt::format("--out: expected a name that ends in .jsonl, got {}", options.out));
  }
  Packing packing;
  for (const std::string& folder : options.folders) packing.add(folder);
  packing.write(out);
  log_info(fmt::format("{}: {} cells{}", options.out, packing.cells(),
                       packing.in_progress() > 0
                           ? fmt::format("; {} in progress are left out", packing.in_progress())
                           : ""));
  return kExitDone;
}

}  // namespace

void add_pack(CommandLine& command_line) {
  const auto options = std::make_shared<PackOptions>();
  Subcommand command = command_line.add(
      "pack", "Put the finished cells of one run into one file of JSON Lines",
      "One line per cell, its sealed record byte for byte, after a first line with the sweep's\n"
      "note; sorted, so that the same cells give the same bytes. run, report, claims, status and\n"
      "merge read packs as well as folders; packs have no checkpoints. Also reads folders of\n"
      "versions without record.json. With a damaged record, or copies of a cell that differ, it\n"
      "writes nothing and fails.\n"
      "Example: vla-bench pack results/runs/04_capacity --out results/runs/04_capacity.jsonl",
      [options] { return pack(*options); });
  command.positional(options->folders, {"DIR", "Folders of one run, or packs of it"});
  command.required("--out", options->out, {"NAME.jsonl", "The pack to write"});
}

}  // namespace vla_bench::cli
