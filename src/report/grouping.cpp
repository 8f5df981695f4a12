#include "report/grouping.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>
#include <tuple>
#include <utility>

#include "config/identity.h"
#include "config/read.h"
#include "core/parallel.h"

namespace vla_bench {
namespace {

int kind(const Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return 0;
  return std::holds_alternative<std::string>(value) ? 2 : 1;
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
}

int compare_rows(const std::vector<Value>& a, const std::vector<Value>& b) {
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (const int one = compare(a[i], b[i]); one != 0) return one;
  }
  return order(a.size(), b.size());
}

/// The number of threads of a cell; "" when neither provenance nor config has it.
std::string threads_of(const CellRecord& record) {
  const std::string_view fact = record.provenance.fact("threads");
  if (!fact.empty()) return std::string(fact);
  return record.config.threads > 0 ? std::to_string(record.config.threads) : "";
}

/// "1206d27", "114b3d1-dirty", or "unknown".
std::string version_of(const Provenance& provenance) {
  constexpr std::size_t kDigits = 7;
  const std::string_view hash = provenance.fact("git_hash");
  if (hash.empty()) return "unknown";
  std::string version(hash.substr(0, kDigits));
  if (provenance.fact("git_dirty") == "true") version += "-dirty";
  return version;
}

}  // namespace

std::optional<double> number(const Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  if (const auto* real = std::get_if<double>(&value)) return *real;
  return std::nullopt;
}

Value value_of(std::optional<double> number) {
  Value value;
  if (number) value = *number;
  return value;
}

Value text_value(std::string text) {
  Value value;
  if (!text.empty()) value = std::move(text);
  return value;
}

int compare(const Value& a, const Value& b) {
  if (kind(a) != kind(b)) return order(kind(a), kind(b));
  if (kind(a) == 0) return 0;
  if (kind(a) == 2) return order(std::get<std::string>(a), std::get<std::string>(b));
  const double x = *number(a);
  const double y = *number(b);
  if (std::isnan(x) || std::isnan(y)) return order(std::isnan(x), std::isnan(y));
  if (x != y) return order(x, y);
  // Different integers above 2^53 may convert to the same double.
  const auto* i = std::get_if<std::int64_t>(&a);
  const auto* j = std::get_if<std::int64_t>(&b);
  return i && j ? order(*i, *j) : 0;
}

bool RowLess::operator()(const std::vector<Value>& a, const std::vector<Value>& b) const {
  return compare_rows(a, b) < 0;
}

CellEnd state_of(const CellRecord& record) {
  CellEnd state{.seed = record.config.seeds.front(),
                .status = record.outcome.status,
                .reason = record.outcome.reason,
                .provenance = record.provenance};
  if (!state.ok()) return state;
  if (record.tables.empty() || record.tables.front().rows.empty()) {
    state.status = "failed";
    state.reason = "no rows";
    return state;
  }
  const Table& table = record.tables.front();
  if (table.rows.size() != 1) return state;
  const auto named = [&](const Column& name) -> const std::string* {
    const auto column = table.find_column(name);
    return column ? std::get_if<std::string>(&table.rows[0][*column]) : nullptr;
  };
  const std::string* status = named(Columns::status);
  if (status == nullptr || *status == "ok") return state;
  state.status = *status;
  if (const std::string* reason = named(Columns::reason)) state.reason = *reason;
  return state;
}

std::vector<CellGroup> group_cells(std::span<const CellRecord* const> records, Machines machines) {
  std::vector<std::string> hashes(records.size());
  parallel_items(grouping_threads(), static_cast<Index>(records.size()), [&](Index item) {
    const auto at = static_cast<std::size_t>(item);
    const CellRecord& record = *records[at];
    hashes[at] = record.group.empty() ? group_hash(record.config) : record.group;
  });
  using Key = std::tuple<std::string, std::string, std::string, std::string>;
  std::map<Key, std::vector<const CellRecord*>> members;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const CellRecord& record = *records[i];
    Key key(mixer_label(record.config.mixers.front()), hashes[i], "", "");
    if (machines == Machines::apart) {
      std::get<2>(key) = ran_on(record.config, record.provenance);
      std::get<3>(key) = threads_of(record);
    }
    members[std::move(key)].push_back(&record);
  }
  std::vector<CellGroup> groups;
  groups.reserve(members.size());
  for (auto& [key, cells] : members) {
    std::stable_sort(cells.begin(), cells.end(), [](const CellRecord* a, const CellRecord* b) {
      return a->config.seeds.front() < b->config.seeds.front();
    });
    const auto& [label, hash, processor, threads] = key;
    groups.push_back({.label = label,
                      .hash = hash,
                      .processor = processor,
                      .threads = threads,
                      .cells = std::move(cells)});
  }
  return groups;
}

GroupEnds ends_of(const CellGroup& group) {
  GroupEnds ends;
  for (const CellRecord* cell : group.cells) {
    ends.states.push_back(state_of(*cell));
    if (ends.states.back().ok()) ends.ok.push_back(cell);
  }
  return ends;
}

std::string cells_text(std::size_t ok, std::size_t all) { return fmt::format("{} of {}", ok, all); }

std::string cells_text(std::span<const CellEnd> states) {
  const auto ok =
      std::count_if(states.begin(), states.end(), [](const CellEnd& state) { return state.ok(); });
  return cells_text(static_cast<std::size_t>(ok), states.size());
}

std::string not_ok_text(std::span<const CellEnd> states) {
  std::vector<std::string> named;
  for (const CellEnd& state : states) {
    if (state.ok()) continue;
    named.push_back(fmt::format("seed {}: {}", state.seed, state.status));
    if (!state.reason.empty()) named.back() += ": " + state.reason;
  }
  return joined_notes(named);
}

std::string versions_note(std::span<const CellEnd> states) {
  std::map<std::string, std::size_t> counts;
  for (const CellEnd& state : states) ++counts[version_of(state.provenance)];
  if (counts.size() < 2) return "";
  std::vector<std::pair<std::string, std::size_t>> versions(counts.begin(), counts.end());
  std::stable_sort(versions.begin(), versions.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> named;
  for (const auto& [version, count] : versions) {
    named.push_back(fmt::format("{} ({})", version, count));
  }
  return fmt::format("{} program versions: {}", versions.size(), fmt::join(named, ", "));
}

std::string joined_notes(std::span<const std::string> notes) {
  std::string text;
  for (const std::string& note : notes) {
    if (note.empty()) continue;
    if (!text.empty()) text += "; ";
    text += note;
  }
  return text;
}

std::string_view ran_on(const RunConfig& config, const Provenance& provenance) {
  if (config.device != DeviceRequest::cuda) return provenance.fact("processor");
  // "available: NVIDIA H200, 139.8 GiB, ..."
  constexpr std::string_view kAvailable = "available: ";
  std::string_view gpu = provenance.fact("cuda");
  if (gpu.starts_with(kAvailable)) gpu.remove_prefix(kAvailable.size());
  return gpu.substr(0, gpu.find(','));
}

int grouping_threads() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace vla_bench
