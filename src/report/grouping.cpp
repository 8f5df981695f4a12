#include "report/grouping.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

using Json = nlohmann::json;  // sorted keys: equal settings dump equally

/// Config sections that decide the values of a table. Latency rows name all of theirs, and one line
/// of a latency figure has a config per length.
std::vector<std::string_view> relevant_sections(std::string_view table) {
  if (table == accuracy_schema().name) return {"model", "task", "train", "eval"};
  if (table == recall_schema().name) return {"model", "task", "recall"};
  if (table == latency_schema().name) return {};
  return {"model", "task", "probe"};
}

Value as_value(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_number()) return json.get<double>();
  return std::monostate();
}

/// The member at a JSON pointer, null when it is missing.
Json at(const Json& config, const char* pointer) {
  return config.value(Json::json_pointer(pointer), Json());
}

int kind(const Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return 0;
  return std::holds_alternative<std::string>(value) ? 2 : 1;
}

/// The first mixer of a config: its name or an object with "mixer" and "label".
struct MixerNames {
  Value label, mixer;
};
MixerNames mixer_names(const Json& config) {
  const Json mixer = at(config, "/mixers/0");
  if (!mixer.is_object()) return {.label = as_value(mixer), .mixer = as_value(mixer)};
  MixerNames names{.label = as_value(at(mixer, "/label")), .mixer = as_value(at(mixer, "/mixer"))};
  if (names.label == Value()) names.label = names.mixer;
  return names;
}

/// What the cell ran on, as its provenance names it.
Value processor_of(const FinishedCell& cell, const Json& config) {
  // Cells of a sweep share a few provenances, neighbours mostly the same one.
  thread_local std::string text;
  thread_local Json facts;
  if (text.empty() || text != cell.provenance_json) {
    text = cell.provenance_json;
    facts = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  }
  if (!facts.is_object()) return {};
  const bool on_gpu = as_value(at(config, "/device")) == Value(std::string("cuda"));
  return as_value(at(facts, on_gpu ? "/cuda" : "/processor"));
}

/// What the first row was computed in. A probe that measured nothing belongs to the seeds that did:
/// memories alone are stepped in float64, a model computes in what the config asks for.
Value precision_of(const Table& table, const Json& config) {
  const auto column = std::find(table.columns.begin(), table.columns.end(), "precision");
  if (column == table.columns.end()) return {};
  if (!table.rows.empty()) return table.rows.front()[table.column("precision")];
  if (as_value(at(config, "/probe/source")) == Value(std::string("gaussian"))) {
    return std::string("float64");
  }
  const Value asked = as_value(at(config, "/precision"));
  return asked == Value() ? Value(std::string("float32")) : asked;  // older configs have none
}

/// Larger is graver; 0 when all went well.
int gravity(const CellFacts& cell) {
  const std::string& status = cell.outcome.status;
  if (status == "ok") return 0;
  if (status == "skipped") return 1;
  return status == "diverged" ? 2 : 3;
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
}

}  // namespace

std::optional<double> number(const Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  if (const auto* real = std::get_if<double>(&value)) return *real;
  return std::nullopt;
}

Value value_of(std::optional<double> number) {
  Value value;
  if (number) value = *number;
  return value;
}

int compare(const Value& a, const Value& b) {
  if (kind(a) != kind(b)) return order(kind(a), kind(b));
  if (kind(a) == 0) return 0;
  if (kind(a) == 2) return order(std::get<std::string>(a), std::get<std::string>(b));
  const double x = *number(a);
  const double y = *number(b);
  if (std::isnan(x) || std::isnan(y)) return order(std::isnan(x), std::isnan(y));
  if (x != y) return order(x, y);
  // Integers beyond 2^53 may share a double.
  const auto* i = std::get_if<std::int64_t>(&a);
  const auto* j = std::get_if<std::int64_t>(&b);
  return i && j ? order(*i, *j) : 0;
}

bool RowLess::operator()(const std::vector<Value>& a, const std::vector<Value>& b) const {
  return std::lexicographical_compare_three_way(
             a.begin(), a.end(), b.begin(), b.end(),
             [](const Value& x, const Value& y) { return compare(x, y) <=> 0; }) < 0;
}

CellFacts cell_facts(const FinishedCell& cell) {
  const Json config =
      Json::parse(cell.config_json, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (!config.is_object()) {
    throw BadInput(fmt::format("[{}] expected a JSON object",
                               (cell.directory.folder / "config.json").string()));
  }
  Json settings = Json::object();
  for (const std::string_view section : relevant_sections(cell.table.name)) {
    settings[std::string(section)] = config.value(std::string(section), Json());
  }
  if (Json& train = settings["train"]; train.is_object()) {
    // How often a run writes does not change what it finds.
    train.erase("log_every");
    train.erase("checkpoint_every");
  }
  const std::string text = settings.dump();
  MixerNames names = mixer_names(config);
  return {
      .settings = text,
      .config = hash_hex(text + config.value("mixers", Json()).dump()).substr(0, 8),
      .label = std::move(names.label),
      .mixer = std::move(names.mixer),
      .precision = precision_of(cell.table, config),
      .seed = as_value(at(config, "/seeds/0")),
      .source = as_value(at(config, "/probe/source")),
      .n_heads = as_value(at(config, "/model/n_heads")),
      .d_h = as_value(at(config, "/model/d_h")),
      .threads = as_value(at(config, "/threads")),
      .processor = processor_of(cell, config),
      .outcome = cell.outcome,
  };
}

RowGroups group_rows(const Table& table, std::span<const SourcedRow> rows,
                     const std::vector<std::string_view>& columns,
                     const std::vector<Value CellFacts::*>& facts, bool by_config) {
  RowGroups groups;
  for (const SourcedRow& row : rows) {
    std::vector<Value> key;
    for (const std::string_view column : columns) key.push_back(row.values[table.column(column)]);
    for (const auto fact : facts) key.push_back(row.cell->*fact);
    if (by_config) key.emplace_back(row.cell->config);
    groups[std::move(key)].push_back(row);
  }
  return groups;
}

CellGroups group_cells(const std::deque<CellFacts>& cells, std::span<const SourcedRow> rows,
                       const std::vector<Value CellFacts::*>& facts) {
  const auto key_of = [&](const CellFacts& cell) {
    std::vector<Value> key;
    for (const auto fact : facts) key.push_back(cell.*fact);
    key.emplace_back(cell.config);
    return key;
  };
  CellGroups groups;
  for (const CellFacts& cell : cells) groups[key_of(cell)].cells.push_back(&cell);
  for (const SourcedRow& row : rows) groups[key_of(*row.cell)].rows.push_back(row);
  return groups;
}

void append_outcome(std::vector<Value>& row, std::span<const CellFacts* const> cells) {
  // The same seed may have been run more than once: the best of its ends counts.
  std::map<std::vector<Value>, const CellFacts*, RowLess> seeds;
  for (const CellFacts* cell : cells) {
    const CellFacts*& best = seeds.try_emplace({cell->seed}, cell).first->second;
    const auto rank = [](const CellFacts& one) {
      return std::pair(gravity(one), one.outcome.reason);
    };
    if (rank(*cell) < rank(*best)) best = cell;
  }
  const CellFacts* gravest = nullptr;
  std::size_t count = 0;
  for (const auto& [seed, cell] : seeds) {
    if (gravest == nullptr || gravity(*cell) > gravity(*gravest)) {
      gravest = cell;
      count = 0;
    }
    if (gravity(*cell) == gravity(*gravest)) ++count;
  }
  if (gravest == nullptr || gravity(*gravest) == 0) {
    row.insert(row.end(), {std::string("ok"), Value()});
    return;
  }
  const std::string share =
      count < seeds.size() ? fmt::format("{} of {} seeds: ", count, seeds.size()) : "";
  row.insert(row.end(), {gravest->outcome.status, share + gravest->outcome.reason});
}

void append_statistics(std::vector<Value>& row, const Statistics& statistics) {
  std::optional<double> mean, deviation, interval;
  if (statistics.count >= 1) mean = statistics.mean;
  if (statistics.count >= 2) {
    deviation = statistics.standard_deviation;
    interval = statistics.ci95;
  }
  for (const std::optional<double> number : {mean, deviation, interval}) {
    row.push_back(value_of(number));
  }
}

}  // namespace vla_bench
