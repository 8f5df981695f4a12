#include "report/record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <type_traits>
#include <unordered_map>

#include "config/dump.h"
#include "config/identity.h"
#include "config/read.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "experiments/list.h"
#include "report/stored_table.h"

namespace vla_bench {
namespace {

constexpr std::string_view kChecksum = "{\"checksum\":\"";
constexpr std::size_t kChecksumDigits = 16;
constexpr int kVersion = 1;
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
      out.append(text == "-0" ? "-0.0" : text);  // -0 would be read as an integer
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
  // A real number with an integer value is written without a point.
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

/// Reads the table as stored.
Table read_table(const Json& json, std::string_view name, const std::string& place) {
  const Json& columns = member(json, "columns", place);
  const Json& rows = member(json, "rows", place);
  if (!columns.is_array() || !rows.is_array()) fail(place, "expected lists of columns and rows");
  Table table;
  table.name = name;
  for (const Json& column : columns) {
    if (!column.is_string()) fail(place, fmt::format("column {} is no text", excerpt(column)));
    table.columns.push_back(column.get<std::string>());
  }
  table.rows.reserve(rows.size());
  for (const Json& row : rows) {
    if (!row.is_array() || row.size() != table.columns.size()) {
      fail(place, fmt::format("table {}: expected {} values a row", name, table.columns.size()));
    }
    std::vector<Value> values;
    values.reserve(row.size());
    for (const Json& value : row) values.push_back(read_one(value, place));
    table.rows.push_back(std::move(values));
  }
  return table;
}

Table read_cell_table(const Json& json, const std::string& name, const RunConfig& config,
                      const std::string& place) {
  const Schema* schema = find_schema(name);
  if (schema == nullptr) fail(place, fmt::format("no such table: {}", name));
  if (const Schema& own = table_of(config); own.name == name) schema = &own;
  const Table stored = read_table(json, name, place);
  try {
    return as_today(stored, *schema, config);
  } catch (const BadInput& error) {
    fail(place, error.what());
  }
}

Table read_curve(const Json& json, const std::string& place) {
  Table curve = read_table(json, history_schema().name, place);
  if (curve.columns != Table(history_schema()).columns) {
    fail(place, "the learning curve has other columns than expected");
  }
  return curve;
}

/// Takes a number and the character `end` behind it from the front of `text`; false when they are
/// not there.
template <class T>
bool take_number(std::string_view& text, char end, T& number) {
  const char* const last = text.data() + text.size();
  const auto [behind, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || behind == last || *behind != end) return false;
  text.remove_prefix(static_cast<std::size_t>(behind - text.data()) + 1);
  return true;
}

/// The columns step and loss of a curve as append_table writes it, without a JSON document in
/// between: those of 10^5 cells take as long as all else that is read. Empty where a loss is not
/// finite or the text is another one; read_curve decides on those.
std::optional<Table> scan_losses(std::string_view text) {
  static const std::string start = [] {
    std::string empty;
    append_table(empty, Table(history_schema()));
    return empty.substr(0, empty.size() - std::string_view("]}").size());
  }();
  if (!text.starts_with(start)) return std::nullopt;
  text.remove_prefix(start.size());
  Table losses;
  losses.columns = {std::string(Columns::step), std::string(Columns::loss)};
  while (text.starts_with('[') || text.starts_with(",[")) {
    text.remove_prefix(text.find('[') + 1);
    std::int64_t step = 0;
    double loss = 0.0;
    if (!take_number(text, ',', step) || !take_number(text, ',', loss)) return std::nullopt;
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    text.remove_prefix(end + 1);
    losses.rows.push_back({step, loss});
  }
  if (text != "]}") return std::nullopt;
  return losses;
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

/// Length of the version at the start of a body. A future version may have any members.
std::size_t check_version(std::string_view rest, const std::string& place) {
  const std::string version = fmt::format("\"record\":{},", kVersion);
  if (!rest.starts_with(version)) fail(place, "of another version");
  return version.size();
}

/// The texts of a body's members, in the order in which they are written.
struct Parts {
  std::string_view head;        // "record":1, ... ,"reason":"..."
  std::string_view config;      // an object
  std::string_view provenance;  // an object
  std::string_view others;      // a list; may be empty
  std::string_view tables;      // an object
  std::string_view history;     // an object; empty without one
};

/// Returns the text before `mark` and removes both from `rest`. A mark has quotes, which are
/// escaped in the texts of a record, so that no text contains it.
std::string_view take_until(std::string_view& rest, std::string_view mark,
                            const std::string& place) {
  const std::size_t at = rest.find(mark);
  if (at == std::string_view::npos) {
    fail(place, fmt::format("expected a member {}", mark.substr(1, mark.size() - 2)));
  }
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at + mark.size());
  return part;
}

/// `rest` is a body without its first brace.
Parts split(std::string_view rest, const std::string& place) {
  rest.remove_suffix(1);  // the last brace
  Parts parts;
  parts.head = take_until(rest, ",\"config\":", place);
  parts.config = take_until(rest, ",\"provenance\":", place);
  parts.provenance = take_until(rest, ",\"tables\":", place);
  constexpr std::string_view kOthers = ",\"others\":";
  if (const std::size_t at = parts.provenance.find(kOthers); at != std::string_view::npos) {
    parts.others = parts.provenance.substr(at + kOthers.size());
    parts.provenance = parts.provenance.substr(0, at);
  }
  const std::size_t curve = rest.find(kHistory);
  parts.tables = rest.substr(0, curve);
  if (curve != std::string_view::npos) parts.history = rest.substr(curve + kHistory.size());
  return parts;
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

/// Removes `prefix` and the text up to the next quote from `rest`; returns the text.
std::string take_text(std::string_view& rest, std::string_view prefix, const std::string& place) {
  const bool fits = rest.starts_with(prefix);
  const std::size_t end = fits ? rest.find('"', prefix.size()) : std::string_view::npos;
  if (end == std::string_view::npos) fail(place, fmt::format("expected {}...", prefix));
  const std::string text(rest.substr(prefix.size(), end - prefix.size()));
  rest.remove_prefix(end + 1);
  return text;
}

RunConfig read_config_of_cell(std::string_view text, const std::string& place) {
  RunConfig config = read_resolved(parse_body(text, place), Place{place, "/config"});
  if (config.mixers.size() != 1 || config.seeds.size() != 1 || !config.sweep.empty() ||
      config.device == DeviceRequest::automatic) {
    fail(place, "its config is not that of one cell");
  }
  return config;
}

/// The text of a config around the number that is its only seed.
struct SeedText {
  std::string around;
  Index seed = 0;
};
std::optional<SeedText> find_seed(std::string_view config) {
  constexpr std::string_view kSeeds = ",\"seeds\":[";
  const std::size_t at = config.find(kSeeds);
  if (at == std::string_view::npos || config.rfind(kSeeds) != at) return std::nullopt;
  const char* const begin = config.data() + at + kSeeds.size();
  SeedText text;
  const char* const limit = config.data() + config.size();
  const auto [end, error] = std::from_chars(begin, limit, text.seed);
  if (error != std::errc() || text.seed < 0 || end == limit || *end != ']') return std::nullopt;
  text.around = std::string(config.substr(0, at + kSeeds.size()));
  text.around += std::string_view(end, limit);
  return text;
}

}  // namespace

/// The parts of a record that are the same in a group.
struct GroupConfig {
  RunConfig config;
  std::string identity;  // group_text
};

struct SharedParts::Known {
  GroupConfig config(std::string_view text, const std::string& place) {
    const std::optional<SeedText> seed = find_seed(text);
    if (seed) {
      const std::lock_guard lock(mutex_);
      if (const auto found = configs_.find(seed->around); found != configs_.end()) {
        GroupConfig group = found->second;
        group.config.seeds = {seed->seed};
        return group;
      }
    }
    GroupConfig group{.config = read_config_of_cell(text, place), .identity = {}};
    group.identity = group_text(group.config);
    const std::lock_guard lock(mutex_);
    if (seed && configs_.size() < kMostKnown) configs_.emplace(seed->around, group);
    return group;
  }

  Provenance provenance(std::string_view text, const std::string& place) {
    const std::lock_guard lock(mutex_);
    const auto found = provenances_.find(std::string(text));
    if (found != provenances_.end()) return found->second;
    Provenance read = read_provenance(parse_body(text, place), place);
    if (provenances_.size() < kMostKnown) provenances_.emplace(text, read);
    return read;
  }

 private:
  static constexpr std::size_t kMostKnown = 4096;  // some 10 MB

  std::mutex mutex_;
  std::unordered_map<std::string, GroupConfig> configs_;  // by SeedText::around
  std::unordered_map<std::string, Provenance> provenances_;
};

SharedParts::SharedParts() : known_(std::make_unique<Known>()) {}
SharedParts::~SharedParts() = default;

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
  const std::size_t start = kChecksum.size() + kChecksumDigits;
  if (!line.starts_with(kChecksum) || line.size() < start + 3 || !line.ends_with('}')) {
    fail(place, "expected a whole sealed line, got a part of one");
  }
  const std::string_view rest = line.substr(start);
  if (line.substr(kChecksum.size(), kChecksumDigits) != hash_hex(rest)) {
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

CellRecord read_record(std::string_view line, const std::string& place, ReadHistory history,
                       SharedParts* shared) {
  const std::string_view rest = open_line(line, place);
  check_version(rest, place);
  const Parts parts = split(rest, place);
  const Json head = parse_body("{" + std::string(parts.head) + "}", place);
  SharedParts own;
  SharedParts::Known& known = (shared == nullptr ? own : *shared).known();
  CellRecord record;
  record.place = place;
  GroupConfig group = known.config(parts.config, place);
  record.config = std::move(group.config);
  record.group = group_hash_of_text(group.identity);
  record.hash = member_as<std::string>(head, "hash", place);
  if (record.hash != hash_hex(with_seed(group.identity, record.config.seeds.front()))) {
    fail(place, "its hash is not that of its config");
  }
  record.outcome.status = read_status(head, place);
  record.outcome.reason = member_as<std::string>(head, "reason", place);
  if (head.contains("seconds")) record.outcome.seconds = member_as<double>(head, "seconds", place);
  record.provenance = known.provenance(parts.provenance, place);
  if (!parts.others.empty()) {
    for (const Json& other : parse_body(parts.others, place)) {
      record.others.push_back(read_provenance(other, place));
    }
  }
  const Json tables = parse_body(parts.tables, place);
  if (!tables.is_object()) fail(place, "expected tables to be an object");
  for (const auto& [name, table] : tables.items()) {
    record.tables.push_back(read_cell_table(table, name, record.config, place));
  }
  record.has_history = !parts.history.empty();
  if (!record.has_history || history == ReadHistory::no) return record;
  std::optional<Table> losses;
  if (history == ReadHistory::losses) losses = scan_losses(parts.history);
  record.history =
      losses ? std::move(*losses) : read_curve(parse_body(parts.history, place), place);
  return record;
}

Table read_history(std::string_view line, const std::string& place) {
  const Parts parts = split(open_line(line, place), place);
  if (parts.history.empty()) return Table(history_schema());
  return read_curve(parse_body(parts.history, place), place);
}

RecordHead read_head(std::string_view line, const std::string& place) {
  std::string_view rest = open_line(line, place);
  rest.remove_prefix(check_version(rest, place));
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
    for (const std::string_view name : {Columns::label, Columns::train_seconds}) {
      const auto column = table.find_column(name);
      if (!column) continue;
      for (auto& row : table.rows) row[*column] = {};
    }
    append_table(text, table);
  }
  return text;
}

}  // namespace vla_bench
