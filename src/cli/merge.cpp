// vla-bench merge: joins results folders and packs of several machines in one folder.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"
#include "runs/cell_folder.h"
#include "runs/find.h"
#include "runs/pack.h"
#include "runs/sweep_note.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

struct MergeOptions {
  std::vector<std::string> folders;
  std::string out;
};

/// The progress of a copy: a finished one ranks above any checkpoint, a checkpoint above a failure.
struct Progress {
  enum class Stage { begun, checkpoint, finished } stage = Stage::begun;
  Index step = 0;  // of a checkpoint

  auto operator<=>(const Progress&) const = default;
};

/// A copy of a cell in one of the folders or packs.
struct Copy {
  fs::path folder;        // empty: in a pack
  RecordSource source{};  // only of a sealed one
  std::string place;      // for messages
  Progress progress{};
  std::string rows{};              // a digest of comparable_rows, of a finished one
  std::vector<Provenance> made{};  // its provenances, the copy's own first
  bool in_out = false;             // is in the folder that receives all of them
};

using CellName = std::pair<std::string, std::string>;  // <name>, <hash>
using Cells = std::map<CellName, std::vector<Copy>>;

struct Found {
  Cells cells;
  std::map<std::string, std::string> notes;  // sweeps, by run
  std::vector<std::string> problems;
};

Progress progress_of_checkpoint(const CellFolder& cell) {
  std::error_code ignored;
  if (!fs::is_regular_file(cell.checkpoint(), ignored)) return {};
  try {
    return {.stage = Progress::Stage::checkpoint,
            .step = TensorFile::read(cell.checkpoint()).integer("step")};
  } catch (const BadInput&) {
    return {};
  }
}

/// Fills in the members from a sealed line. Throws BadInput.
void read_sealed(std::string_view line, const std::string& hash, Copy& copy) {
  const CellRecord record = read_record(line, copy.place);
  if (record.hash != hash) {
    throw BadInput(fmt::format("[{}] record: of another cell, {}", copy.place, record.hash));
  }
  if (record.outcome.status == "failed") return;
  copy.progress.stage = Progress::Stage::finished;
  copy.rows = hash_hex(comparable_rows(record));
  copy.made.push_back(record.provenance);
  copy.made.insert(copy.made.end(), record.others.begin(), record.others.end());
}

void add_note(const std::string& name, const std::string& text, const std::string& place,
              Found& found) {
  const auto [note, is_new] = found.notes.try_emplace(name, text);
  if (!is_new && note->second != text) {
    log_warning(fmt::format("{}: another sweep than the one that was found first", place));
  }
}

void add_folder(const fs::path& folder, bool in_out, Found& found) {
  const fs::path whole = fs::weakly_canonical(folder);  // "." has no name
  const CellFolder cell{folder};
  Copy copy{.folder = folder,
            .source = {.file = cell.record()},
            .place = folder.string(),
            .progress = progress_of_checkpoint(cell),
            .in_out = in_out};
  const std::string hash = whole.filename().string();
  try {
    std::error_code ignored;
    if (fs::exists(cell.record(), ignored)) {
      read_sealed(read_file(cell.record(), kLongestRecord), hash, copy);
    }
  } catch (const BadInput& error) {
    found.problems.emplace_back(error.what());
    return;
  }
  found.cells[{whole.parent_path().filename().string(), hash}].push_back(std::move(copy));
}

void add_pack(const fs::path& pack, bool in_out, Found& found) {
  try {
    PackReader reader(pack);
    if (!reader.note().sweep.empty()) {
      add_note(reader.note().name, reader.note().sweep + "\n", pack.string(), found);
    }
    while (const auto line = reader.next()) {
      Copy copy{.folder = {},
                .source = {.file = pack, .offset = line->offset, .in_pack = true},
                .place = place_in_pack(pack, line->number),
                .in_out = in_out};
      try {
        const std::string hash = read_head(line->text, copy.place).hash;
        read_sealed(line->text, hash, copy);
        found.cells[{reader.note().name, hash}].push_back(std::move(copy));
      } catch (const BadInput& error) {
        found.problems.emplace_back(error.what());
      }
    }
  } catch (const BadInput& error) {
    found.problems.emplace_back(error.what());
  }
}

/// Adds everything below `root`.
void find_copies(const fs::path& root, bool in_out, std::set<fs::path>& seen, Found& found) {
  std::error_code ignored;
  if (fs::is_regular_file(root, ignored)) {
    add_pack(root, in_out, found);
    return;
  }
  for (const ListedFolder& listed : list_folders(root)) {
    if (!seen.insert(fs::weakly_canonical(listed.path)).second) continue;
    if (listed.has("record.json") || listed.has("begun.json")) {
      add_folder(listed.path, in_out, found);
    }
    if (has_sweep_note(listed.path)) {
      const fs::path note = sweep_note(listed.path);
      add_note(fs::weakly_canonical(listed.path).filename().string(), read_file(note),
               note.string(), found);
    }
    for (const std::string& file : listed.files) {
      if (is_pack_name(file)) add_pack(listed.path / file, in_out, found);
    }
  }
}

/// Throws BadInput naming the cells whose finished copies differ.
void require_agreement(const Cells& cells) {
  constexpr std::size_t kMostNamed = 10;
  std::vector<std::string> conflicts;
  for (const auto& [name, copies] : cells) {
    const Copy* first = nullptr;
    for (const Copy& copy : copies) {
      if (copy.progress.stage != Progress::Stage::finished) continue;
      if (first == nullptr) {
        first = &copy;
      } else if (copy.rows != first->rows) {
        conflicts.push_back(fmt::format("{} and {}", first->place, copy.place));
        break;
      }
    }
  }
  if (conflicts.empty()) return;
  std::string text;
  for (std::size_t i = 0; i < std::min(kMostNamed, conflicts.size()); ++i) {
    text += fmt::format("\n  {}", conflicts[i]);
  }
  if (conflicts.size() > kMostNamed) {
    text += fmt::format("\n  and {} more", conflicts.size() - kMostNamed);
  }
  throw BadInput("merge: the same cell has different rows, nothing was merged:" + text);
}

/// The copy to keep; among equals the first.
const Copy& furthest(const std::vector<Copy>& copies) {
  return *std::max_element(copies.begin(), copies.end(),
                           [](const Copy& a, const Copy& b) { return a.progress < b.progress; });
}

/// Sorts files in the order in which a run writes them: whenever a merge is stopped, the cell in
/// `out` is unfinished or whole, and a checkpoint has its optimiser's file.
int turn_of(const fs::path& file, const CellFolder& cell) {
  if (file == cell.begun()) return 0;
  return file == cell.checkpoint() ? 2 : 1;
}

/// All files except the record.
void copy_files(const CellFolder& from, const CellFolder& to) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from.path)) {
    const bool whole = entry.is_regular_file() && !is_temporary_file(entry.path());
    if (whole && entry.path() != from.record()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [&](const fs::path& a, const fs::path& b) {
    return std::pair(turn_of(a, from), a) < std::pair(turn_of(b, from), b);
  });
  for (const fs::path& file : files) {
    write_file_atomically(to.path / file.filename(), read_file(file));
  }
}

/// Provenances of copies that agree with the kept one, without those that it already has.
std::vector<Provenance> others_of(const Copy& kept, const std::vector<Copy>& copies) {
  std::map<std::string, Provenance> others;
  for (const Copy& copy : copies) {
    for (const Provenance& one : copy.made) {
      if (!one.empty()) others.emplace(one.to_json(), one);
    }
  }
  others.erase(kept.made.front().to_json());
  std::vector<Provenance> list;
  for (auto& [text, one] : others) list.push_back(std::move(one));
  return list;
}

/// The kept record's line, with the provenances of its copies. Empty: it is in `out` unchanged.
std::string merged_line(const Copy& kept, const std::vector<Copy>& copies) {
  std::string line = kept.source.in_pack ? read_pack_line(kept.source.file, kept.source.offset)
                                         : read_file(kept.source.file, kLongestRecord);
  std::vector<Provenance> others = others_of(kept, copies);
  if (others.size() + 1 > kept.made.size()) {
    CellRecord record = read_record(line, kept.place, ReadHistory::yes);
    record.others = std::move(others);
    return seal(record) + "\n";
  }
  if (kept.in_out) return {};
  if (!line.ends_with('\n')) line += '\n';
  return line;
}

/// Copies one cell to `to`; returns whether it wrote something.
bool merge_cell(const std::vector<Copy>& copies, const CellFolder& to) {
  const Copy& kept = furthest(copies);
  if (!kept.folder.empty() && !kept.in_out) copy_files({kept.folder}, to);
  if (kept.progress.stage != Progress::Stage::finished) return !kept.in_out;
  const std::string line = merged_line(kept, copies);
  if (line.empty()) return false;
  write_file_atomically(to.record(), line);
  std::error_code ignored;
  fs::remove(to.begun(), ignored);
  return true;
}

int merge(const MergeOptions& options) {
  const fs::path out = options.out;
  Found found;
  std::set<fs::path> seen;
  // `out` itself is the first of the folders to join.
  if (fs::is_directory(out)) find_copies(out, true, seen, found);
  for (const fs::path root : options.folders) find_copies(root, false, seen, found);
  for (const std::string& problem : found.problems) log_error(problem);
  if (found.cells.empty()) throw BadInput("merge: no cell in these folders");
  require_agreement(found.cells);
  require_writable_folder(out);

  std::int64_t finished = 0, copied = 0;
  for (const auto& [name, copies] : found.cells) {
    if (merge_cell(copies, {out / name.first / name.second})) ++copied;
    if (furthest(copies).progress.stage == Progress::Stage::finished) ++finished;
  }
  for (const auto& [name, text] : found.notes) {
    if (!has_sweep_note(out / name)) write_file_atomically(sweep_note(out / name), text);
  }
  log_info(fmt::format("{} cells, {} finished, in {} ({} copied)", found.cells.size(), finished,
                       out.string(), copied));
  return found.problems.empty() ? kExitDone : kExitFailedRun;
}

}  // namespace

void add_merge(CommandLine& command_line) {
  const auto options = std::make_shared<MergeOptions>();
  Subcommand command = command_line.add(
      "merge", "Join the results folders and packs of several machines",
      "Copies every cell to OUT/NAME/HASH, where an existing cell is one of the copies: a\n"
      "finished one, else the one with the latest checkpoint. Finished copies of a cell must\n"
      "have the same rows except train_seconds and labels (those of a latency are timings and\n"
      "rarely do); otherwise it names the cells and merges nothing. A record keeps its own\n"
      "provenance and that of the copies that agree with it. Damaged records are named and left\n"
      "out, and the exit code is 1. Nothing may be running in the folders. A merge that was\n"
      "stopped can be started again.\n"
      "Example: vla-bench merge machine1/runs machine2/runs --out results/runs",
      [options] { return merge(*options); });
  command.positional(options->folders,
                     {"DIR", "Results folders (DIR/NAME/HASH or NAME/HASH), or packs"});
  command.required("--out", options->out, {"OUT", "Folder that receives all of them"});
}

}  // namespace vla_bench::cli
