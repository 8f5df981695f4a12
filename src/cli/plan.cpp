#include "cli/plan.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "experiments/experiment.h"

namespace vla_bench::cli {
namespace {

std::optional<Index> parse_index(std::string_view text) {
  Index value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

void require_precision(const RunConfig& config, Device device) {
  if (device == Device::cuda || config.precision == Precision::float32) return;
  throw BadInput(fmt::format("/precision: the cpu computes in float32 alone, got {}",
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

std::vector<PlannedCell> plan_cells(const RunConfig& config, Device device,
                                    const std::filesystem::path& root, const Shard& shard) {
  std::vector<PlannedCell> plan;
  Index position = 0;
  for (CellConfig& cell : expand_cells(config, device)) {
    require_precision(cell.config, device);
    if (position++ % shard.count != shard.index) continue;
    const std::filesystem::path folder = root / cell.config.name / cell.hash;
    const Schema& schema = experiment_schema(cell.config.experiment);
    plan.push_back({.cell = std::move(cell), .directory = {folder}, .schema = &schema});
  }
  return plan;
}

Table plan_table(const std::vector<PlannedCell>& plan) {
  Table table;
  table.name = "plan";
  table.columns = {"cell", "title", "hash", "finished"};
  for (std::size_t i = 0; i < plan.size(); ++i) {
    table.add({static_cast<std::int64_t>(i + 1), plan[i].cell.title, plan[i].cell.hash,
               std::string(plan[i].finished() ? "yes" : "no")});
  }
  return table;
}

}  // namespace vla_bench::cli
