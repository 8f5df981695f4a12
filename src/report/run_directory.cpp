#include "report/run_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/parallel.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

using Json = nlohmann::ordered_json;

constexpr const char* kConfig = "config.json";
constexpr const char* kProvenance = "provenance.json";
constexpr const char* kHistory = "history.csv";
constexpr const char* kStatus = "status.json";

const std::vector<const Schema*>& published_schemas() {
  static const std::vector<const Schema*> schemas = {&accuracy_schema(), &recall_schema(),
                                                     &state_norm_schema(), &jacobian_schema(),
                                                     &latency_schema()};
  return schemas;
}

/// "ok" where the text says nothing else.
CellOutcome parse_outcome(const std::string& json) {
  const Json document = Json::parse(json, nullptr, false);
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
  return fs::is_regular_file(folder / kProvenance, ignored) ? read_file(folder / kProvenance) : "";
}

void RunDirectory::write_history(const Table& history) const {
  write_file_atomically(this->history(), to_csv(history));
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
  return parse_outcome(read_file(folder / kStatus));
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

namespace {

std::string csv_name(const Schema& schema) { return fmt::format("{}.csv", schema.name); }

/// Adds `folder` and all below it. The kind of an entry comes with its name: no file is asked for
/// it.
void list_below(const fs::path& folder, std::vector<ListedFolder>& found) {
  const std::size_t own = found.size();
  found.push_back({.path = folder});
  std::vector<fs::path> below;
  std::error_code code;
  fs::directory_iterator entry(folder, code);
  while (!code && entry != fs::directory_iterator()) {
    std::error_code vanished;
    if (entry->is_directory(vanished) && !entry->is_symlink(vanished)) {
      below.push_back(entry->path());
    } else if (entry->is_regular_file(vanished)) {
      found[own].files.push_back(entry->path().filename().string());
    }
    entry.increment(code);
  }
  if (code) {
    throw BadInput(fmt::format("[report] {}: cannot list: {}", folder.string(), code.message()));
  }
  for (const fs::path& one : below) list_below(one, found);
}

}  // namespace

bool ListedFolder::has(std::string_view name) const {
  return std::find(files.begin(), files.end(), name) != files.end();
}

std::vector<ListedFolder> list_folders(const fs::path& root) {
  std::error_code code;
  const fs::file_status status = fs::status(root, code);
  if (!fs::is_directory(status)) {
    throw BadInput(fmt::format("[report] {}: {}", root.string(),
                               fs::exists(status) ? "not a folder" : "no such folder"));
  }
  std::vector<ListedFolder> found;
  list_below(root, found);
  // In path order, by component. Comparing paths takes them apart each time.
  std::sort(found.begin(), found.end(), [](const ListedFolder& a, const ListedFolder& b) {
    return std::lexicographical_compare(
        a.path.native().begin(), a.path.native().end(), b.path.native().begin(),
        b.path.native().end(), [](char x, char y) {
          // A separator ends a component: it stands before every other character.
          return (x == '/' ? 0 : static_cast<unsigned char>(x) + 1) <
                 (y == '/' ? 0 : static_cast<unsigned char>(y) + 1);
        });
  });
  return found;
}

std::vector<FinishedCell> find_finished_cells(const fs::path& root) {
  return read_finished_cells(list_folders(root));
}

std::vector<FinishedCell> read_finished_cells(const std::vector<ListedFolder>& folders) {
  std::vector<std::pair<const ListedFolder*, const Schema*>> tables;
  for (const ListedFolder& folder : folders) {
    if (!folder.has(kConfig)) continue;
    for (const Schema* schema : published_schemas()) {
      if (folder.has(csv_name(*schema))) tables.emplace_back(&folder, schema);
    }
  }
  std::vector<FinishedCell> cells(tables.size());
  parallel_items(kFileReaders, static_cast<Index>(tables.size()), [&](Index item) {
    const auto& [folder, schema] = tables[static_cast<std::size_t>(item)];
    cells[static_cast<std::size_t>(item)] = read_cell(*folder, csv_name(*schema), *schema);
  });
  return cells;
}

FinishedCell read_cell(const ListedFolder& folder, const std::string& table, const Schema& schema) {
  const RunDirectory directory{folder.path};
  return {.directory = directory,
          .config_json = read_file(directory.config()),
          .table = read_csv(folder.path / table, schema),
          .outcome =
              folder.has(kStatus) ? parse_outcome(read_file(folder.path / kStatus)) : CellOutcome(),
          .provenance_json =
              folder.has(kProvenance) ? read_file(folder.path / kProvenance) : std::string(),
          .has_history = folder.has(kHistory)};
}

}  // namespace vla_bench
