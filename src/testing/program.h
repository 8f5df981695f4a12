// A folder with a config in it, for tests that drive the program as a user does.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "report/table.h"
#include "testing/subprocess.h"

namespace vla_bench::testing {

using Arguments = std::vector<std::string>;

inline Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

/// A cell's table in a report: each row is followed by its group.
inline Schema reported(std::string_view name) {
  Schema schema = *find_schema(name);
  schema.columns.emplace_back("plateau_step");
  schema.columns.emplace_back("config");
  return schema;
}

class Program : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_.path() / name;
    write_file_atomically(path, text);
    return path.string();
  }
  std::string at(const std::string& name) const { return (folder_.path() / name).string(); }

  /// Two mixers, three sizes: six training cells of a few milliseconds each.
  std::string write_training() const {
    return write("train.json", R"({"experiment": "mqar", "name": "tiny", "seeds": [7], "threads": 1,
        "mixers": ["linear", "vla"], "sweep": {"task.n_pairs": [2, 3, 4]},
        "model": {"n_heads": 2, "d_h": 4, "n_layers": 1, "d_ff": 8, "vocab_size": 16},
        "train": {"steps": 4, "batch": 3, "warmup": 1, "log_every": 1},
        "eval": {"batches": 2, "batch": 3}})");
  }

  /// Rows of a gathered table with the columns that hold times removed.
  std::vector<std::vector<Value>> timeless(const std::string& runs, const std::string& name) const {
    const std::string gathered = runs + "-report";
    const Outcome report = run_program({"report", runs, "--out", gathered});
    EXPECT_EQ(report.exit_code, 0) << report.err;
    Table table = read_csv(std::filesystem::path(gathered) / (name + ".csv"), reported(name));
    const auto seconds = static_cast<std::ptrdiff_t>(table.column("train_seconds"));
    for (auto& row : table.rows) row.erase(row.begin() + seconds);
    return table.rows;
  }

  TemporaryFolder folder_;
};

}  // namespace vla_bench::testing
