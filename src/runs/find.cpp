#include "runs/find.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/parallel.h"
#include "core/threads.h"
#include "experiments/list.h"
#include "runs/cell_folder.h"
#include "runs/legacy.h"
#include "runs/pack.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

/// Device and inode, which identify a real folder reached through any links.
using RealFolder = std::pair<dev_t, ino_t>;

std::optional<RealFolder> real_folder(const fs::path& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return RealFolder{status.st_dev, status.st_ino};
}

/// Adds `folder` and everything below it. Directory entries have the kind of a file, so no file is
/// queried for it.
void list_below(const fs::path& folder, std::set<RealFolder>& seen,
                std::vector<ListedFolder>& found) {
  const auto real = real_folder(folder);
  if (!real || !seen.insert(*real).second) return;
  const std::size_t own = found.size();
  found.push_back({.path = folder});
  std::vector<fs::path> below;
  std::error_code code;
  fs::directory_iterator entry(folder, code);
  while (!code && entry != fs::directory_iterator()) {
    std::error_code vanished;
    if (entry->is_directory(vanished)) {
      below.push_back(entry->path());
    } else if (entry->is_regular_file(vanished)) {
      found[own].files.push_back(entry->path().filename().string());
    }
    entry.increment(code);
  }
  if (code) {
    throw BadInput(fmt::format("[runs] {}: cannot list: {}", folder.string(), code.message()));
  }
  // A folder that a link leads to as well is named by itself.
  std::sort(below.begin(), below.end());
  std::stable_partition(below.begin(), below.end(), [](const fs::path& one) {
    std::error_code vanished;
    return !fs::is_symlink(one, vanished);
  });
  for (const fs::path& one : below) list_below(one, seen, found);
}

/// Orders paths by component, with separators before every other character. Comparing fs::path
/// values would split them each time.
bool in_path_order(const fs::path& a, const fs::path& b) {
  const auto rank = [](char c) { return c == '/' ? 0 : static_cast<unsigned char>(c) + 1; };
  return std::lexicographical_compare(a.native().begin(), a.native().end(), b.native().begin(),
                                      b.native().end(),
                                      [&](char x, char y) { return rank(x) < rank(y); });
}

/// The name of a folder, also for "." or "..".
std::string name_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.empty() && name != "." && name != "..") return name;
  return fs::weakly_canonical(folder).filename().string();
}

/// A record, or the reason why it is invalid.
struct Read {
  CellRecord record;
  RecordSource source;
  std::string problem;
};

Read read_from(std::string_view line, const std::string& place, RecordSource source,
               const std::string& run, SharedParts& shared) {
  Read read{.source = std::move(source)};
  try {
    CellRecord& record = read.record;
    record = read_record(line, place, ReadHistory::losses, &shared);
    record.run = run;
    // The curve itself is not kept, so what is wanted of it is taken here.
    if (record.has_history) record.plateau = plateau_of(record.config, record.history);
    record.history = {};
  } catch (const BadInput& error) {
    read.problem = error.what();
  }
  return read;
}

Read read_folder(const fs::path& folder, SharedParts& shared) {
  const CellFolder cell{folder};
  RecordSource source{.file = cell.record()};
  try {
    const std::string line = read_file(cell.record(), kLongestRecord);
    Read read =
        read_from(line, cell.record().string(), source, name_of(folder.parent_path()), shared);
    read.record.place = folder.string();
    if (read.problem.empty() && read.record.hash != name_of(folder)) {
      read.problem =
          fmt::format("[{}] record: of another cell, {}", folder.string(), read.record.hash);
    }
    return read;
  } catch (const BadInput& error) {
    return {.record = {}, .source = std::move(source), .problem = error.what()};
  }
}

/// Appends the cells of a pack.
void read_pack(const fs::path& path, SharedParts& shared, std::vector<Read>& all) {
  constexpr std::size_t kHeld = 2048;  // lines in memory
  try {
    PackReader reader(path);
    std::vector<PackLine> lines;
    const auto parse = [&] {
      const std::size_t first = all.size();
      all.resize(first + lines.size());
      parallel_items(choose_threads(0).threads, static_cast<Index>(lines.size()), [&](Index item) {
        const PackLine& line = lines[static_cast<std::size_t>(item)];
        all[first + static_cast<std::size_t>(item)] = read_from(
            line.text, place_in_pack(path, line.number),
            {.file = path, .offset = line.offset, .in_pack = true}, reader.note().name, shared);
      });
      lines.clear();
    };
    while (auto line = reader.next()) {
      lines.push_back(*std::move(line));
      if (lines.size() == kHeld) parse();
    }
    parse();
  } catch (const BadInput& error) {
    all.push_back({.record = {}, .source = {.file = path}, .problem = error.what()});
  }
}

/// Everything below the roots, in path order.
std::vector<Read> read_all(const std::vector<fs::path>& roots, FoundCells& found) {
  std::set<RealFolder> seen;
  std::vector<Read> all;
  SharedParts shared;
  for (const fs::path& root : roots) {
    std::error_code code;
    if (fs::is_regular_file(root, code)) {
      read_pack(root, shared, all);
      continue;
    }
    std::vector<fs::path> folders;
    std::vector<fs::path> packs;
    std::int64_t legacy = 0;
    for (const ListedFolder& listed : list_folders(root)) {
      // Roots may overlap.
      if (const auto real = real_folder(listed.path); !real || !seen.insert(*real).second) continue;
      if (listed.has("record.json")) {
        folders.push_back(listed.path);
      } else if (listed.has("begun.json")) {
        ++found.in_progress;
      } else if (is_legacy_cell(listed)) {
        ++legacy;
      }
      for (const std::string& file : listed.files) {
        if (is_pack_name(file)) packs.push_back(listed.path / file);
      }
    }
    if (legacy > 0) {
      found.problems.push_back(fmt::format(
          "[{}] {} cells of an earlier version: vla-bench pack reads them", root.string(), legacy));
    }
    const std::size_t first = all.size();
    all.resize(first + folders.size());
    parallel_items(kFileReaders, static_cast<Index>(folders.size()), [&](Index item) {
      const auto at = static_cast<std::size_t>(item);
      all[first + at] = read_folder(folders[at], shared);
    });
    for (const fs::path& pack : packs) read_pack(pack, shared, all);
  }
  return all;
}

/// The key of copies of one cell: its hash, and the hardware of timings.
std::string identity_of(const CellRecord& record) {
  if (!is_timed(record.config.experiment)) return record.hash;
  const bool gpu = record.config.device == DeviceRequest::cuda;
  return fmt::format("{} {} {}", record.hash, record.provenance.fact(gpu ? "cuda" : "processor"),
                     record.provenance.fact("threads"));
}

/// The parent folder of a run's folder or pack.
fs::path root_of(const Read& read) {
  const fs::path folder = read.source.file.parent_path();
  return read.source.in_pack ? folder : folder.parent_path().parent_path();
}

/// Whether a cell of a folder takes precedence over one of a pack.
bool replaces(const Read& folder, const Read& pack) {
  return !folder.source.in_pack && pack.source.in_pack && folder.record.run == pack.record.run &&
         fs::weakly_canonical(root_of(folder)) == fs::weakly_canonical(root_of(pack));
}

/// The index of the copy that counts; empty when they differ.
std::optional<std::size_t> choose(const std::vector<Read>& all,
                                  const std::vector<std::size_t>& all_copies,
                                  std::vector<std::string>& problems) {
  std::vector<std::size_t> copies;
  std::copy_if(
      all_copies.begin(), all_copies.end(), std::back_inserter(copies), [&](std::size_t copy) {
        return std::none_of(all_copies.begin(), all_copies.end(),
                            [&](std::size_t other) { return replaces(all[other], all[copy]); });
      });
  const std::string rows = comparable_rows(all[copies.front()].record);
  for (const std::size_t copy : copies) {
    if (copy == copies.front() || comparable_rows(all[copy].record) == rows) continue;
    problems.push_back(fmt::format("copies of the cell {} differ, neither counts: {} and {}",
                                   all[copy].record.hash, all[copies.front()].record.place,
                                   all[copy].record.place));
    return std::nullopt;
  }
  return copies.front();
}

}  // namespace

bool ListedFolder::has(std::string_view name) const {
  return std::find(files.begin(), files.end(), name) != files.end();
}

std::vector<ListedFolder> list_folders(const fs::path& root) {
  std::error_code code;
  const fs::file_status status = fs::status(root, code);
  if (!fs::is_directory(status)) {
    throw BadInput(fmt::format("[runs] {}: {}", root.string(),
                               fs::exists(status) ? "not a folder" : "no such folder"));
  }
  std::vector<ListedFolder> found;
  std::set<RealFolder> seen;
  list_below(root, seen, found);
  std::sort(found.begin(), found.end(), [](const ListedFolder& a, const ListedFolder& b) {
    return in_path_order(a.path, b.path);
  });
  return found;
}

FoundCells find_cells(const std::vector<fs::path>& roots) {
  FoundCells found;
  std::vector<Read> all = read_all(roots, found);
  std::map<std::string, std::vector<std::size_t>> copies;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].problem.empty()) {
      copies[identity_of(all[i].record)].push_back(i);
    } else {
      found.problems.push_back(all[i].problem);
    }
  }
  std::vector<std::size_t> kept;
  for (const auto& [identity, of_cell] : copies) {
    if (of_cell.size() == 1) {
      kept.push_back(of_cell.front());
    } else if (const auto chosen = choose(all, of_cell, found.problems)) {
      kept.push_back(*chosen);
    }
  }
  std::sort(kept.begin(), kept.end());
  found.records.reserve(kept.size());
  found.sources.reserve(kept.size());
  for (const std::size_t index : kept) {
    found.records.push_back(std::move(all[index].record));
    found.sources.push_back(std::move(all[index].source));
  }
  return found;
}

void read_histories(const FoundCells& found,
                    const std::function<void(const CellRecord&, const Table&)>& visit) {
  constexpr std::size_t kHeld = 1024;  // cells whose curves are in memory
  for (std::size_t first = 0; first < found.records.size(); first += kHeld) {
    const std::size_t count = std::min(kHeld, found.records.size() - first);
    std::vector<Table> curves(count);
    parallel_items(kFileReaders, static_cast<Index>(count), [&](Index item) {
      const auto at = first + static_cast<std::size_t>(item);
      const CellRecord& record = found.records[at];
      if (!record.has_history) return;
      const RecordSource& source = found.sources[at];
      const std::string line = source.in_pack ? read_pack_line(source.file, source.offset)
                                              : read_file(source.file, kLongestRecord);
      curves[at - first] = read_history(line, record.place);
    });
    for (std::size_t i = 0; i < count; ++i) {
      if (!curves[i].rows.empty()) visit(found.records[first + i], curves[i]);
    }
  }
}

}  // namespace vla_bench
