#include "report/table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

#include "core/error.h"
#include "experiments/list.h"

namespace vla_bench {

const Schema& history_schema() {
  static const Schema schema{"history",
                             {Columns::step, Columns::loss, Columns::accuracy,
                              Columns::learning_rate, Columns::gradient_norm}};
  return schema;
}

const Schema* find_schema(std::string_view name) {
  const Schema* found = name == history_schema().name ? &history_schema() : nullptr;
  Experiments::for_each([&]<class E>() {
    if (E::table().name == name) found = &E::table();
  });
  return found;
}

Table::Table(const Schema& schema)
    : name(schema.name), columns(schema.columns.begin(), schema.columns.end()) {}

void Table::add(std::vector<Value> row) {
  if (row.size() != columns.size()) {
    throw std::logic_error(fmt::format("table {}: a row of {} values for {} columns", name,
                                       row.size(), columns.size()));
  }
  rows.push_back(std::move(row));
}

std::optional<std::size_t> Table::find_column(std::string_view column_name) const {
  const auto found = std::find(columns.begin(), columns.end(), column_name);
  if (found == columns.end()) return std::nullopt;
  return static_cast<std::size_t>(found - columns.begin());
}

std::size_t Table::column(std::string_view column_name, std::string_view place) const {
  if (const auto found = find_column(column_name)) return *found;
  throw BadInput(fmt::format("{}: table {} has no column \"{}\"; it has {}", place, name,
                             column_name, fmt::join(columns, ", ")));
}

}  // namespace vla_bench
