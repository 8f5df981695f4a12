#include "report/grouping.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "config/identity.h"
#include "config/read.h"

namespace vla_bench {
namespace {

int kind(const Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return 0;
  return std::holds_alternative<std::string>(value) ? 2 : 1;
}

Value text(std::string_view value) { return std::string(value); }

/// The identity without mixer and seed.
std::string settings_of(const RunConfig& config) {
  std::string settings;
  for (const IdentityKey& key : identity_keys(config)) {
    if (key.key == "seed" || key.key.starts_with("mixer.")) continue;
    settings += fmt::format("{}={}\n", key.key, key.value);
  }
  return settings;
}

/// A fact as a number where it is one.
Value fact_value(std::string_view fact) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(fact.data(), fact.data() + fact.size(), number);
  if (fact.empty()) return {};
  if (error == std::errc() && end == fact.data() + fact.size()) return number;
  return std::string(fact);
}

/// Larger is graver; 0 when all went well.
int gravity(const CellFacts& cell) {
  const std::string& status = cell.outcome.status;
  if (status == "ok") return 0;
  if (status == "skipped") return 1;
  return status == "diverged" ? 2 : 3;
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
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

int compare(const Value& a, const Value& b) {
  if (kind(a) != kind(b)) return order(kind(a), kind(b));
  if (kind(a) == 0) return 0;
  if (kind(a) == 2) return order(std::get<std::string>(a), std::get<std::string>(b));
  const double x = *number(a);
  const double y = *number(b);
  if (std::isnan(x) || std::isnan(y)) return order(std::isnan(x), std::isnan(y));
  if (x != y) return order(x, y);
  // Integers beyond 2^53 may share a double.
  const auto* i = std::get_if<std::int64_t>(&a);
  const auto* j = std::get_if<std::int64_t>(&b);
  return i && j ? order(*i, *j) : 0;
}

bool RowLess::operator()(const std::vector<Value>& a, const std::vector<Value>& b) const {
  return std::lexicographical_compare_three_way(
             a.begin(), a.end(), b.begin(), b.end(),
             [](const Value& x, const Value& y) { return compare(x, y) <=> 0; }) < 0;
}

CellFacts cell_facts(const CellRecord& record) {
  const RunConfig& config = record.config;
  const MixerConfig& mixer = config.mixers.front();
  const bool on_gpu = config.device == DeviceRequest::cuda;
  return {
      .settings = settings_of(config),
      .config = group_hash(config),
      .label = mixer_label(mixer),
      .mixer = text(enum_name(mixer.mixer)),
      .precision = text(computed_in(config)),
      .seed = std::int64_t{config.seeds.front()},
      .source = text(enum_name(config.probe.source)),
      .n_heads = std::int64_t{config.model.n_heads},
      .d_h = std::int64_t{config.model.d_h},
      .threads = fact_value(record.provenance.fact("threads")),
      .processor = fact_value(record.provenance.fact(on_gpu ? "cuda" : "processor")),
      .outcome = record.outcome,
  };
}

RowGroups group_rows(const Table& table, std::span<const SourcedRow> rows,
                     const std::vector<std::string_view>& columns,
                     const std::vector<Value CellFacts::*>& facts, bool by_config) {
  RowGroups groups;
  for (const SourcedRow& row : rows) {
    std::vector<Value> key;
    for (const std::string_view column : columns) key.push_back(row.values[table.column(column)]);
    for (const auto fact : facts) key.push_back(row.cell->*fact);
    if (by_config) key.emplace_back(row.cell->config);
    groups[std::move(key)].push_back(row);
  }
  return groups;
}

CellGroups group_cells(const std::deque<CellFacts>& cells, std::span<const SourcedRow> rows,
                       const std::vector<Value CellFacts::*>& facts) {
  const auto key_of = [&](const CellFacts& cell) {
    std::vector<Value> key;
    for (const auto fact : facts) key.push_back(cell.*fact);
    key.emplace_back(cell.config);
    return key;
  };
  CellGroups groups;
  for (const CellFacts& cell : cells) groups[key_of(cell)].cells.push_back(&cell);
  for (const SourcedRow& row : rows) groups[key_of(*row.cell)].rows.push_back(row);
  return groups;
}

void append_outcome(std::vector<Value>& row, std::span<const CellFacts* const> cells) {
  // The same seed may have been run more than once: the best of its ends counts.
  std::map<std::vector<Value>, const CellFacts*, RowLess> seeds;
  for (const CellFacts* cell : cells) {
    const CellFacts*& best = seeds.try_emplace({cell->seed}, cell).first->second;
    const auto rank = [](const CellFacts& one) {
      return std::pair(gravity(one), one.outcome.reason);
    };
    if (rank(*cell) < rank(*best)) best = cell;
  }
  const CellFacts* gravest = nullptr;
  std::size_t count = 0;
  for (const auto& [seed, cell] : seeds) {
    if (gravest == nullptr || gravity(*cell) > gravity(*gravest)) {
      gravest = cell;
      count = 0;
    }
    if (gravity(*cell) == gravity(*gravest)) ++count;
  }
  if (gravest == nullptr || gravity(*gravest) == 0) {
    row.insert(row.end(), {std::string("ok"), Value()});
    return;
  }
  const std::string share =
      count < seeds.size() ? fmt::format("{} of {} seeds: ", count, seeds.size()) : "";
  row.insert(row.end(), {gravest->outcome.status, share + gravest->outcome.reason});
}

void append_statistics(std::vector<Value>& row, const Statistics& statistics) {
  std::optional<double> mean, deviation, interval;
  if (statistics.count >= 1) mean = statistics.mean;
  if (statistics.count >= 2) {
    deviation = statistics.standard_deviation;
    interval = statistics.ci95;
  }
  for (const std::optional<double> number : {mean, deviation, interval}) {
    row.push_back(value_of(number));
  }
}

}  // namespace vla_bench
