// State norms and Jacobians over seeds: at the last token, and along the sequence.
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
#include "experiments/jacobian.h"
#include "experiments/state_norm.h"
#include "report/cell_columns.h"
#include "report/grouping.h"
#include "report/lines.h"
#include "report/summary_rows.h"

namespace vla_bench {
namespace {

using Row = std::vector<Value>;

/// A group with the measurements of its cells.
struct Probes {
  const CellGroup* group = nullptr;
  LineName name{};
  std::vector<Value> order{};          // sorts the groups
  std::vector<CellEnd> states{};       // of the cells
  std::vector<const Table*> tables{};  // of the cells; null for a cell without one
};

/// Sorts and names the groups: sizes and precision are columns, the length of the sequence is not.
std::vector<Probes> probes_of(std::span<const CellGroup> groups, const Schema& schema) {
  std::vector<NamedCells> named;
  for (const CellGroup& group : groups) {
    named.push_back(
        named_cells(group, {Columns::precision, Columns::source, Columns::n_heads, Columns::d_h}));
  }
  const bool has_mixer = schema.name == StateNorm::table().name;
  ShownKeys shown{.keys = {"precision", "probe.source", "model.n_heads", "model.d_h"}};
  if (has_mixer) shown.keys.emplace_back("mixer.mixer");
  std::vector<LineName> names = name_lines(named, shown);
  std::vector<Probes> all;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    Probes& probes = all.emplace_back(Probes{.group = &groups[i], .name = std::move(names[i])});
    probes.order = line_order(probes.name, named[i]);
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

/// The row at the last t of each cell that is ok; t is the same for all, as their length is.
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

/// Where `measured_cells` cells are behind what was measured at token t.
Row probe_row(const Probes& probes, std::span<const Column> keys, Value t,
              std::size_t measured_cells, Row measured) {
  Row key = columns_of(probes.group->config(), keys);
  key.back() = std::move(t);  // which no config has
  return summary_row({.name = probes.name,
                      .keys = std::move(key),
                      .cells = cells_text(measured_cells, probes.states.size()),
                      .states = probes.states,
                      .measured = std::move(measured),
                      .note = versions_note(probes.states),
                      .config = probes.group->hash});
}

/// One quantity of a curve or summary.
struct Quantity {
  Column column;
  Interval range;
};

/// One row per t of each group.
Table curve(std::span<const Probes> groups, const Schema& schema, std::span<const Column> keys,
            std::initializer_list<Quantity> quantities) {
  const Table raw(schema);
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const std::string_view precision = computed_in(probes.group->config());
    std::vector<Row> rows;
    for (const auto& [token, found] : rows_by_t(probes, raw.column(Columns::t))) {
      Row measured;
      for (const Quantity& one : quantities) {
        append_rounded(measured, numbers(found, raw.column(one.column)), precision, one.range);
      }
      rows.push_back(probe_row(probes, keys, static_cast<std::int64_t>(std::llround(token)),
                               found.size(), std::move(measured)));
    }
    sorted.add(probes.order, std::move(rows));
  }
  std::vector<std::string> measured;
  for (const Quantity& one : quantities) append_quantity_columns(measured, {one.column});
  return sorted.take(std::string(schema.name) + "_curve",
                     summary_columns(keys, std::move(measured)));
}

/// The key that two groups must share for their mixers to be compared.
std::string keys_beside_mixer(const RunConfig& config) {
  std::string text;
  for (const IdentityKey& key : identity_keys(config)) {
    if (key.key == "seed" || key.key.starts_with("mixer.")) continue;
    text.append(key.key).append("=").append(key.value).append("\n");
  }
  return text;
}

/// Mean norm of linear attention's state at the last t, by that key.
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

/// The mean over time of a column: a row is weighted by the steps since the row before it, so that
/// the dense first rows of a log-spaced record do not dominate.
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

/// One value per cell that is ok.
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

Table state_norm_summary(std::span<const Probes> groups, std::span<const Column> keys) {
  const Table raw(StateNorm::table());
  const std::size_t t = raw.column(Columns::t);
  const std::size_t s_norm = raw.column(Columns::s_norm);
  const std::map<std::string, double> linear = linear_norms(groups, t, s_norm);
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const RunConfig& config = probes.group->config();
    const std::vector<const Row*> last = last_rows(probes, t);
    const std::vector<double> norms = numbers(last, s_norm);
    Row measured;
    append_rounded(measured, norms, computed_in(config), kNotNegative);
    append_rounded(measured, numbers(last, raw.column(Columns::a_norm)), computed_in(config),
                   kNotNegative);
    std::optional<double> ratio;
    const double mean = statistics(norms).mean;
    if (mean > 0.0) {
      const auto found = linear.find(keys_beside_mixer(config));
      if (found != linear.end()) ratio = found->second / mean;
    }
    measured.push_back(value_of(ratio));
    sorted.add(probes.order, {probe_row(probes, keys, last.empty() ? Value() : (*last[0])[t],
                                        last.size(), std::move(measured))});
  }
  std::vector<std::string> measured;
  append_quantity_columns(measured, {Columns::s_norm, Columns::a_norm});
  measured.emplace_back(Columns::linear_over_label);
  return sorted.take("state_norm_summary", summary_columns(keys, std::move(measured)));
}

Table jacobian_summary(std::span<const Probes> groups, std::span<const Column> keys) {
  const Table raw(Jacobian::table());
  const std::size_t t = raw.column(Columns::t);
  const std::size_t sigma = raw.column(Columns::sigma_max);
  const std::size_t closed_form = raw.column(Columns::sigma_closed_form);
  SortedRows sorted;
  for (const Probes& probes : groups) {
    const std::string_view precision = computed_in(probes.group->config());
    const std::vector<const Row*> last = last_rows(probes, t);
    Row measured;
    append_rounded(measured, time_averages(probes, t, sigma), precision, kNotNegative);
    measured.push_back(largest(probes, [&](const Row& one) { return number(one[sigma]); }));
    measured.push_back(largest(probes, [&](const Row& one) -> std::optional<double> {
      const auto a = number(one[sigma]);
      const auto b = number(one[closed_form]);
      if (!a || !b) return std::nullopt;
      return std::abs(*a - *b);
    }));
    append_rounded(measured, time_averages(probes, t, raw.column(Columns::cosine)), precision,
                   kCosines);
    append_rounded(measured, numbers(last, raw.column(Columns::product_norm)), precision,
                   kNotNegative);
    sorted.add(probes.order, {probe_row(probes, keys, last.empty() ? Value() : (*last[0])[t],
                                        last.size(), std::move(measured))});
  }
  std::vector<std::string> measured;
  append_quantity_columns(measured, {Columns::sigma_max});
  measured.emplace_back(Columns::sigma_max_max);
  measured.emplace_back(Columns::closed_form_gap);
  append_quantity_columns(measured, {Columns::cosine, Columns::product_norm});
  return sorted.take("jacobian_summary", summary_columns(keys, std::move(measured)));
}

}  // namespace

std::vector<Table> StateNorm::summarise(std::span<const CellGroup> groups) {
  static constexpr Column keys[] = {label, mixer, precision, source, n_heads, d_h, t};
  const std::vector<Probes> probes = probes_of(groups, table());
  return {state_norm_summary(probes, keys),
          curve(probes, table(), keys, {{s_norm, kNotNegative}, {a_norm, kNotNegative}})};
}

std::vector<Table> Jacobian::summarise(std::span<const CellGroup> groups) {
  static constexpr Column keys[] = {label, precision, source, n_heads, d_h, t};
  const std::vector<Probes> probes = probes_of(groups, table());
  return {jacobian_summary(probes, keys),
          curve(probes, table(), keys,
                {{sigma_max, kNotNegative}, {cosine, kCosines}, {product_norm, kNotNegative}})};
}

}  // namespace vla_bench
