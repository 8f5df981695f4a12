// A pack: the sealed cells of one run in one file of JSON Lines, NAME.jsonl.
//
//   line 1    {"checksum":...,"pack":1,"name":"04_capacity","sweep":{...}}   the sweep's note
//   line 2..  one record each (report/record.h), the very bytes of record.json, sorted by hash
//
// The same cells give the same bytes, from any folders or packs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "report/record.h"

namespace vla_bench {

struct PackNote {
  std::string name;   // of the run
  std::string sweep;  // JSON text of the cells' resolved config; empty: unknown
};

struct PackLine {
  std::string text;          // without its newline
  std::uint64_t number = 0;  // from 1
  std::uint64_t offset = 0;  // in bytes
};

/// Reads a pack line by line, with only one line in memory.
class PackReader {
 public:
  /// Throws BadInput naming the file when it cannot be read or its first line is not a pack's.
  explicit PackReader(const std::filesystem::path& path);
  /// The same for a stream; `path` names it in messages.
  PackReader(std::unique_ptr<std::istream> stream, std::filesystem::path path);

  const PackNote& note() const { return note_; }
  /// The next record's line; empty at the end. Throws BadInput when a line is longer than any
  /// record.
  std::optional<PackLine> next();

 private:
  bool read_line(PackLine& line);

  std::filesystem::path path_;
  std::unique_ptr<std::istream> stream_;
  PackNote note_;
  std::uint64_t number_ = 0;
  std::uint64_t offset_ = 0;
};

/// The outcomes of the cells in the packs of one folder (not below it), by run and hash.
class PackIndex {
 public:
  /// Makes an empty index when there is no such folder. problems() lists damaged lines.
  explicit PackIndex(const std::filesystem::path& root);

  /// Null when no pack has the cell.
  const RecordHead* find(const std::string& run, const std::string& hash) const;
  /// The sweeps' notes, by run.
  const std::map<std::string, std::string>& notes() const { return notes_; }
  /// The cells of a run, by hash.
  const std::map<std::string, RecordHead>& cells(const std::string& run) const;
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  void read(const std::filesystem::path& pack);

  std::map<std::string, std::map<std::string, RecordHead>> runs_;
  std::map<std::string, std::string> notes_;
  std::vector<std::string> problems_;
};

/// Reads the line at `offset`. Throws BadInput.
std::string read_pack_line(const std::filesystem::path& path, std::uint64_t offset);

/// "results/04_capacity.jsonl:12", for messages.
std::string place_in_pack(const std::filesystem::path& path, std::uint64_t line);

/// Writes `lines` (sealed records) in their order. Throws RunError.
void write_pack(const std::filesystem::path& path, const PackNote& note,
                const std::vector<std::string>& lines);

bool is_pack_name(const std::filesystem::path& path);  // ends in .jsonl

}  // namespace vla_bench
