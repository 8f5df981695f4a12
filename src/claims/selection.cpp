#include "claims/selection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

using Row = SelectedRows::Row;

constexpr double kNatsAboveGuessing = 0.3;

const Table* find_table(std::span<const Table> tables, std::string_view name) {
  const auto found = std::find_if(tables.begin(), tables.end(),
                                  [&](const Table& table) { return table.name == name; });
  return found == tables.end() ? nullptr : &*found;
}

/// The value of `row` in a column; empty when the table has no such column.
Value at(const Table& table, const Row& row, std::string_view column) {
  const auto found = table.find_column(column);
  return found ? row[*found] : Value();
}

bool is_part_of_slice(std::string_view column) {
  return column == Columns::slice.name || column == Columns::n_pairs.name ||
         column == Columns::seq_len.name;
}

/// The line, and the values of those `differing` columns in which its groups differ.
std::string row_name(const Table& table, const Row& row,
                     const std::vector<std::size_t>& differing) {
  std::string name = readable_text(at(table, row, Columns::line));
  const bool is_slice = at(table, row, Columns::slice) != Value();
  const auto cells = table.find_column(Columns::cells);  // behind the keys
  for (const std::size_t column : differing) {
    const std::string& key = table.columns[column];
    const bool in_line =
        key == Columns::line.name || key == Columns::label.name || key == Columns::mixer.name;
    // A cell counts once for all of its tokens.
    if (in_line || key == Columns::t.name || !cells || column >= *cells) continue;
    // And once for all of its slices.
    if (is_slice && is_part_of_slice(key)) continue;
    name += fmt::format(" {}={}", key, readable_text(row[column]));
  }
  return name;
}

/// n_pairs of the row, or of every slice of which it is the mean.
std::vector<double> pairs_shown(const Table& table, const Row& row) {
  if (const auto own = number(at(table, row, Columns::n_pairs))) return {*own};
  std::vector<double> pairs;
  if (at(table, row, Columns::slice) == Value()) return pairs;
  for (const Row& other : table.rows) {
    if (compare(at(table, other, Columns::config), at(table, row, Columns::config)) != 0) continue;
    if (const auto n = number(at(table, other, Columns::n_pairs))) pairs.push_back(*n);
  }
  return pairs;
}

/// Skipped cells do not count.
bool names_a_loss(const std::string& not_ok) {
  return not_ok.find(": diverged") != std::string::npos ||
         not_ok.find(": failed") != std::string::npos;
}

}  // namespace

SelectedRows select_rows(std::span<const Table> tables, const Selection& selection,
                         const std::string& place) {
  SelectedRows selected{.table = find_table(tables, selection.table)};
  if (selected.table == nullptr) return selected;
  for (const Row& row : selected.table->rows) selected.rows.push_back(&row);
  for (const auto& [name, wanted] : selection.where.columns) {
    const std::size_t column = selected.table->column(name, place);
    std::erase_if(selected.rows, [&, &values = wanted](const Row* row) {
      return std::none_of(values.begin(), values.end(),
                          [&](const Value& value) { return compare(value, (*row)[column]) == 0; });
    });
  }
  return selected;
}

std::vector<std::size_t> differing_columns(const SelectedRows& selected) {
  std::vector<std::size_t> differing;
  for (std::size_t column = 0; column < selected.table->columns.size(); ++column) {
    const bool same = std::all_of(selected.rows.begin(), selected.rows.end(), [&](const Row* row) {
      return compare((*row)[column], (*selected.rows.front())[column]) == 0;
    });
    if (!same) differing.push_back(column);
  }
  return differing;
}

std::set<std::string> lost_cells(const SelectedRows& selected) {
  std::set<std::string> lost;
  const std::vector<std::size_t> differing = differing_columns(selected);
  for (const Row* row : selected.rows) {
    const std::string not_ok = readable_text(at(*selected.table, *row, Columns::not_ok));
    if (!names_a_loss(not_ok)) continue;
    lost.insert(fmt::format("{} ({})", row_name(*selected.table, *row, differing), not_ok));
  }
  return lost;
}

std::set<std::string> lost_cells(std::span<const Table> tables) {
  std::set<std::string> lost;
  for (const Table& table : tables) {
    if (!table.find_column(Columns::not_ok)) continue;
    lost.merge(lost_cells(select_rows(tables, {.table = table.name}, "")));
  }
  return lost;
}

std::vector<std::string> unlearned_groups(const SelectedRows& selected) {
  std::vector<std::string> groups;
  for (const Row* row : selected.rows) {
    const auto loss = number(at(*selected.table, *row, Columns::loss_median));
    const std::vector<double> pairs = pairs_shown(*selected.table, *row);
    if (!loss || pairs.empty()) continue;
    double guessing = 0.0;
    for (const double n : pairs) guessing += std::log(n) / static_cast<double>(pairs.size());
    const double bound = guessing + kNatsAboveGuessing;
    if (*loss <= bound) continue;
    const std::string n = pairs.size() == 1 ? fmt::format("{}", pairs[0]) : "n_pairs of each slice";
    groups.push_back(fmt::format("{} ({}, median loss {:.2f}, ln {} + {} = {:.2f})",
                                 readable_text(at(*selected.table, *row, Columns::line)),
                                 pairs.size() == 1 ? "n_pairs " + n : "mean of slices", *loss, n,
                                 kNatsAboveGuessing, bound));
  }
  return groups;
}

}  // namespace vla_bench
