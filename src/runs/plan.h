// From a config to the cells that this process runs, and where their files lie.
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

/// The shard of every cell when cells of such operation counts are dealt to `shards`: longest
/// first, each to the shard that has least to do by then; of equals the first in the list and the
/// lowest shard. Which cells are finished does not count: tasks that start at different times
/// agree.
std::vector<Index> deal(const std::vector<Index>& flop, Index shards);

struct PlannedCell {
  CellConfig cell;
  CellFolder folder;
  Index flop = 0;   // cell_flop
  Index shard = 0;  // that it is dealt to
};

/// All cells of `config` below `root` ("results/runs"), in the expanded order, dealt to `shards`.
/// Throws BadInput when `device` does not compute in the precision asked for.
std::vector<PlannedCell> plan_cells(const RunConfig& config, Device device,
                                    const std::filesystem::path& root, Index shards = 1);

/// Those of one shard, in the expanded order.
std::vector<PlannedCell> only_shard(std::vector<PlannedCell> plan, Index shard);

}  // namespace vla_bench
