#include "runs/legacy.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "config/identity.h"
#include "config/json.h"
#include "config/read.h"
#include "core/error.h"
#include "core/files.h"
#include "experiments/list.h"
#include "report/stored_table.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

/// The tables with their columns of that version.
const std::vector<Schema>& legacy_schemas() {
  static const std::vector<Schema> schemas = [] {
    Schema accuracy = Training::table();
    for (const Column& added : {Columns::learning_rate, Columns::queries, Columns::state_bytes,
                                Columns::conv_state_bytes}) {
      std::erase(accuracy.columns, added.name);
    }
    Schema latency = Latency::table();
    std::erase(latency.columns, Columns::relative_error.name);
    const Schema recall{
        Recall::table().name,
        {Columns::label, Columns::mixer, Columns::d_h, Columns::n_pairs, Columns::trials,
         Columns::accuracy, "ci95", Columns::precision, Columns::status, Columns::reason}};
    return std::vector{accuracy, recall, StateNorm::table(), Jacobian::table(), latency};
  }();
  return schemas;
}

const Schema* schema_of(const ListedFolder& folder) {
  for (const Schema& schema : legacy_schemas()) {
    if (folder.has(fmt::format("{}.csv", schema.name))) return &schema;
  }
  return nullptr;
}

Json read_json(const fs::path& path) { return parse_json(read_file(path), path.string()); }

CellOutcome read_outcome(const ListedFolder& folder) {
  CellOutcome outcome;
  if (!folder.has("status.json")) return outcome;  // the first versions wrote none
  const Json json = read_json(folder.path / "status.json");
  outcome.status = json.value("status", "ok");
  outcome.reason = json.value("reason", "");
  if (const auto seconds = json.find("seconds"); seconds != json.end()) {
    outcome.seconds = seconds->get<double>();
  }
  return outcome;
}

Provenance provenance_of(const Json& json) {
  Provenance::Facts facts;
  for (const auto& [key, value] : json.items()) {
    facts.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return Provenance(std::move(facts));
}

}  // namespace

bool is_legacy_cell(const ListedFolder& folder) {
  return folder.has("config.json") && schema_of(folder) != nullptr;
}

std::optional<CellRecord> read_legacy_cell(const ListedFolder& folder) {
  if (!is_legacy_cell(folder)) return std::nullopt;
  const fs::path config_path = folder.path / "config.json";
  const Schema& schema = *schema_of(folder);
  CellRecord record;
  try {
    record.config = parse_config(read_file(config_path), config_path.string());
    record.hash = cell_hash(record.config);
    record.outcome = read_outcome(folder);
    if (folder.has("provenance.json")) {
      record.provenance = provenance_of(read_json(folder.path / "provenance.json"));
    }
    if (folder.has("provenance.others.json")) {
      for (const Json& other : read_json(folder.path / "provenance.others.json")) {
        record.others.push_back(provenance_of(other));
      }
    }
  } catch (const Json::exception& error) {
    throw BadInput(fmt::format("[{}] {}", folder.path.string(), error.what()));
  }
  const fs::path csv = folder.path / fmt::format("{}.csv", schema.name);
  record.tables = {as_today(read_csv(csv, schema), *find_schema(schema.name), record.config)};
  if (folder.has("history.csv")) {
    record.history = read_csv(folder.path / "history.csv", history_schema());
    record.has_history = !record.history.rows.empty();
  }
  record.place = folder.path.string();
  return record;
}

}  // namespace vla_bench
