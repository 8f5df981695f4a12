// CSV by RFC 4180, with lines that end in \n. A string that looks like a number is quoted, so that
// it is read as a string.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "report/table.h"

namespace vla_bench {
namespace {

/// Parses the whole of `text` as a number: int64 when it is an integer that fits, else double.
std::optional<Value> parse_number(std::string_view text) {
  const auto parse = [&]<class T>(T value) -> std::optional<T> {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
    return whole ? std::optional(value) : std::nullopt;
  };
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  // from_chars accepts more spellings of these ("infinity", "nan(...)"), which stay text here.
  if (text != "inf" && text != "-inf" && text.find_first_not_of("0123456789+-.e") < text.size()) {
    return std::nullopt;
  }
  const bool negative_zero = text == "-0";
  if (const auto integer = parse(std::int64_t{}); integer && !negative_zero) return *integer;
  if (const auto number = parse(double{})) return *number;
  return std::nullopt;
}

void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
}

struct CsvPrinter {
  std::string& out;

  void operator()(std::monostate) const {}
  void operator()(const std::string& text) const {
    const bool special = text.find_first_of(",\"\r\n") != std::string::npos;
    if (special || parse_number(text)) {
      append_quoted(out, text);
    } else {
      out += text;
    }
  }
  void operator()(std::int64_t value) const { out += std::to_string(value); }
  void operator()(double value) const { out += number_text(value); }
};

struct Field {
  std::string text;
  bool quoted = false;
};

/// Splits CSV text into records.
class CsvReader {
 public:
  CsvReader(std::string_view text, std::string_view origin) : rest_(text), origin_(origin) {}

  std::size_t line() const { return line_; }  // line of the last record

  /// The next record; empty at the end of the text.
  std::optional<std::vector<Field>> next() {
    if (rest_.empty()) return std::nullopt;
    line_ = next_line_;
    std::vector<Field> record;
    do {
      record.push_back(field(record.size() + 1));
    } while (take(','));
    take('\r');
    if (!take('\n') && !rest_.empty()) {
      throw BadInput(
          fmt::format("[{}] line {}, column {}: expected a comma or the end of the line "
                      "after a quoted field",
                      origin_, next_line_, record.size()));
    }
    ++next_line_;
    return record;
  }

 private:
  bool take(char expected) {
    if (rest_.empty() || rest_.front() != expected) return false;
    rest_.remove_prefix(1);
    return true;
  }

  Field field(std::size_t column) {
    if (take('"')) return {.text = quoted_text(column), .quoted = true};
    const std::string_view text = rest_.substr(0, rest_.find_first_of(",\r\n"));
    if (text.find('"') != std::string_view::npos) {
      throw BadInput(fmt::format("[{}] line {}, column {}: a quote inside an unquoted field",
                                 origin_, next_line_, column));
    }
    rest_.remove_prefix(text.size());
    return {.text = std::string(text)};
  }

  std::string quoted_text(std::size_t column) {
    std::string text;
    while (!rest_.empty()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '\n') ++next_line_;
      if (c != '"') {
        text += c;
      } else if (take('"')) {
        text += '"';
      } else {
        return text;
      }
    }
    throw BadInput(
        fmt::format("[{}] line {}, column {}: a quote is never closed", origin_, line_, column));
  }

  std::string_view rest_;
  std::string_view origin_;
  std::size_t line_ = 0;
  std::size_t next_line_ = 1;
};

}  // namespace

Value field_value(std::string_view text) {
  if (text.empty()) return std::monostate();
  if (const auto number = parse_number(text)) return *number;
  return std::string(text);
}

std::string to_csv(const Table& table) {
  std::string out;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (i > 0) out += ',';
    CsvPrinter{out}(table.columns[i]);
  }
  out += '\n';
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out += ',';
      std::visit(CsvPrinter{out}, row[i]);
    }
    out += '\n';
  }
  return out;
}

Table read_csv(const std::filesystem::path& path, const Schema& schema) {
  const std::string text = read_file(path);
  const std::string origin = path.string();
  CsvReader reader(text, origin);
  Table table(schema);

  const std::optional<std::vector<Field>> header = reader.next();
  for (std::size_t i = 0; i < schema.columns.size(); ++i) {
    const bool present = header && i < header->size();
    if (present && (*header)[i].text == schema.columns[i]) continue;
    throw BadInput(fmt::format("[{}] line 1, column {}: expected \"{}\", got {}", origin, i + 1,
                               schema.columns[i],
                               present ? '"' + (*header)[i].text + '"' : "the end of the line"));
  }
  if (header->size() > schema.columns.size()) {
    throw BadInput(fmt::format("[{}] line 1: expected {} columns, got {}", origin,
                               schema.columns.size(), header->size()));
  }
  while (std::optional<std::vector<Field>> record = reader.next()) {
    if (record->size() != schema.columns.size()) {
      throw BadInput(fmt::format("[{}] line {}: expected {} columns, got {}", origin, reader.line(),
                                 schema.columns.size(), record->size()));
    }
    std::vector<Value> row;
    row.reserve(record->size());
    for (Field& field : *record)
      row.push_back(field.quoted ? Value(std::move(field.text)) : field_value(field.text));
    table.add(std::move(row));
  }
  return table;
}

}  // namespace vla_bench
