#include "report/suite_configs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "config/dump.h"

namespace vla_bench {
namespace {

using Pointer = Json::json_pointer;

/// Values of a config that may differ from cell to cell. A list is one value.
using Leaves = std::vector<std::pair<std::string, Json>>;  // JSON pointer -> value, in their order

const char* const kMixers = "/mixers";
const char* const kSeeds = "/seeds";

void collect_leaves(const Json& value, const std::string& pointer, Leaves& leaves) {
  if (!value.is_object()) {
    leaves.emplace_back(pointer, value);
    return;
  }
  for (const auto& [key, member] : value.items()) {
    // A resolved cell has no sweep; an empty one would conflict with the new one.
    if (pointer.empty() && key == "sweep") continue;
    collect_leaves(member, (Pointer(pointer) / key).to_string(), leaves);
  }
}

Leaves leaves_of(const CellRecord& cell) {
  Leaves leaves;
  collect_leaves(resolved_json(cell.config), "", leaves);
  return leaves;
}

using Cells = std::vector<Leaves>;  // distinct, all with the same pointers

std::vector<Json> distinct_values(const Cells& cells, std::size_t leaf) {
  std::set<Json> values;
  for (const Leaves& leaves : cells) values.insert(leaves[leaf].second);
  return {values.begin(), values.end()};
}

/// "/task/n_pairs" -> "task.n_pairs"
std::string dotted(std::string pointer) {
  pointer.erase(0, 1);
  std::replace(pointer.begin(), pointer.end(), '/', '.');
  return pointer;
}

/// A cell has one mixer and one seed; a suite lists those of all its cells.
Json joined(const std::vector<Json>& lists) {
  Json all = Json::array();
  for (const Json& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

/// One config when the cells are all combinations of their values; otherwise the configs of each
/// value of one leaf, chosen to give the fewest configs.
void append_configs(const Cells& cells, Json& configs) {
  Json config = Json::object();
  Json sweep = Json::object();
  std::size_t combinations = 1;
  std::size_t fewest = 0;  // leaf
  std::size_t fewest_values = cells.size() + 1;
  for (std::size_t leaf = 0; leaf < cells.front().size(); ++leaf) {
    const std::string& pointer = cells.front()[leaf].first;
    const std::vector<Json> values = distinct_values(cells, leaf);
    combinations *= values.size();
    if (values.size() > 1 && values.size() < fewest_values) {
      fewest = leaf;
      fewest_values = values.size();
    }
    const bool listed = (pointer == kMixers || pointer == kSeeds) && values.front().is_array();
    if (listed) {
      config[Pointer(pointer)] = joined(values);
    } else {
      config[Pointer(pointer)] = values.front();
      if (values.size() > 1) sweep[dotted(pointer)] = values;
    }
  }
  if (combinations == cells.size()) {
    if (!sweep.empty()) config["sweep"] = std::move(sweep);
    configs.push_back(std::move(config));
    return;
  }
  for (const Json& value : distinct_values(cells, fewest)) {
    Cells part;
    std::copy_if(cells.begin(), cells.end(), std::back_inserter(part),
                 [&](const Leaves& leaves) { return leaves[fewest].second == value; });
    append_configs(part, configs);
  }
}

}  // namespace

std::string suite_configs(std::span<const CellRecord> cells) {
  // Separate by keys, since configs of other versions have others, and by keys that cannot be
  // swept.
  using Suite = std::tuple<std::string, std::string, std::string, std::vector<std::string>>;
  std::map<Suite, std::set<Leaves>> suites;
  for (const CellRecord& cell : cells) {
    Leaves leaves = leaves_of(cell);
    Suite suite;
    for (const auto& [pointer, value] : leaves) {
      if (pointer == "/experiment") std::get<0>(suite) = value.dump();
      if (pointer == "/name") std::get<1>(suite) = value.dump();
      if (pointer == "/device") std::get<2>(suite) = value.dump();
      std::get<3>(suite).push_back(pointer);
    }
    suites[std::move(suite)].insert(std::move(leaves));
  }
  Json configs = Json::array();
  for (const auto& [suite, distinct] : suites) {
    append_configs({distinct.begin(), distinct.end()}, configs);
  }
  return configs.dump(2) + "\n";
}

}  // namespace vla_bench
