// vla-bench merge: results folders of several machines into one.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/failed_cells.h"
#include "cli/output.h"
#include "cli/sweep_file.h"
#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"
#include "report/run_directory.h"
#include "report/table.h"

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Beside provenance.json: an array of what else made the same rows.
constexpr const char* kOtherProvenance = "provenance.others.json";

struct MergeOptions {
  std::vector<std::string> folders;
  std::string out;
};

/// A cell as it lies in one of the folders.
struct Copy {
  RunDirectory directory;
  const Schema* finished = nullptr;  // its table, when it has one
};

using CellName = std::pair<std::string, std::string>;  // <name>, <hash>
using Cells = std::map<CellName, std::vector<Copy>>;

/// Adds every cell below `root` to `cells`.
void find_copies(const fs::path& root, Cells& cells) {
  for (const ListedFolder& listed : list_folders(root)) {
    const fs::path& folder = listed.path;
    const Copy copy{.directory = {folder}, .finished = finished_schema({folder})};
    std::error_code ignored;
    if (!fs::is_regular_file(copy.directory.config(), ignored)) continue;
    const fs::path whole = fs::weakly_canonical(folder);  // "." has no name
    std::vector<Copy>& copies =
        cells[{whole.parent_path().filename().string(), whole.filename().string()}];
    const bool seen = std::any_of(copies.begin(), copies.end(), [&](const Copy& other) {
      return fs::weakly_canonical(other.directory.folder) == whole;
    });
    if (!seen) copies.push_back(copy);
  }
}

/// What must be equal wherever a cell was computed. The time a training took is not; timings of
/// latency are what it measured, and stay.
std::string comparable(const Copy& copy) {
  Table table =
      read_csv(copy.directory.folder / fmt::format("{}.csv", copy.finished->name), *copy.finished);
  if (copy.finished == &accuracy_schema()) {
    const std::size_t seconds = table.column("train_seconds");
    for (auto& row : table.rows) row[seconds] = Value();
  }
  return to_csv(table);
}

/// Throws BadInput naming the cells whose finished copies differ.
void require_agreement(const Cells& cells) {
  constexpr std::size_t kMostNamed = 10;
  std::vector<std::string> conflicts;
  for (const auto& [name, copies] : cells) {
    std::optional<std::string> rows;
    const Copy* first = nullptr;
    for (const Copy& copy : copies) {
      if (copy.finished == nullptr) continue;
      std::string own = comparable(copy);
      if (!rows) {
        rows = std::move(own);
        first = &copy;
      } else if (own != *rows) {
        conflicts.push_back(fmt::format("{} and {}", first->directory.folder.string(),
                                        copy.directory.folder.string()));
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

/// How far a cell is: a finished one counts for more than any checkpoint, any checkpoint for more
/// than a failure.
std::pair<int, Index> progress_of(const Copy& copy) {
  if (copy.finished != nullptr) return {2, 0};
  std::error_code ignored;
  if (!fs::is_regular_file(copy.directory.checkpoint(), ignored)) return {0, 0};
  try {
    return {1, TensorFile::read(copy.directory.checkpoint()).integer("step")};
  } catch (const BadInput&) {
    return {0, 0};
  }
}

/// The copy to keep; of equals the first.
const Copy& furthest(const std::vector<Copy>& copies) {
  if (copies.size() == 1) return copies.front();
  const Copy* best = nullptr;
  std::pair<int, Index> progress;
  for (const Copy& copy : copies) {
    const auto own = progress_of(copy);
    if (best == nullptr || own > progress) {
      best = &copy;
      progress = own;
    }
  }
  return *best;
}

/// Files in the order in which a run writes them: whenever a merge is stopped, the cell in `out` is
/// unfinished or whole, and a checkpoint has its optimiser's file beside it.
int turn_of(const fs::path& file, const Copy& copy) {
  const std::string name = file.filename().string();
  if (file == copy.directory.config()) return 0;
  if (file == copy.directory.checkpoint()) return 2;
  if (copy.finished != nullptr && name == fmt::format("{}.csv", copy.finished->name)) return 3;
  return 1;
}

void copy_cell(const Copy& from, const fs::path& to) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(from.directory.folder)) {
    if (entry.is_regular_file() && !is_temporary_file(entry.path())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [&](const fs::path& a, const fs::path& b) {
    return std::pair(turn_of(a, from), a) < std::pair(turn_of(b, from), b);
  });
  for (const fs::path& file : files) {
    write_file_atomically(to / file.filename(), read_file(file));
  }
}

/// Notes in `to` what made the copies that agree with the one kept.
void note_others(const Copy& kept, const std::vector<Copy>& copies, const fs::path& to) {
  std::set<std::string> others;
  for (const Copy& copy : copies) {
    if (copy.finished == nullptr) continue;
    others.insert(copy.directory.read_provenance());
    std::error_code ignored;
    const fs::path earlier = copy.directory.folder / kOtherProvenance;
    if (!fs::is_regular_file(earlier, ignored)) continue;
    const Json documents = Json::parse(read_file(earlier), nullptr, /*allow_exceptions=*/false);
    if (!documents.is_array()) continue;
    for (const Json& document : documents) others.insert(document.dump(2) + "\n");
  }
  others.erase(kept.directory.read_provenance());
  others.erase("");
  if (others.empty()) return;
  Json array = Json::array();
  for (const std::string& text : others) {
    Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!document.is_discarded()) array.push_back(std::move(document));
  }
  write_file_atomically(to / kOtherProvenance, array.dump(2) + "\n");
}

/// The notes of which sweeps lie where; of different ones the first is kept.
void merge_notes(const std::vector<fs::path>& roots, const fs::path& out) {
  std::map<std::string, std::string> notes;  // by name
  for (const fs::path& root : roots) {
    for (const ListedFolder& listed : list_folders(root)) {
      const fs::path& folder = listed.path;
      if (!has_sweep_note(folder)) continue;
      const std::string name = fs::weakly_canonical(folder).filename().string();
      const std::string text = read_file(sweep_note(folder));
      const auto [note, is_new] = notes.try_emplace(name, text);
      if (!is_new && note->second != text) {
        log_warning(fmt::format("{}: another sweep than the one that was found first",
                                sweep_note(folder).string()));
      }
    }
  }
  for (const auto& [name, text] : notes) {
    if (!has_sweep_note(out / name)) write_file_atomically(sweep_note(out / name), text);
  }
}

int merge(const MergeOptions& options) {
  const fs::path out = options.out;
  std::vector<fs::path> roots(options.folders.begin(), options.folders.end());
  // What lies in `out` is one of the folders to join, and the first.
  if (fs::is_directory(out)) roots.insert(roots.begin(), out);
  Cells cells;
  for (const fs::path& root : roots) find_copies(root, cells);
  if (cells.empty()) throw BadInput("merge: no cell in these folders");
  require_agreement(cells);
  require_writable_folder(out);

  std::int64_t finished = 0, copied = 0;
  for (const auto& [name, copies] : cells) {
    const Copy& kept = furthest(copies);
    const fs::path to = out / name.first / name.second;
    if (fs::weakly_canonical(kept.directory.folder) != fs::weakly_canonical(to)) {
      copy_cell(kept, to);
      ++copied;
    }
    if (kept.finished != nullptr) {
      note_others(kept, copies, to);
      clear_failed({to}, kept.finished->name);
      ++finished;
    }
  }
  merge_notes(roots, out);
  log_info(fmt::format("{} cells, {} finished, in {} ({} copied)", cells.size(), finished,
                       out.string(), copied));
  return kExitDone;
}

}  // namespace

void add_merge(CommandLine& command_line) {
  const auto options = std::make_shared<MergeOptions>();
  Subcommand command = command_line.add(
      "merge", "Join the results folders of several machines",
      "Copies every cell into OUT/NAME/HASH, what lies there already being one of the copies: a\n"
      "finished one, else the one whose checkpoint is furthest. Finished copies of a cell must "
      "have\n"
      "the same rows, train_seconds apart (those of a latency are timings and hardly will);\n"
      "otherwise nothing is merged and the cells are named. provenance.json says what made the "
      "copy\n"
      "that was kept, provenance.others.json what made the others. Nothing may be running in the\n"
      "folders. Stopped and started again, it goes on.\n"
      "Example: vla-bench merge machine1/runs machine2/runs --out results/runs",
      [options] { return merge(*options); });
  command.positional(options->folders, {"DIR", "Results folders (DIR/NAME/HASH or NAME/HASH)"});
  command.required("--out", options->out, {"OUT", "Folder that receives all of them"});
}

}  // namespace vla_bench::cli
