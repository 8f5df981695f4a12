// Rows with named columns, in base units; printers format. One schema per table of the program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace vla_bench {

/// An empty value prints as nothing in CSV and as null in JSON.
using Value = std::variant<std::monostate, std::string, std::int64_t, double>;

struct Schema {
  std::string_view name;                  // file stem: "accuracy"
  std::vector<std::string_view> columns;  // in file order
};

// The tables of the program, columns exactly as documented in README.
const Schema& accuracy_schema();
const Schema& recall_schema();
const Schema& state_norm_schema();
const Schema& jacobian_schema();
const Schema& latency_schema();
const Schema& history_schema();  // step,loss,accuracy,learning_rate,gradient_norm
const Schema* find_schema(std::string_view name);

struct Table {
  std::string name;
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;

  Table() = default;
  explicit Table(const Schema& schema);
  /// Throws std::logic_error when the width is wrong: a programming error.
  void add(std::vector<Value> row);
  std::size_t column(std::string_view name) const;  // throws BadInput naming table and column
};

/// What an unquoted field of CSV holds: a number where it reads like one, nothing where it is empty.
Value field_value(std::string_view text);
/// RFC 4180 CSV with lines that end in \n; doubles in shortest round-trip form. Strings that read
/// like numbers are quoted and come back as strings.
std::string to_csv(const Table& table);
/// A value as people read it: doubles to 4 significant digits, nothing for an empty one.
std::string readable_text(const Value& value);
/// Markdown for people: doubles to 4 significant digits, columns aligned.
std::string to_markdown(const Table& table);
/// Array of objects; empty values are null, values that are not finite the strings of number_text.
std::string to_json(const Table& table);

/// Numbers come back as int64 (whole ones) or double, empty fields as empty values, the rest as
/// strings. Throws BadInput naming the file, line and column on ragged rows, bad quoting or other
/// columns than the schema's.
Table read_csv(const std::filesystem::path& path, const Schema& schema);

}  // namespace vla_bench
