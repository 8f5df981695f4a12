#include "cli/gather.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <utility>

#include "cli/failed_cells.h"
#include "config/read.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench::cli {

std::vector<FinishedCell> collect_cells(const std::vector<std::string>& folders) {
  std::vector<FinishedCell> cells;
  std::set<std::pair<std::filesystem::path, std::string>> seen;  // folders may overlap
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(folder)) {
      throw BadInput(fmt::format("{}: no such folder", folder));
    }
    for (auto* find : {&find_finished_cells, &find_failed_cells}) {
      for (FinishedCell& cell : find(folder)) {
        const auto place = std::filesystem::weakly_canonical(cell.directory.folder);
        if (seen.emplace(place, cell.table.name).second) cells.push_back(std::move(cell));
      }
    }
  }
  if (cells.empty()) {
    throw BadInput(fmt::format("no finished cell in {}", fmt::join(folders, ", ")));
  }
  return cells;
}

Table gather_history(const std::vector<FinishedCell>& cells) {
  Table gathered;
  gathered.name = "history";
  gathered.columns = {"experiment", "label",   "mixer",     "n_pairs",
                      "d_h",        "seq_len", "precision", "seed"};
  const Schema& schema = history_schema();
  gathered.columns.insert(gathered.columns.end(), schema.columns.begin(), schema.columns.end());
  for (const FinishedCell& cell : cells) {
    const std::filesystem::path path = cell.directory.folder / "history.csv";
    if (!std::filesystem::exists(path)) continue;
    const std::string config_path = (cell.directory.folder / "config.json").string();
    const RunConfig config = parse_config(cell.config_json, config_path);
    const MixerConfig& mixer = config.mixers.front();
    const bool has_pairs = config.experiment != ExperimentKind::copy;
    const std::vector<Value> prefix = {std::string(enum_name(config.experiment)),
                                       mixer_label(mixer),
                                       std::string(enum_name(mixer.mixer)),
                                       has_pairs ? Value(config.task.n_pairs) : Value(),
                                       config.model.d_h,
                                       sequence_length(config),
                                       std::string(computed_in(config)),
                                       config.seeds.front()};
    for (const std::vector<Value>& row : read_csv(path, schema).rows) {
      std::vector<Value> extended = prefix;
      extended.insert(extended.end(), row.begin(), row.end());
      gathered.add(std::move(extended));
    }
  }
  return gathered;
}

std::string gather_provenance(const std::vector<FinishedCell>& cells) {
  std::set<std::string> distinct;
  for (const FinishedCell& cell : cells) {
    const std::filesystem::path path = cell.directory.folder / "provenance.json";
    if (std::filesystem::exists(path)) distinct.insert(read_file(path));
  }
  return fmt::format("[\n{}\n]\n", fmt::join(distinct, ",\n"));
}

}  // namespace vla_bench::cli
