#include "report/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

constexpr const char* kProvenance = "provenance.json";
constexpr const char* kStatus = "status.json";

const std::vector<const Schema*>& published_schemas() {
  static const std::vector<const Schema*> schemas = {&accuracy_schema(), &recall_schema(),
                                                     &state_norm_schema(), &jacobian_schema(),
                                                     &latency_schema()};
  return schemas;
}

}  // namespace

bool RunDirectory::finished(std::string_view table_name) const {
  std::error_code ignored;
  return fs::is_regular_file(folder / fmt::format("{}.csv", table_name), ignored);
}

void RunDirectory::write_config(std::string_view json) const {
  remove_leftovers(folder);
  write_file_atomically(config(), json);
}

void RunDirectory::write_provenance(std::string_view json) const {
  write_file_atomically(folder / kProvenance, json);
}

std::string RunDirectory::read_provenance() const {
  std::error_code ignored;
  if (!fs::is_regular_file(folder / kProvenance, ignored)) return {};
  return read_file(folder / kProvenance);
}

void RunDirectory::write_history(const Table& history) const {
  write_file_atomically(folder / "history.csv", to_csv(history));
}

void RunDirectory::write_outcome(const CellOutcome& outcome) const {
  Json document = {{"status", outcome.status}, {"reason", outcome.reason}};
  if (outcome.seconds) document["seconds"] = *outcome.seconds;
  // A reason may quote bytes that are not UTF-8.
  const std::string text = document.dump(2, ' ', false, Json::error_handler_t::replace);
  write_file_atomically(folder / kStatus, text + "\n");
}

CellOutcome RunDirectory::read_outcome() const {
  std::error_code ignored;
  if (!fs::is_regular_file(folder / kStatus, ignored)) return {};
  const Json document = Json::parse(read_file(folder / kStatus), nullptr, false);
  if (!document.is_object()) return {};
  const auto text = [&](const char* key, const std::string& otherwise) {
    const auto found = document.find(key);
    const bool usable = found != document.end() && found->is_string();
    return usable ? found->get<std::string>() : otherwise;
  };
  const auto seconds = document.find("seconds");
  const bool timed = seconds != document.end() && seconds->is_number();
  return {.status = text("status", "ok"),
          .reason = text("reason", ""),
          .seconds = timed ? std::optional(seconds->get<double>()) : std::nullopt};
}

void RunDirectory::publish(const Table& table, const CellOutcome& outcome) const {
  write_file_atomically(folder / (table.name + ".md"), to_markdown(table));
  write_outcome(outcome);
  write_file_atomically(folder / (table.name + ".csv"), to_csv(table));
}

const Schema* finished_schema(const RunDirectory& directory) {
  for (const Schema* schema : published_schemas()) {
    if (directory.finished(schema->name)) return schema;
  }
  return nullptr;
}

std::vector<fs::path> find_folders(const fs::path& root) {
  std::error_code code;
  const fs::file_status status = fs::status(root, code);
  if (!fs::is_directory(status)) {
    throw BadInput(fmt::format("[report] {}: {}", root.string(),
                               fs::exists(status) ? "not a folder" : "no such folder"));
  }
  std::vector<fs::path> found = {root};
  fs::recursive_directory_iterator entry(root, code);
  while (!code && entry != fs::recursive_directory_iterator()) {
    std::error_code vanished;
    if (entry->is_directory(vanished) && !entry->is_symlink(vanished)) {
      found.push_back(entry->path());
    }
    entry.increment(code);
  }
  if (code) {
    throw BadInput(fmt::format("[report] {}: cannot list: {}", root.string(), code.message()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<FinishedCell> find_finished_cells(const fs::path& root) {
  std::vector<FinishedCell> cells;
  for (const fs::path& folder : find_folders(root)) {
    const RunDirectory directory{folder};
    std::error_code ignored;
    if (!fs::is_regular_file(directory.config(), ignored)) continue;
    for (const Schema* schema : published_schemas()) {
      if (!directory.finished(schema->name)) continue;
      cells.push_back({.directory = directory,
                       .config_json = read_file(directory.config()),
                       .table = read_csv(folder / fmt::format("{}.csv", schema->name), *schema),
                       .outcome = directory.read_outcome(),
                       .provenance_json = directory.read_provenance()});
    }
  }
  return cells;
}

}  // namespace vla_bench
