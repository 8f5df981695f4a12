#include "report/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <string>

#include "core/parallel.h"
#include "core/threads.h"
#include "report/grouping.h"
#include "report/latency_summary.h"

namespace vla_bench {
namespace {

/// One table of all cells, with what each row's cell says.
struct Gathered {
  Table table;
  std::deque<CellFacts> cells;  // a deque: rows point into it
  std::vector<SourcedRow> rows;
};

Gathered gather(const Schema& schema, std::span<const CellRecord> cells) {
  Gathered gathered;
  gathered.table = Table(schema);
  std::vector<const CellRecord*> own;
  for (const CellRecord& cell : cells) {
    if (cell.table(schema.name) != nullptr) own.push_back(&cell);
  }
  gathered.cells.resize(own.size());
  parallel_items(choose_threads(0).threads, static_cast<Index>(own.size()), [&](Index item) {
    const auto at = static_cast<std::size_t>(item);
    gathered.cells[at] = cell_facts(*own[at]);
  });
  for (std::size_t i = 0; i < own.size(); ++i) {
    for (const auto& row : own[i]->table(schema.name)->rows) {
      gathered.rows.push_back({row, &gathered.cells[i]});
    }
  }
  std::stable_sort(gathered.rows.begin(), gathered.rows.end(),
                   [](const SourcedRow& a, const SourcedRow& b) {
                     if (RowLess()(a.values, b.values)) return true;
                     if (RowLess()(b.values, a.values)) return false;
                     return a.cell->config < b.cell->config;
                   });
  for (const SourcedRow& row : gathered.rows) gathered.table.add(row.values);
  return gathered;
}

/// The numbers of one column; empty values are left out.
std::vector<double> numbers(std::span<const SourcedRow> rows, std::size_t column) {
  std::vector<double> values;
  for (const SourcedRow& row : rows) {
    if (const auto value = number(row.values[column])) values.push_back(*value);
  }
  return values;
}

/// Rows of each seed, in the order of seeds.
std::map<std::vector<Value>, std::vector<SourcedRow>, RowLess> by_seed(
    const std::vector<SourcedRow>& rows) {
  std::map<std::vector<Value>, std::vector<SourcedRow>, RowLess> seeds;
  for (const SourcedRow& row : rows) seeds[{row.cell->seed}].push_back(row);
  return seeds;
}

void append_columns(Table& table, std::initializer_list<std::string_view> quantities) {
  for (const std::string_view quantity : quantities) {
    for (const char* suffix : {"_mean", "_sd", "_ci95"}) {
      table.columns.push_back(std::string(quantity) + suffix);
    }
  }
}

/// Names a cell that diverged or failed: "seed 44: diverged: loss is nan at step 17". One that was
/// skipped measured nothing and says nothing against the others.
void append_not_ok(const SourcedRow& row, const Table& source, std::string& names) {
  const Value& status = row.values[source.column("status")];
  const auto* text = std::get_if<std::string>(&status);
  if (text == nullptr || (*text != "diverged" && *text != "failed")) return;
  const auto* reason = std::get_if<std::string>(&row.values[source.column("reason")]);
  const std::int64_t* seed = std::get_if<std::int64_t>(&row.cell->seed);
  names += fmt::format("{}seed {}: {}{}{}", names.empty() ? "" : "; ", seed ? *seed : 0, *text,
                       reason ? ": " : "", reason ? *reason : "");
}

/// Statistics over seeds of tables with a status column. One row a seed: the same seed under the
/// same settings is the same measurement, however often it was repeated.
Table summarise_outcomes(const Gathered& gathered, const std::vector<std::string_view>& keys,
                         std::initializer_list<std::string_view> quantities, bool with_steps) {
  const Table& source = gathered.table;
  const std::size_t status = source.column("status");
  Table summary;
  summary.name = source.name + "_summary";
  summary.columns.assign(keys.begin(), keys.end());
  if (with_steps) summary.columns.emplace_back("steps");
  summary.columns.insert(summary.columns.end(), {"count_ok", "count_not_ok", "not_ok"});
  append_columns(summary, quantities);
  if (with_steps) summary.columns.emplace_back("loss_median");
  summary.columns.emplace_back("config");

  for (const auto& [key, rows] : group_rows(source, gathered.rows, keys, {}, true)) {
    std::vector<SourcedRow> ok;
    std::int64_t not_ok = 0;
    std::string names;
    for (const auto& [seed, repeats] : by_seed(rows)) {
      const auto first_ok =
          std::find_if(repeats.begin(), repeats.end(), [&](const SourcedRow& row) {
            return compare(row.values[status], std::string("ok")) == 0;
          });
      if (first_ok != repeats.end()) {
        ok.push_back(*first_ok);
      } else {
        ++not_ok;
        append_not_ok(repeats.front(), source, names);
      }
    }
    std::vector<Value> line(key.begin(), key.end() - 1);
    if (with_steps) {
      // A run that diverged says where; the others say how many were asked for.
      const std::size_t steps = source.column("steps");
      line.push_back(
          std::max_element(rows.begin(), rows.end(), [&](const SourcedRow& a, const SourcedRow& b) {
            return compare(a.values[steps], b.values[steps]) < 0;
          })->values[steps]);
    }
    line.emplace_back(static_cast<std::int64_t>(ok.size()));
    line.emplace_back(not_ok);
    line.push_back(names.empty() ? Value() : Value(names));
    for (const std::string_view quantity : quantities) {
      append_statistics(line, statistics(numbers(ok, source.column(quantity))));
    }
    if (with_steps) {
      std::vector<double> losses = numbers(ok, source.column("loss"));
      line.push_back(losses.empty() ? Value() : Value(quantile(std::move(losses), 0.5)));
    }
    line.push_back(key.back());
    summary.add(std::move(line));
  }
  return summary;
}

Table summarise_accuracy(const Gathered& gathered) {
  return summarise_outcomes(gathered,
                            {"experiment", "label", "mixer", "n_pairs", "d_h", "n_heads", "seq_len",
                             "layout", "short_conv", "device", "precision"},
                            {"accuracy", "loss", "train_seconds"}, /*with_steps=*/true);
}

Table summarise_recall(const Gathered& gathered) {
  return summarise_outcomes(gathered, {"label", "mixer", "d_h", "n_pairs", "trials", "precision"},
                            {"accuracy"},
                            /*with_steps=*/false);
}

/// Each seed's row at the largest t of the group: a seed that diverged before has none.
std::vector<SourcedRow> last_rows(const std::vector<SourcedRow>& rows, std::size_t t) {
  if (rows.empty()) return {};
  const Value* last = &rows.front().values[t];
  for (const SourcedRow& row : rows) {
    if (compare(*last, row.values[t]) < 0) last = &row.values[t];
  }
  std::vector<SourcedRow> found;
  for (const auto& [seed, repeats] : by_seed(rows)) {
    const auto row = std::find_if(repeats.begin(), repeats.end(), [&](const SourcedRow& candidate) {
      return compare(candidate.values[t], *last) == 0;
    });
    if (row != repeats.end()) found.push_back(*row);
  }
  return found;
}

Table summarise_state_norm(const Gathered& gathered) {
  const Table& source = gathered.table;
  const std::size_t t = source.column("t");
  const std::size_t s_norm = source.column("s_norm");
  const std::size_t a_norm = source.column("a_norm");
  const CellGroups groups =
      group_cells(gathered.cells, gathered.rows,
                  {&CellFacts::label, &CellFacts::mixer, &CellFacts::precision, &CellFacts::source,
                   &CellFacts::n_heads, &CellFacts::d_h});

  // Linear attention's mean by (settings, precision, last t). Of several linear runs the first
  // label counts.
  std::map<std::vector<Value>, double, RowLess> linear_means;
  for (const auto& [key, group] : groups) {
    if (compare(key[1], std::string("linear")) != 0) continue;
    const std::vector<SourcedRow> last = last_rows(group.rows, t);
    const Statistics norms = statistics(numbers(last, s_norm));
    if (norms.count == 0) continue;
    linear_means.try_emplace({last[0].cell->settings, key[2], last[0].values[t]}, norms.mean);
  }

  Table summary;
  summary.name = "state_norm_summary";
  summary.columns = {"label", "mixer", "precision", "source", "n_heads", "d_h", "t", "count"};
  append_columns(summary, {"s_norm", "a_norm"});
  summary.columns.insert(summary.columns.end(),
                         {"linear_over_label", "status", "reason", "config"});
  for (const auto& [key, group] : groups) {
    const std::vector<SourcedRow> last = last_rows(group.rows, t);
    const Value last_t = last.empty() ? Value() : last[0].values[t];
    const Statistics norms = statistics(numbers(last, s_norm));
    std::vector<Value> line(key.begin(), key.end() - 1);
    line.push_back(last_t);
    line.emplace_back(norms.count);
    append_statistics(line, norms);
    append_statistics(line, statistics(numbers(last, a_norm)));
    const auto linear = linear_means.find({group.cells[0]->settings, key[2], last_t});
    std::optional<double> ratio;
    if (linear != linear_means.end() && norms.count > 0 && norms.mean > 0.0) {
      ratio = linear->second / norms.mean;
    }
    line.push_back(value_of(ratio));
    append_outcome(line, group.cells);
    line.push_back(key.back());
    summary.add(std::move(line));
  }
  return summary;
}

/// The mean over time of a column: a recorded row stands for the steps since the row before it, so
/// the dense first rows of a log-spaced record do not count for more than their share.
std::optional<double> time_average(std::vector<SourcedRow> rows, std::size_t t,
                                   std::size_t column) {
  std::sort(rows.begin(), rows.end(), [t](const SourcedRow& a, const SourcedRow& b) {
    return compare(a.values[t], b.values[t]) < 0;
  });
  double sum = 0.0;
  double previous = 0.0;
  for (const SourcedRow& row : rows) {
    const auto value = number(row.values[column]);
    const auto time = number(row.values[t]);
    if (!value || !time) continue;
    sum += *value * (*time - previous);
    previous = *time;
  }
  if (previous == 0.0) return std::nullopt;
  return sum / previous;
}

std::optional<double> largest(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return *std::max_element(values.begin(), values.end());
}

/// |a - b| of two columns, where both hold a number.
std::vector<double> gaps(std::span<const SourcedRow> rows, std::size_t a, std::size_t b) {
  std::vector<double> values;
  for (const SourcedRow& row : rows) {
    const auto x = number(row.values[a]);
    const auto y = number(row.values[b]);
    if (x && y) values.push_back(std::abs(*x - *y));
  }
  return values;
}

Table summarise_jacobian(const Gathered& gathered) {
  const Table& source = gathered.table;
  const std::size_t t = source.column("t");
  const std::size_t sigma_max = source.column("sigma_max");
  const std::size_t closed_form = source.column("sigma_closed_form");
  const std::size_t cosine = source.column("cosine");
  const std::size_t product_norm = source.column("product_norm");

  Table summary;
  summary.name = "jacobian_summary";
  summary.columns = {"label", "precision", "source", "n_heads", "d_h", "t", "count"};
  append_columns(summary, {"sigma_max"});
  summary.columns.insert(summary.columns.end(), {"sigma_max_max", "closed_form_gap"});
  append_columns(summary, {"cosine", "product_norm"});
  summary.columns.insert(summary.columns.end(), {"status", "reason", "config"});
  for (const auto& [key, group] :
       group_cells(gathered.cells, gathered.rows,
                   {&CellFacts::label, &CellFacts::precision, &CellFacts::source,
                    &CellFacts::n_heads, &CellFacts::d_h})) {
    const std::vector<SourcedRow> last = last_rows(group.rows, t);
    std::vector<double> sigma_means;
    std::vector<double> cosine_means;
    for (const auto& [seed, steps] : by_seed(group.rows)) {
      // Means over different times do not compare.
      const auto of_seed = [&seed](const SourcedRow& row) {
        return compare(row.cell->seed, seed[0]) == 0;
      };
      if (std::none_of(last.begin(), last.end(), of_seed)) continue;
      if (const auto mean = time_average(steps, t, sigma_max)) sigma_means.push_back(*mean);
      if (const auto mean = time_average(steps, t, cosine)) cosine_means.push_back(*mean);
    }
    const std::vector<double> sigmas = numbers(group.rows, sigma_max);

    std::vector<Value> line(key.begin(), key.end() - 1);
    line.push_back(last.empty() ? Value() : last[0].values[t]);
    line.emplace_back(static_cast<std::int64_t>(sigma_means.size()));
    append_statistics(line, statistics(sigma_means));
    line.push_back(value_of(largest(sigmas)));
    line.push_back(value_of(largest(gaps(group.rows, sigma_max, closed_form))));
    append_statistics(line, statistics(cosine_means));
    append_statistics(line, statistics(numbers(last, product_norm)));
    append_outcome(line, group.cells);
    line.push_back(key.back());
    summary.add(std::move(line));
  }
  return summary;
}

}  // namespace

std::vector<Table> gather_tables(std::span<const CellRecord> cells) {
  std::vector<Table> tables;
  const auto add = [&](const Schema& schema,
                       const std::function<std::vector<Table>(const Gathered&)>& summaries) {
    Gathered gathered = gather(schema, cells);
    if (gathered.cells.empty()) return;
    std::vector<Table> summary = summaries(gathered);
    tables.push_back(std::move(gathered.table));
    std::move(summary.begin(), summary.end(), std::back_inserter(tables));
  };
  const auto one = [](Table (*summarise)(const Gathered&)) {
    return [summarise](const Gathered& gathered) { return std::vector{summarise(gathered)}; };
  };
  add(accuracy_schema(), one(summarise_accuracy));
  add(recall_schema(), one(summarise_recall));
  add(state_norm_schema(), one(summarise_state_norm));
  add(jacobian_schema(), one(summarise_jacobian));
  add(latency_schema(),
      [](const Gathered& gathered) { return summarise_latency(gathered.table, gathered.rows); });
  return tables;
}

}  // namespace vla_bench
