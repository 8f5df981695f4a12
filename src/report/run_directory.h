// Where a cell's files lie and when it counts as finished.
//   <root>/<name>/<hash>/config.json, provenance.json, history.csv, checkpoint.safetensors,
//   status.json, <table>.csv and .md
// The table's CSV is written last, by one rename: its presence means the cell is finished.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/table.h"

namespace vla_bench {

/// How a cell ended, as status.json: {"status": ..., "reason": ..., "seconds": ...}. Not every
/// table has columns for it.
struct CellOutcome {
  std::string status = "ok";  // ok, skipped, diverged or failed
  std::string reason{};
  std::optional<double> seconds{};  // what it took from its start; folders of earlier versions have
                                    // none
};

struct RunDirectory {
  std::filesystem::path folder;  // <root>/<name>/<hash>

  bool finished(std::string_view table_name) const;
  /// The cell's first file; what killed processes left is cleared away.
  void write_config(std::string_view json) const;
  void write_provenance(std::string_view json) const;
  void write_history(const Table& history) const;
  void write_outcome(const CellOutcome& outcome) const;
  /// "ok" where there is no readable status.json: folders of earlier versions have none.
  CellOutcome read_outcome() const;
  /// The text of provenance.json, empty where there is none.
  std::string read_provenance() const;
  /// Publishes the cell: <table>.md, status.json, then <table>.csv.
  void publish(const Table& table, const CellOutcome& outcome) const;
  std::filesystem::path config() const { return folder / "config.json"; }
  std::filesystem::path history() const { return folder / "history.csv"; }
  std::filesystem::path checkpoint() const { return folder / "checkpoint.safetensors"; }
};

/// The schema of the table that `directory` holds; null when it is not finished.
const Schema* finished_schema(const RunDirectory& directory);

/// A folder and the names of the files in it.
struct ListedFolder {
  std::filesystem::path path;
  std::vector<std::string> files{};

  bool has(std::string_view name) const;
};
/// Every folder below `root` and `root` itself, in path order. Links to folders are not followed:
/// they could lead in circles, and would count a cell twice. Throws BadInput when there is no such
/// folder.
std::vector<ListedFolder> list_folders(const std::filesystem::path& root);

/// Threads that read small files beside one another: more than a laptop's cores, because on a
/// shared folder each waits for the server.
inline constexpr int kFileReaders = 8;

/// Finished cells below `root`, in path order: every folder that holds config.json and a table.
struct FinishedCell {
  RunDirectory directory;
  std::string config_json;
  Table table;
  CellOutcome outcome{};
  std::string provenance_json{};  // empty where there is none
  bool has_history = false;       // a learning curve lies beside the table
};
std::vector<FinishedCell> find_finished_cells(const std::filesystem::path& root);
std::vector<FinishedCell> read_finished_cells(const std::vector<ListedFolder>& folders);

/// The cell in `folder` with the rows of its file `table`. Throws BadInput when a file cannot be
/// read.
FinishedCell read_cell(const ListedFolder& folder, const std::string& table, const Schema& schema);

}  // namespace vla_bench
