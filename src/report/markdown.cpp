#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/text.h"
#include "report/table.h"

namespace vla_bench {
namespace {

std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|' || c == '\\') escaped += '\\';
    if (c == '\r') continue;
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

bool is_number(const Value& value) {
  return std::holds_alternative<double>(value) || std::holds_alternative<std::int64_t>(value);
}

struct ReadableValue {
  std::string operator()(std::monostate) const { return ""; }
  std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
  std::string operator()(double value) const {
    if (std::isnan(value)) return "nan";
    // Integers in full: 1048576 rather than 1.049e+06.
    if (value == std::round(value) && std::abs(value) < 1e9) return fmt::format("{:.0f}", value);
    return fmt::format("{:.4g}", value);
  }
  std::string operator()(const std::string& text) const { return text; }
};

}  // namespace

std::string readable_text(const Value& value) { return std::visit(ReadableValue(), value); }

std::string to_markdown(const Table& table) {
  const std::size_t columns = table.columns.size();
  std::vector<std::vector<std::string>> lines;
  lines.emplace_back();
  for (const std::string& column : table.columns) lines[0].push_back(escape(column));
  std::vector<bool> right_aligned(columns, false);
  for (const auto& row : table.rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (std::size_t i = 0; i < columns; ++i) {
      line.push_back(escape(readable_text(row[i])));
      if (is_number(row[i])) right_aligned[i] = true;
    }
  }
  std::vector<std::size_t> widths(columns, 3);  // Markdown requires three dashes
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < columns; ++i)
      widths[i] = std::max(widths[i], count_characters(line[i]));
  }

  std::string out;
  const auto print = [&](const std::vector<std::string>& line) {
    for (std::size_t i = 0; i < columns; ++i) {
      const std::string padding(widths[i] - count_characters(line[i]), ' ');
      out += right_aligned[i] ? "| " + padding + line[i] + " " : "| " + line[i] + padding + " ";
    }
    out += "|\n";
  };
  print(lines[0]);
  for (std::size_t i = 0; i < columns; ++i) {
    out += "| " + std::string(widths[i] - 1, '-') + (right_aligned[i] ? ": " : "- ");
  }
  out += "|\n";
  for (std::size_t i = 1; i < lines.size(); ++i) print(lines[i]);
  return out;
}

}  // namespace vla_bench
