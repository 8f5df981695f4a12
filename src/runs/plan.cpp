#include "runs/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <numeric>
#include <optional>
#include <queue>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "experiments/cost.h"

namespace vla_bench {
namespace {

std::optional<Index> parse_index(std::string_view text) {
  Index value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

void require_precision(const RunConfig& config, Device device) {
  if (device == Device::cuda || config.precision == Precision::float32) return;
  throw BadInput(fmt::format("/precision: the cpu computes in float32 only, got {}",
                             enum_name(config.precision)));
}

}  // namespace

Shard parse_shard(const std::string& text) {
  const std::size_t slash = text.find('/');
  if (slash != std::string::npos) {
    const auto index = parse_index(std::string_view(text).substr(0, slash));
    const auto count = parse_index(std::string_view(text).substr(slash + 1));
    if (index && count && *index >= 0 && *index < *count) return {*index, *count};
  }
  throw BadInput(fmt::format("--shard: expected I/N with I from 0 to N - 1, got \"{}\"", text));
}

void sort_longest_first(const std::vector<Index>& flop, std::vector<std::size_t>& cells) {
  std::stable_sort(cells.begin(), cells.end(),
                   [&](std::size_t a, std::size_t b) { return flop[a] > flop[b]; });
}

std::vector<Index> deal(const std::vector<Index>& flop, Index shards) {
  std::vector<std::size_t> longest_first(flop.size());
  std::iota(longest_first.begin(), longest_first.end(), std::size_t{0});
  sort_longest_first(flop, longest_first);

  // The shard with the smallest load is on top. Shards beyond the number of cells stay empty. Loads
  // are doubles, which do not overflow; their sums are the same on every machine.
  using Load = std::pair<double, Index>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (Index i = 0; i < std::min(shards, static_cast<Index>(flop.size())); ++i) loads.emplace(0, i);

  std::vector<Index> dealt(flop.size());
  for (const std::size_t cell : longest_first) {
    const auto [load, shard] = loads.top();
    loads.pop();
    dealt[cell] = shard;
    loads.emplace(load + static_cast<double>(flop[cell]), shard);
  }
  return dealt;
}

std::vector<PlannedCell> plan_cells(const RunConfig& config, Device device,
                                    const std::filesystem::path& root, Index shards) {
  std::vector<PlannedCell> plan;
  std::vector<Index> flop;
  for (CellConfig& cell : expand_cells(config, device)) {
    require_precision(cell.config, device);
    CellFolder folder{root / cell.config.name / cell.hash};
    flop.push_back(cell_flop(cell.config));
    plan.push_back({.cell = std::move(cell), .folder = std::move(folder), .flop = flop.back()});
  }
  const std::vector<Index> dealt = deal(flop, shards);
  for (std::size_t i = 0; i < plan.size(); ++i) plan[i].shard = dealt[i];
  return plan;
}

std::vector<PlannedCell> only_shard(std::vector<PlannedCell> plan, Index shard) {
  std::erase_if(plan, [&](const PlannedCell& cell) { return cell.shard != shard; });
  return plan;
}

}  // namespace vla_bench
