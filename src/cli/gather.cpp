#include "cli/gather.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <string_view>
#include <utility>

#include "cli/failed_cells.h"
#include "core/error.h"
#include "core/files.h"
#include "core/parallel.h"

namespace vla_bench::cli {
namespace {

constexpr std::array kCellColumns = {"experiment", "label",   "mixer",     "n_pairs",
                                     "d_h",        "seq_len", "precision", "seed"};

bool has_history(const FinishedCell& cell) {
  const bool trained = cell.table.name == accuracy_schema().name && !cell.table.rows.empty();
  return trained && cell.has_history;
}

/// The cell's own row says whose curve it is: a config of another version need not be readable.
std::vector<Value> whose_history(const FinishedCell& cell) {
  std::vector<Value> prefix;
  for (const char* column : kCellColumns) {
    prefix.push_back(cell.table.rows.front()[cell.table.column(column)]);
  }
  return prefix;
}

Table empty_history() {
  Table table;
  table.name = "history";
  table.columns.assign(kCellColumns.begin(), kCellColumns.end());
  const Schema& schema = history_schema();
  table.columns.insert(table.columns.end(), schema.columns.begin(), schema.columns.end());
  return table;
}

/// Whether CSV text is what to_csv prints of a history: then its lines can be taken as they stand.
bool is_plain_history(std::string_view text, std::string_view header) {
  if (!text.starts_with(header) || !text.ends_with('\n')) return false;
  if (text.find('"') != text.npos || text.find('\r') != text.npos) return false;
  const auto commas = std::count(header.begin(), header.end(), ',');
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n') + 1);
    if (std::count(line.begin(), line.end(), ',') != commas) return false;
    text.remove_prefix(line.size());
  }
  return true;
}

struct HistoryText {
  std::string rows;  // CSV lines, without a header
  std::int64_t count = 0;
};

/// A cell's rows behind what says whose they are.
HistoryText history_text(const FinishedCell& cell, const std::string& header) {
  Table whose;
  whose.columns.assign(kCellColumns.begin(), kCellColumns.end());
  whose.add(whose_history(cell));
  std::string prefix = to_csv(whose);
  prefix.erase(0, prefix.find('\n') + 1);
  prefix.back() = ',';

  std::string content = read_file(cell.directory.history());
  if (!is_plain_history(content, header)) {
    content = to_csv(read_csv(cell.directory.history(), history_schema()));
  }
  HistoryText text;
  for (std::size_t at = header.size(); at < content.size(); ++text.count) {
    const std::size_t end = content.find('\n', at) + 1;
    text.rows.append(prefix).append(content, at, end - at);
    at = end;
  }
  return text;
}

}  // namespace

std::vector<FinishedCell> collect_cells(const std::vector<std::string>& folders) {
  std::vector<FinishedCell> cells;
  std::set<std::pair<std::filesystem::path, std::string>> seen;  // folders may overlap
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(folder)) {
      throw BadInput(fmt::format("{}: no such folder", folder));
    }
    const std::vector<ListedFolder> listed = list_folders(folder);
    for (auto* read : {&read_finished_cells, &read_failed_cells}) {
      std::vector<FinishedCell> found = read(listed);
      if (folders.size() == 1) {
        std::move(found.begin(), found.end(), std::back_inserter(cells));
        continue;
      }
      for (FinishedCell& cell : found) {
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
  Table gathered = empty_history();
  for (const FinishedCell& cell : cells) {
    if (!has_history(cell)) continue;
    const std::vector<Value> prefix = whose_history(cell);
    for (const std::vector<Value>& row :
         read_csv(cell.directory.history(), history_schema()).rows) {
      std::vector<Value> extended = prefix;
      extended.insert(extended.end(), row.begin(), row.end());
      gathered.add(std::move(extended));
    }
  }
  return gathered;
}

std::int64_t write_gathered_history(const std::vector<FinishedCell>& cells,
                                    const std::filesystem::path& path) {
  constexpr std::size_t kHeld = 1024;  // cells whose rows are in memory
  const std::string header = to_csv(Table(history_schema()));
  AtomicFile file(path);
  file.write(to_csv(empty_history()));
  std::int64_t rows = 0;
  for (std::size_t first = 0; first < cells.size(); first += kHeld) {
    std::vector<HistoryText> texts(std::min(kHeld, cells.size() - first));
    parallel_items(kFileReaders, static_cast<Index>(texts.size()), [&](Index item) {
      const auto at = static_cast<std::size_t>(item);
      if (has_history(cells[first + at])) texts[at] = history_text(cells[first + at], header);
    });
    for (const HistoryText& text : texts) {
      file.write(text.rows);
      rows += text.count;
    }
  }
  file.commit();
  return rows;
}

std::size_t count_histories(const std::vector<FinishedCell>& cells) {
  return static_cast<std::size_t>(std::count_if(cells.begin(), cells.end(), has_history));
}

std::string gather_provenance(const std::vector<FinishedCell>& cells) {
  std::set<std::string> distinct;
  for (const FinishedCell& cell : cells) {
    if (!cell.provenance_json.empty()) distinct.insert(cell.provenance_json);
  }
  return fmt::format("[\n{}\n]\n", fmt::join(distinct, ",\n"));
}

}  // namespace vla_bench::cli
