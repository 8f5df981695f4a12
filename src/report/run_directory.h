// Where a cell's files lie and when it counts as finished.
//   <root>/<name>/<hash>/config.json, provenance.json, history.csv, checkpoint.safetensors,
//   <table>.csv and .md
// The table's CSV is written last, by one rename: its presence means the cell is finished.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench {

struct RunDirectory {
  std::filesystem::path folder;  // <root>/<name>/<hash>

  bool finished(std::string_view table_name) const;
  void write_config(std::string_view json) const;
  void write_provenance(std::string_view json) const;
  void write_history(const Table& history) const;
  /// Publishes the cell: <table>.md, then <table>.csv.
  void publish(const Table& table) const;
  std::filesystem::path checkpoint() const { return folder / "checkpoint.safetensors"; }
};

/// Finished cells below `root`, in path order: every folder that holds config.json and a table.
struct FinishedCell {
  RunDirectory directory;
  std::string config_json;
  Table table;
};
std::vector<FinishedCell> find_finished_cells(const std::filesystem::path& root);

}  // namespace vla_bench
