// Tests alone: what lies in a results folder and must not depend on who computed it, when, and how
// often it was disturbed.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "cli/subprocess.h"
#include "core/safetensors.h"
#include "report/table.h"

namespace vla_bench::testing {

/// The rows of an accuracy.csv, train_seconds apart. Throws BadInput when it is not whole.
inline std::vector<std::vector<Value>> timeless_rows(const std::filesystem::path& path) {
  Table table = read_csv(path, accuracy_schema());
  const auto seconds = static_cast<std::ptrdiff_t>(table.column("train_seconds"));
  for (auto& row : table.rows) row.erase(row.begin() + seconds);
  return table.rows;
}

/// What a finished training left.
struct FinishedTraining {
  std::vector<std::vector<Value>> rows;
  std::string history;
  std::string parameters;  // the file's bytes

  bool operator==(const FinishedTraining&) const = default;
};

/// By the folder's name. Throws BadInput when a table is not whole.
inline std::map<std::string, FinishedTraining> finished_trainings(
    const std::filesystem::path& root) {
  std::map<std::string, FinishedTraining> found;
  if (!std::filesystem::exists(root)) return found;
  for (const std::filesystem::path& path : find_files(root, "accuracy.csv")) {
    const std::filesystem::path cell = path.parent_path();
    found[cell.filename().string()] = {.rows = timeless_rows(path),
                                       .history = slurp(cell / "history.csv"),
                                       .parameters = slurp(cell / "checkpoint.safetensors")};
  }
  return found;
}

}  // namespace vla_bench::testing
