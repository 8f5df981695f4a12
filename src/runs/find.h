// Sealed cells below results folders, in folders of their own and in packs.
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
/// real folder stands once. Throws BadInput when there is no such folder.
std::vector<ListedFolder> list_folders(const std::filesystem::path& root);

/// Threads that read small files beside one another: more than a laptop's cores, because on a
/// shared folder each waits for the server.
inline constexpr int kFileReaders = 8;

/// Where a record's line can be read again.
struct RecordSource {
  std::filesystem::path file;
  std::uint64_t offset = 0;
  bool in_pack = false;
};

struct FoundCells {
  std::vector<CellRecord> records{};    // each cell once, in path order
  std::vector<RecordSource> sources{};  // of the records
  std::vector<std::string> problems{};  // a line each: damaged records, copies that differ
  std::int64_t in_progress = 0;         // begun and not sealed
};

/// Reads the sealed cells below `roots`, each a folder or a pack. A copy in a folder wins over one
/// in a pack that lies beside that run's folder; of other copies that agree in comparable_rows the
/// first in path order stands, and where copies differ none does. (Timings of one processor with as
/// many threads are copies of each other, others are not.) What is damaged is a problem and left
/// out. Folders that an earlier version wrote are a problem too: `vla-bench pack` reads those.
/// Throws BadInput when a root is missing.
FoundCells find_cells(const std::vector<std::filesystem::path>& roots);

/// Calls `visit` with each record that has a learning curve, and the curve, in their order.
void read_histories(const FoundCells& found,
                    const std::function<void(const CellRecord&, const Table&)>& visit);

}  // namespace vla_bench
