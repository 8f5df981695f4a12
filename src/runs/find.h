// Finds sealed cells below results folders, in cell folders and in packs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "report/record.h"

namespace vla_bench {

/// A folder and the names of the files in it.
struct ListedFolder {
  std::filesystem::path path;
  std::vector<std::string> files{};

  bool has(std::string_view name) const;
};
/// Every folder below `root` and `root` itself, in path order. Links to folders are followed; each
/// real folder occurs once. Throws BadInput when there is no such folder.
std::vector<ListedFolder> list_folders(const std::filesystem::path& root);

/// Threads that read small files concurrently: more than a laptop's cores, since on a shared folder
/// each waits for the server.
inline constexpr int kFileReaders = 8;

/// The place from which a record's line can be read again.
struct RecordSource {
  std::filesystem::path file;
  std::uint64_t offset = 0;
  bool in_pack = false;
};

struct FoundCells {
  std::vector<CellRecord> records{};    // each cell once, in path order
  std::vector<RecordSource> sources{};  // of the records
  std::vector<std::string> problems{};  // one line each: damaged records, copies that differ
  std::int64_t in_progress = 0;         // begun and not sealed
};

/// Reads the sealed cells below `roots`, each a folder or a pack. A copy in a folder takes
/// precedence over one in a pack beside that run's folder; of other copies that agree in
/// comparable_rows the first in path order counts, and none when copies differ. (Timings are copies
/// of each other only on one processor with the same number of threads.) Damaged records are
/// problems and left out, and so are folders of earlier versions, which `vla-bench pack` reads.
/// Of a learning curve only CellRecord::plateau is kept. Throws BadInput when a root is missing.
FoundCells find_cells(const std::vector<std::filesystem::path>& roots);

/// Calls `visit` with each record that has a learning curve and with that curve, in order.
void read_histories(const FoundCells& found,
                    const std::function<void(const CellRecord&, const Table&)>& visit);

}  // namespace vla_bench
