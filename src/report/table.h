// Tables: rows with named columns, in base units; printers format them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "experiments/columns.h"

namespace vla_bench {

/// An empty value prints as nothing in CSV and as null in JSON.
using Value = std::variant<std::monostate, std::string, std::int64_t, double>;

/// The schema of a training's learning curve.
const Schema& history_schema();
/// The table of an experiment, or the learning curve; null when there is no such table.
const Schema* find_schema(std::string_view name);

struct Table {
  std::string name;
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;

  Table() = default;
  explicit Table(const Schema& schema);
  /// Throws std::logic_error when the width is wrong: a programming error.
  void add(std::vector<Value> row);
  std::optional<std::size_t> find_column(std::string_view name) const;
  /// Throws BadInput "PLACE: ..." naming table, column and the columns there are.
  std::size_t column(std::string_view name, std::string_view place = "[table]") const;
};

/// The value of an unquoted field of CSV: a number if it looks like one, empty if it is empty.
Value field_value(std::string_view text);
/// RFC 4180 CSV with lines that end in \n; doubles in shortest round-trip form. Strings that look
/// like numbers are quoted, so that they are read as strings.
std::string to_csv(const Table& table);
/// A value for people: doubles to 4 significant digits, "" for an empty one.
std::string readable_text(const Value& value);
/// Markdown for people: doubles to 4 significant digits, columns aligned.
std::string to_markdown(const Table& table);
/// Array of objects; empty values are null, values that are not finite the strings of number_text.
std::string to_json(const Table& table);

/// Reads CSV: numbers become int64 (integers) or double, empty fields empty values, the rest
/// strings. Throws BadInput naming the file, line and column on ragged rows, bad quoting or columns
/// other than the schema's.
Table read_csv(const std::filesystem::path& path, const Schema& schema);

}  // namespace vla_bench
