// Only for tests: the files of a results folder that must not depend on which process computed
// them, when, and how often it was disturbed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/record.h"
#include "runs/cell_folder.h"
#include "testing/subprocess.h"

namespace vla_bench::testing {

/// Reads the sealed cells below a folder, with learning curves, by path. Throws BadInput when one
/// is not whole.
inline std::map<std::filesystem::path, CellRecord> sealed_cells(const std::filesystem::path& root) {
  std::map<std::filesystem::path, CellRecord> found;
  if (!std::filesystem::exists(root)) return found;
  for (const std::filesystem::path& path : find_files(root, "record.json")) {
    found.emplace(path.parent_path(), read_record(slurp(path), path.string(), ReadHistory::yes));
  }
  return found;
}

/// The files of a finished training.
struct FinishedTraining {
  std::string rows;
  std::string history;
  std::string parameters;  // the file's bytes

  bool operator==(const FinishedTraining&) const = default;
};

/// Finished trainings by the folder's name; failed ones are not finished. Throws BadInput when a
/// record is not whole.
inline std::map<std::string, FinishedTraining> finished_trainings(
    const std::filesystem::path& root) {
  std::map<std::string, FinishedTraining> found;
  for (const auto& [path, record] : sealed_cells(root)) {
    if (record.outcome.status == "failed") continue;
    found[path.filename().string()] = {.rows = comparable_rows(record),
                                       .history = to_csv(record.history),
                                       .parameters = slurp(CellFolder{path}.checkpoint())};
  }
  return found;
}

}  // namespace vla_bench::testing
