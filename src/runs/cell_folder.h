// The folder of one cell, OUT/NAME/HASH, and its files:
//   begun.json               while the cell is in progress: when it began, and its config
//   record.json              the finished cell (report/record.h), written once, by one rename
//   checkpoint.safetensors   and the optimiser's file beside it (train/checkpoint.h), of trainings
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "report/record.h"

namespace vla_bench {

struct CellFolder {
  std::filesystem::path path;

  std::filesystem::path record() const { return path / "record.json"; }
  std::filesystem::path begun() const { return path / "begun.json"; }
  std::filesystem::path checkpoint() const { return path / "checkpoint.safetensors"; }

  /// Writes begun.json and removes leftovers of killed processes. An earlier record stays until
  /// seal() replaces it: another process may just have finished the cell, and read it. Throws
  /// RunError.
  void begin(const RunConfig& config) const;
  /// Removes the record and the checkpoint: a cell that has begun then starts from step 0.
  void discard() const;
  /// Writes the record, then removes begun.json; the cell is finished. Throws RunError.
  void seal(const CellRecord& record) const;
  /// For a finished cell: removes the begun.json of a process that was killed between the two steps
  /// of seal().
  void tidy() const;
};

/// read_head, with the reason of a failed cell.
RecordHead head_with_reason(std::string_view line, const std::string& place);

/// How a sealed cell ended.
struct SealedCell {
  RecordHead head;
  std::string damage;  // why its record is invalid; empty when it is whole
};

/// Reads and verifies the record in `folder`; empty when there is none.
std::optional<SealedCell> look_up(const CellFolder& folder);

/// Reads the config in begun.json. Throws BadInput naming the file.
RunConfig read_begun(const CellFolder& folder);

/// The longest line of a record. A longer file is not a record, and is not read into memory.
inline constexpr std::size_t kLongestRecord = std::size_t{1} << 28;

}  // namespace vla_bench
