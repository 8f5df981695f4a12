// Reading files, and writing them so that a file is either whole or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

namespace vla_bench {

/// Writes `content` to a temporary file in the same folder, syncs it, renames it to `path` and
/// syncs the folder. Creates missing folders. On any failure (no permission, disk full) removes the
/// temporary file and throws RunError naming the path and the system's reason.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// The same in pieces, for content that does not fit into memory. commit() makes the file appear at
/// `path`; without it the temporary file is removed at the end of the scope.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view content);
  void commit();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a file in pieces, so that its first bytes can bound how much of the rest is read.
class InputFile {
 public:
  /// Throws BadInput naming the path and the reason.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Returns the next `most` bytes, or fewer where the file ends. Takes memory only for bytes that
  /// the file has. Throws BadInput.
  std::string take(std::size_t most);
  /// Bytes left of the size that the file had when it was opened; 0 for a pipe or a device.
  std::size_t size_hint() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Returns the whole file. Throws BadInput naming the path and the reason, also when the file is
/// longer than `most` bytes; it then stops reading, so that /dev/zero takes no memory.
std::string read_file(const std::filesystem::path& path,
                      std::size_t most = std::numeric_limits<std::size_t>::max());

/// Throws BadInput when files cannot be created in `folder`. Creates the folder if it is missing.
void require_writable_folder(const std::filesystem::path& folder);

/// Removes temporary files of killed processes from `folder` (not below it) once they are an hour
/// old; younger ones may still be being written. Does nothing without permission.
void remove_leftovers(const std::filesystem::path& folder);

/// Whether `path` has the name of a temporary file, still being written or left by a killed
/// process.
bool is_temporary_file(const std::filesystem::path& path);

/// 16 hexadecimal digits of XXH3-64.
std::string hash_hex(std::string_view text);

/// Returns the name nearest to `name` by edit distance, the first of equally near ones; exchanging
/// two neighbours is one edit. "" when there are no names.
std::string nearest_name(std::string_view name, const std::string_view* names, std::size_t count);

}  // namespace vla_bench
