#include "report/record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "config/identity.h"
#include "config/read.h"
#include "config/resolved.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"

namespace vla_bench {
namespace {

constexpr std::string_view kChecksum = "{\"checksum\":\"";
constexpr std::size_t kDigits = 16;
constexpr int kVersion = 1;
// Only the curve is named so: a quote inside a text of the record has a backslash before it.
constexpr std::string_view kHistory = ",\"history\":";
constexpr auto kReplace = Json::error_handler_t::replace;  // a reason may quote any bytes

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, kReplace); }

struct ValuePrinter {
  std::string& out;

  void operator()(std::monostate) const { out += "null"; }
  void operator()(const std::string& text) const { out += quoted(text); }
  void operator()(std::int64_t value) const { out += std::to_string(value); }
  void operator()(double value) const {
    const std::string text = number_text(value);
    if (!std::isfinite(value)) {
      out.append("{\"number\":\"").append(text).append("\"}");
    } else {
      out.append(text == "-0" ? "-0.0" : text);  // a reader would take -0 for an integer
    }
  }
};

void append_table(std::string& out, const Table& table) {
  out += "{\"columns\":[";
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (i > 0) out += ',';
    out += quoted(table.columns[i]);
  }
  out += "],\"rows\":[";
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    out += i > 0 ? ",[" : "[";
    for (std::size_t j = 0; j < table.rows[i].size(); ++j) {
      if (j > 0) out += ',';
      std::visit(ValuePrinter{out}, table.rows[i][j]);
    }
    out += ']';
  }
  out += "]}";
}

[[noreturn]] void fail(const std::string& place, std::string_view message) {
  throw BadInput(fmt::format("[{}] record: {}", place, message));
}

const Json& member(const Json& object, const char* key, const std::string& place) {
  const auto found = object.find(key);
  if (found == object.end()) fail(place, fmt::format("expected a member \"{}\"", key));
  return *found;
}

template <class T>
T member_as(const Json& object, const char* key, const std::string& place) {
  const Json& value = member(object, key, place);
  const bool fits = std::is_same_v<T, std::string> ? value.is_string() : value.is_number();
  if (!fits) fail(place, fmt::format("\"{}\": got {}", key, excerpt(value)));
  return value.get<T>();
}

Value read_one(const Json& json, const std::string& place) {
  constexpr std::uint64_t kMaxInteger = std::numeric_limits<std::int64_t>::max();
  if (json.is_null()) return {};
  if (json.is_string()) return json.get<std::string>();
  // A real number that happens to be whole is written without a point.
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > kMaxInteger) {
    return json.get<double>();
  }
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_object() && json.size() == 1) {
    const auto text = member_as<std::string>(json, "number", place);
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (text == "inf") return kInfinity;
    if (text == "-inf") return -kInfinity;
  }
  fail(place, fmt::format("expected a value of a table, got {}", excerpt(json)));
}

/// The table as `schema` has it: columns that an earlier version did not write are empty.
Table read_table(const Json& json, const Schema& schema, const std::string& place) {
  const Json& columns = member(json, "columns", place);
  const Json& rows = member(json, "rows", place);
  if (!columns.is_array() || !rows.is_array()) fail(place, "expected lists of columns and rows");
  std::vector<std::size_t> column_of;
  for (const Json& column : columns) {
    const auto named = [&](std::string_view name) {
      return column.is_string() && column.get_ref<const std::string&>() == name;
    };
    const auto found = std::find_if(schema.columns.begin(), schema.columns.end(), named);
    if (found == schema.columns.end()) {
      fail(place, fmt::format("table {} has no column {}", schema.name, excerpt(column)));
    }
    column_of.push_back(static_cast<std::size_t>(found - schema.columns.begin()));
  }
  Table table(schema);
  for (const Json& row : rows) {
    if (!row.is_array() || row.size() != column_of.size()) {
      fail(place, fmt::format("table {}: expected {} values a row", schema.name, column_of.size()));
    }
    std::vector<Value> values(schema.columns.size());
    for (std::size_t i = 0; i < row.size(); ++i) values[column_of[i]] = read_one(row[i], place);
    table.add(std::move(values));
  }
  return table;
}

Provenance read_provenance(const Json& json, const std::string& place) {
  if (!json.is_object()) fail(place, "expected provenance to be an object");
  Provenance::Facts facts;
  for (const auto& [key, value] : json.items()) {
    facts.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return Provenance(std::move(facts));
}

std::string provenances_json(const std::vector<Provenance>& all) {
  std::vector<std::string> objects;
  for (const Provenance& one : all) objects.push_back(one.to_json());
  return fmt::format("[{}]", fmt::join(objects, ","));
}

/// The body without its curve, as a JSON object of its own.
std::string without_history(std::string_view body) {
  const std::size_t at = body.rfind(kHistory);
  if (at == std::string_view::npos) return std::string(body);
  return std::string(body.substr(0, at)) + "}";
}

Json parse_body(std::string_view body, const std::string& place) {
  return parse_long_json(body, fmt::format("[{}] record", place));
}

std::string read_status(const Json& body, const std::string& place) {
  auto status = member_as<std::string>(body, "status", place);
  for (const std::string_view known : {"ok", "skipped", "diverged", "failed"}) {
    if (status == known) return status;
  }
  fail(place, fmt::format("\"status\": expected ok, skipped, diverged or failed, got {}",
                          excerpt(Json(status))));
}

/// Takes the text up to the next quote behind `prefix` off `rest`.
std::string take_text(std::string_view& rest, std::string_view prefix, const std::string& place) {
  const bool fits = rest.starts_with(prefix);
  const std::size_t end = fits ? rest.find('"', prefix.size()) : std::string_view::npos;
  if (end == std::string_view::npos) fail(place, fmt::format("expected {}...", prefix));
  const std::string text(rest.substr(prefix.size(), end - prefix.size()));
  rest.remove_prefix(end + 1);
  return text;
}

}  // namespace

std::string_view Provenance::fact(std::string_view name) const {
  for (const auto& [key, value] : facts()) {
    if (key == name) return value;
  }
  return {};
}

const Provenance::Facts& Provenance::facts() const {
  static const Facts none;
  return facts_ == nullptr ? none : *facts_;
}

std::string Provenance::to_json() const {
  Json object = Json::object();
  for (const auto& [key, value] : facts()) object[key] = value;
  return object.dump(-1, ' ', false, kReplace);
}

const Table* CellRecord::table(std::string_view name) const {
  const auto found = std::find_if(tables.begin(), tables.end(),
                                  [&](const Table& table) { return table.name == name; });
  return found == tables.end() ? nullptr : &*found;
}

std::string seal_line(std::string_view body) {
  // The first member follows the checksum; an empty object has none.
  const std::string rest = fmt::format("\"{}{}", body.size() > 2 ? "," : "", body.substr(1));
  return fmt::format("{}{}{}", kChecksum, hash_hex(rest), rest);
}

std::string_view open_line(std::string_view line, const std::string& place) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  const std::size_t start = kChecksum.size() + kDigits;
  if (!line.starts_with(kChecksum) || line.size() < start + 3 || !line.ends_with('}')) {
    fail(place, "expected a whole sealed line, got a part of one");
  }
  const std::string_view rest = line.substr(start);
  if (line.substr(kChecksum.size(), kDigits) != hash_hex(rest)) {
    fail(place, "its checksum is another: cut or edited");
  }
  return line.substr(start + 2);
}

std::string seal(const CellRecord& record) {
  std::string body = fmt::format("{{\"record\":{},\"hash\":\"{}\",\"status\":\"{}\"", kVersion,
                                 record.hash, record.outcome.status);
  if (record.outcome.seconds) {
    body += ",\"seconds\":";
    ValuePrinter{body}(*record.outcome.seconds);
  }
  body += fmt::format(
      ",\"reason\":{},\"config\":{},\"provenance\":{}", quoted(record.outcome.reason),
      resolved_json(record.config).dump(-1, ' ', false, kReplace), record.provenance.to_json());
  if (!record.others.empty()) body += ",\"others\":" + provenances_json(record.others);
  body += ",\"tables\":{";
  for (std::size_t i = 0; i < record.tables.size(); ++i) {
    body += fmt::format("{}\"{}\":", i > 0 ? "," : "", record.tables[i].name);
    append_table(body, record.tables[i]);
  }
  body += '}';
  if (!record.history.rows.empty()) {
    body += kHistory;
    append_table(body, record.history);
  }
  body += '}';
  return seal_line(body);
}

CellRecord read_record(std::string_view line, const std::string& place, ReadHistory history) {
  // Without its brace: what open_line leaves begins behind the checksum's comma.
  const std::string_view rest = open_line(line, place);
  const bool curve = history == ReadHistory::yes;
  const Json body = parse_body("{" + (curve ? std::string(rest) : without_history(rest)), place);
  if (member(body, "record", place) != kVersion) {
    fail(place, fmt::format("of another version: {}", excerpt(member(body, "record", place))));
  }
  CellRecord record;
  record.place = place;
  record.config = read_resolved(member(body, "config", place), Place{place, "/config"});
  if (record.config.mixers.size() != 1 || record.config.seeds.size() != 1 ||
      !record.config.sweep.empty() || record.config.device == DeviceRequest::automatic) {
    fail(place, "its config is not that of one cell");
  }
  record.hash = member_as<std::string>(body, "hash", place);
  if (record.hash != cell_hash(record.config)) fail(place, "its hash is not that of its config");
  record.outcome.status = read_status(body, place);
  record.outcome.reason = member_as<std::string>(body, "reason", place);
  if (body.contains("seconds")) record.outcome.seconds = member_as<double>(body, "seconds", place);
  record.provenance = read_provenance(member(body, "provenance", place), place);
  if (const auto others = body.find("others"); others != body.end()) {
    for (const Json& other : *others) record.others.push_back(read_provenance(other, place));
  }
  for (const auto& [name, table] : member(body, "tables", place).items()) {
    const Schema* schema = find_schema(name);
    if (schema == nullptr) fail(place, fmt::format("no such table: {}", name));
    record.tables.push_back(read_table(table, *schema, place));
  }
  record.has_history = rest.rfind(kHistory) != std::string_view::npos;
  if (curve && record.has_history) {
    record.history = read_table(member(body, "history", place), history_schema(), place);
  }
  return record;
}

Table read_history(std::string_view line, const std::string& place) {
  const std::string_view rest = open_line(line, place);
  const std::size_t at = rest.rfind(kHistory);
  if (at == std::string_view::npos) return Table(history_schema());
  // Up to the brace that closes the record.
  const std::string_view curve =
      rest.substr(at + kHistory.size(), rest.size() - at - kHistory.size() - 1);
  return read_table(parse_body(curve, place), history_schema(), place);
}

RecordHead read_head(std::string_view line, const std::string& place) {
  std::string_view rest = open_line(line, place);
  const std::string version = fmt::format("\"record\":{},", kVersion);
  if (!rest.starts_with(version)) fail(place, "of another version");
  rest.remove_prefix(version.size());
  RecordHead head;
  head.hash = take_text(rest, "\"hash\":\"", place);
  head.outcome.status = take_text(rest, ",\"status\":\"", place);
  constexpr std::string_view kSeconds = ",\"seconds\":";
  if (rest.starts_with(kSeconds)) {
    double seconds = 0.0;
    std::from_chars(rest.data() + kSeconds.size(), rest.data() + rest.size(), seconds);
    head.outcome.seconds = seconds;
  }
  return head;
}

std::string comparable_rows(const CellRecord& record) {
  std::string text;
  for (Table table : record.tables) {
    for (const std::string_view name : {"label", "train_seconds"}) {
      const auto found = std::find(table.columns.begin(), table.columns.end(), name);
      if (found == table.columns.end()) continue;
      for (auto& row : table.rows)
        row[static_cast<std::size_t>(found - table.columns.begin())] = {};
    }
    append_table(text, table);
  }
  return text;
}

}  // namespace vla_bench
