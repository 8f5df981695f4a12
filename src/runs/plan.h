// The plan of a run: the cells of a config that this process runs, and the paths of their files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "config/read.h"
#include "runs/cell_folder.h"

namespace vla_bench {

/// One of `count` parts of a sweep, `index` from 0; see deal().
struct Shard {
  Index index = 0;
  Index count = 1;
};
/// "I/N" with 0 <= I < N. Throws BadInput.
Shard parse_shard(const std::string& text);

/// Sorts `cells`, which are places in `flop`, by descending operation counts; equals keep their
/// order.
void sort_longest_first(const std::vector<Index>& flop, std::vector<std::size_t>& cells);

/// Returns the shard of every cell, distributed by operation counts: longest first, each to the
/// shard with the smallest load so far; among equals the first in the list and the lowest shard. It
/// does not depend on which cells are finished, so tasks that start at different times agree.
std::vector<Index> deal(const std::vector<Index>& flop, Index shards);

struct PlannedCell {
  CellConfig cell;
  CellFolder folder;
  Index flop = 0;   // cell_flop
  Index shard = 0;  // see deal()
};

/// All cells of `config` below `root` ("results/runs"), in the expanded order, dealt to `shards`.
/// Throws BadInput when `device` does not support the config's precision.
std::vector<PlannedCell> plan_cells(const RunConfig& config, Device device,
                                    const std::filesystem::path& root, Index shards = 1);

/// The cells of one shard, in the expanded order.
std::vector<PlannedCell> only_shard(std::vector<PlannedCell> plan, Index shard);

}  // namespace vla_bench
