#include "report/probe_summary.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "config/identity.h"
#include "config/read.h"
#include "report/cell_columns.h"
#include "report/lines.h"
#include "report/quantities.h"
#include "report/sorted_rows.h"

namespace vla_bench {
namespace {

using Row = std::vector<Value>;

/// A group with what its cells measured.
struct Probes {
  const CellGroup* group = nullptr;
  LineName name{};
  std::vector<Value> order{};          // sorts the groups
  std::vector<CellState> states{};     // of the cells
  std::vector<const Table*> tables{};  // of the cells; null where a cell has none
};

/// Sorts and names: sizes and precision are columns, the length of the sequence is not.
std::vector<Probes> probes_of(std::span<const CellGroup> groups, const Schema& schema) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) {
    const RunConfig& config = group.config();
    std::vector<Value> place;
    for (const char* column : {"precision", "source", "n_heads", "d_h"}) {
      place.push_back(column_of(config, column));
    }
    named.push_back({.label = group.label,
                     .hash = group.hash,
                     .config = &config,
                     .places = {std::move(place)}});
  }
  const bool has_mixer = schema.name == state_norm_schema().name;
  ShownKeys shown{.keys = {"precision", "probe.source", "model.n_heads", "model.d_h"}};
  if (has_mixer) shown.keys.emplace_back("mixer.mixer");
  std::vector<LineName> names = name_lines(named, shown);
  std::vector<Probes> all;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    Probes& probes = all.emplace_back(Probes{.group = &groups[i], .name = std::move(names[i])});
    probes.order = {groups[i].label};
    probes.order.insert(probes.order.end(), probes.name.order.begin(), probes.name.order.end());
    probes.order.emplace_back(probes.name.line);
    probes.order.insert(probes.order.end(), named[i].places[0].begin(), named[i].places[0].end());
    probes.order.emplace_back(groups[i].hash);
    for (const CellRecord* cell : groups[i].cells) {
      probes.states.push_back(state_of(*cell));
      probes.tables.push_back(cell->table(schema.name));
    }
  }
  return all;
}

/// The rows at each t of the cells that are ok, in the order of seeds.
std::map<double, std::vector<const Row*>> rows_by_t(const Probes& probes, std::size_t t) {
  std::map<double, std::vector<const Row*>> rows;
  for (std::size_t cell = 0; cell < probes.tables.size(); ++cell) {
    if (!probes.states[cell].ok()) continue;
    for (const Row& row : probes.tables[cell]->rows) {
      if (const auto token = number(row[t])) rows[*token].push_back(&row);
    }
  }
  return rows;
}

/// The row at the largest t of each cell that is ok; of equal t, for they share a sequence length.
std::vector<const Row*> last_rows(const Probes& probes, std::size_t t) {
  std::vector<const Row*> last;
  for (std::size_t cell = 0; cell < probes.tables.size(); ++cell) {
    if (!probes.states[cell].ok()) continue;
    const auto& rows = probes.tables[cell]->rows;
    last.push_back(&*std::max_element(rows.begin(), rows.end(), [t](const Row& a, const Row& b) {
      return compare(a[t], b[t]) < 0;
    }));
  }
  return last;
}

std::vector<double> numbers(std::span<const Row* const> rows, std::size_t column) {
  std::vector<double> values;
  for (const Row* row : rows) {
    if (const auto value = number((*row)[column])) values.push_back(*value);
  }
  return values;
}

/// line and the columns up to t.
Row begin_row(const Probes& probes, std::initializer_list<std::string_view> columns, Value t) {
  Row row = {probes.name.line};
  for (const std::string_view column : columns) {
    row.push_back(column_of(probes.group->config(), column));
  }
  row.push_back(std::move(t));
  row.push_back(text_value(probes.name.setting));
  return row;
}

void append_cells(Row& row, const Probes& probes, std::size_t measured) {
  row.emplace_back(cells_text(measured, probes.states.size()));
  row.push_back(text_value(not_ok_text(probes.states)));
}

void append_end(Row& row, const Probes& probes) {
  row.push_back(text_value(versions_note(probes.states)));
  row.emplace_back(probes.group->hash);
}

std::vector<std::string> columns_of(std::initializer_list<std::string_view> keys) {
  std::vector<std::string> columns = {"line"};
  columns.insert(columns.end(), keys.begin(), keys.end());
  columns.insert(columns.end(), {"t", "setting", "cells", "not_ok"});
  return columns;
}

/// One quantity of a curve or summary.
struct Quantity {
  std::string_view name;
  Interval range;
};

/// A row for each t of each group.
Table curve(std::span<const Probes> groups, const Schema& schema,
            std::initializer_list<std::string_view> keys,
            std::initializer_list<Quantity> quantities) {
  const Table raw(schema);
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const std::string_view precision = computed_in(probes.group->config());
    std::vector<Row> rows;
    for (const auto& [token, measured] : rows_by_t(probes, raw.column("t"))) {
      Row& row = rows.emplace_back(
          begin_row(probes, keys, static_cast<std::int64_t>(std::llround(token))));
      append_cells(row, probes, measured.size());
      for (const Quantity& one : quantities) {
        append_rounded(row, numbers(measured, raw.column(one.name)), precision, one.range);
      }
      append_end(row, probes);
    }
    sorted.add(probes.order, std::move(rows));
  }
  std::vector<std::string> columns = columns_of(keys);
  for (const Quantity& one : quantities) append_quantity_columns(columns, {one.name});
  columns.insert(columns.end(), {"note", "config"});
  return sorted.take(std::string(schema.name) + "_curve", std::move(columns));
}

/// What two groups share whose mixers are compared.
std::string keys_beside_mixer(const RunConfig& config) {
  std::string text;
  for (const IdentityKey& key : identity_keys(config)) {
    if (key.key == "seed" || key.key.starts_with("mixer.")) continue;
    text.append(key.key).append("=").append(key.value).append("\n");
  }
  return text;
}

/// Mean norm of linear attention's state at the last t, by what else the cells share.
std::map<std::string, double> linear_norms(std::span<const Probes> groups, std::size_t t,
                                           std::size_t s_norm) {
  std::map<std::string, double> norms;
  for (const Probes& probes : groups) {
    const RunConfig& config = probes.group->config();
    if (!config.mixers.front().is<StateNormBaseline>()) continue;
    const Statistics spread = statistics(numbers(last_rows(probes, t), s_norm));
    if (spread.count > 0) norms.try_emplace(keys_beside_mixer(config), spread.mean);
  }
  return norms;
}

/// The mean over time of a column: a recorded row stands for the steps since the row before it, so
/// the dense first rows of a log-spaced record do not count for more than their share.
std::optional<double> time_average(const Table& table, std::size_t t, std::size_t column) {
  std::map<double, double> values;
  for (const Row& row : table.rows) {
    const auto value = number(row[column]);
    const auto time = number(row[t]);
    if (value && time) values[*time] = *value;
  }
  double sum = 0.0;
  double previous = 0.0;
  for (const auto& [time, value] : values) {
    sum += value * (time - previous);
    previous = time;
  }
  if (previous == 0.0) return std::nullopt;
  return sum / previous;
}

/// One a cell that is ok.
std::vector<double> time_averages(const Probes& probes, std::size_t t, std::size_t column) {
  std::vector<double> averages;
  for (std::size_t cell = 0; cell < probes.tables.size(); ++cell) {
    if (!probes.states[cell].ok()) continue;
    if (const auto mean = time_average(*probes.tables[cell], t, column)) averages.push_back(*mean);
  }
  return averages;
}

/// The largest value of `of(row)` over all rows.
template <class Of>
Value largest(const Probes& probes, const Of& of) {
  std::optional<double> most;
  for (const Table* table : probes.tables) {
    if (table == nullptr) continue;
    for (const Row& row : table->rows) {
      const std::optional<double> value = of(row);
      if (value && !(most && *most >= *value)) most = value;
    }
  }
  return value_of(most);
}

Table state_norm_summary(std::span<const Probes> groups,
                         std::initializer_list<std::string_view> keys) {
  const Table raw(state_norm_schema());
  const std::size_t t = raw.column("t");
  const std::size_t s_norm = raw.column("s_norm");
  const std::map<std::string, double> linear = linear_norms(groups, t, s_norm);
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const RunConfig& config = probes.group->config();
    const std::vector<const Row*> last = last_rows(probes, t);
    const std::vector<double> norms = numbers(last, s_norm);
    Row row = begin_row(probes, keys, last.empty() ? Value() : (*last[0])[t]);
    append_cells(row, probes, last.size());
    append_rounded(row, norms, computed_in(config), kNotNegative);
    append_rounded(row, numbers(last, raw.column("a_norm")), computed_in(config), kNotNegative);
    std::optional<double> ratio;
    const double mean = statistics(norms).mean;
    if (mean > 0.0) {
      const auto found = linear.find(keys_beside_mixer(config));
      if (found != linear.end()) ratio = found->second / mean;
    }
    row.push_back(value_of(ratio));
    append_end(row, probes);
    sorted.add(probes.order, {std::move(row)});
  }
  std::vector<std::string> columns = columns_of(keys);
  append_quantity_columns(columns, {"s_norm", "a_norm"});
  columns.insert(columns.end(), {"linear_over_label", "note", "config"});
  return sorted.take("state_norm_summary", std::move(columns));
}

Table jacobian_summary(std::span<const Probes> groups,
                       std::initializer_list<std::string_view> keys) {
  const Table raw(jacobian_schema());
  const std::size_t t = raw.column("t");
  const std::size_t sigma = raw.column("sigma_max");
  const std::size_t closed_form = raw.column("sigma_closed_form");
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const std::string_view precision = computed_in(probes.group->config());
    const std::vector<const Row*> last = last_rows(probes, t);
    Row row = begin_row(probes, keys, last.empty() ? Value() : (*last[0])[t]);
    append_cells(row, probes, last.size());
    append_rounded(row, time_averages(probes, t, sigma), precision, kNotNegative);
    row.push_back(largest(probes, [&](const Row& one) { return number(one[sigma]); }));
    row.push_back(largest(probes, [&](const Row& one) -> std::optional<double> {
      const auto a = number(one[sigma]);
      const auto b = number(one[closed_form]);
      if (!a || !b) return std::nullopt;
      return std::abs(*a - *b);
    }));
    append_rounded(row, time_averages(probes, t, raw.column("cosine")), precision, kCosines);
    append_rounded(row, numbers(last, raw.column("product_norm")), precision, kNotNegative);
    append_end(row, probes);
    sorted.add(probes.order, {std::move(row)});
  }
  std::vector<std::string> columns = columns_of(keys);
  append_quantity_columns(columns, {"sigma_max"});
  columns.insert(columns.end(), {"sigma_max_max", "closed_form_gap"});
  append_quantity_columns(columns, {"cosine", "product_norm"});
  columns.insert(columns.end(), {"note", "config"});
  return sorted.take("jacobian_summary", std::move(columns));
}

}  // namespace

std::vector<Table> summarise_state_norm(std::span<const CellGroup> groups) {
  const std::initializer_list<std::string_view> keys = {"label",  "mixer",   "precision",
                                                        "source", "n_heads", "d_h"};
  const std::vector<Probes> probes = probes_of(groups, state_norm_schema());
  return {state_norm_summary(probes, keys),
          curve(probes, state_norm_schema(), keys,
                {{"s_norm", kNotNegative}, {"a_norm", kNotNegative}})};
}

std::vector<Table> summarise_jacobian(std::span<const CellGroup> groups) {
  const std::initializer_list<std::string_view> keys = {"label", "precision", "source", "n_heads",
                                                        "d_h"};
  const std::vector<Probes> probes = probes_of(groups, jacobian_schema());
  return {
      jacobian_summary(probes, keys),
      curve(probes, jacobian_schema(), keys,
            {{"sigma_max", kNotNegative}, {"cosine", kCosines}, {"product_norm", kNotNegative}})};
}

}  // namespace vla_bench
