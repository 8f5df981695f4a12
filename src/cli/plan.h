// From a config to the cells that this process runs, and where their files lie.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/read.h"
#include "report/run_directory.h"
#include "report/table.h"

namespace vla_bench::cli {

/// Which cells are ours: those whose index in the expanded order (from 0) is `index` modulo
/// `count`.
struct Shard {
  Index index = 0;
  Index count = 1;
};
/// "I/N" with 0 <= I < N. Throws BadInput.
Shard parse_shard(const std::string& text);

struct PlannedCell {
  CellConfig cell;
  RunDirectory directory;
  const Schema* schema = nullptr;  // of the table that the cell fills

  bool finished() const { return directory.finished(schema->name); }
};

/// The cells of `config` in `shard`, below `root` ("results/runs"). Throws BadInput when `device`
/// does not compute in the precision asked for.
std::vector<PlannedCell> plan_cells(const RunConfig& config, Device device,
                                    const std::filesystem::path& root, const Shard& shard);

/// cell, title, hash, finished: what --dry-run prints.
Table plan_table(const std::vector<PlannedCell>& plan);

}  // namespace vla_bench::cli
