// Files that are either whole or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

namespace vla_bench {

/// Writes `content` to a temporary name in the same folder, fsyncs, renames over `path`, fsyncs the
/// folder. Creates missing folders. On any failure (no permission, disk full) removes the temporary
/// file and throws RunError naming the path and the system's reason.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// The same, piece by piece, for what is too large to be held: nothing is at `path` before
/// commit(). Without one the temporary file is removed at the end of the scope.
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

/// A file that is read from its start, piece by piece, so that what its first bytes say can bound
/// what is read of the rest.
class InputFile {
 public:
  /// Throws BadInput naming the path and the reason.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// The next `most` bytes; fewer where the file ends. A large `most` costs no memory that the file
  /// does not fill. Throws BadInput.
  std::string take(std::size_t most);
  /// What is left of the size that the file had when it was opened; a pipe and a device have none.
  std::size_t size_hint() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The whole file. Throws BadInput naming the path and the reason, also when there are more than
/// `most` bytes: of those no more are read, so that /dev/zero takes no memory.
std::string read_file(const std::filesystem::path& path,
                      std::size_t most = std::numeric_limits<std::size_t>::max());

/// Throws BadInput when files cannot be created in `folder` (which is made if it is missing).
void require_writable_folder(const std::filesystem::path& folder);

/// Removes what processes that were killed while they wrote left in `folder` (not below it), once
/// it is an hour old: younger files may still be written. Does nothing where it may not.
void remove_leftovers(const std::filesystem::path& folder);

/// Whether `path` is named as a file that is still being written, or was when its process died.
bool is_temporary_file(const std::filesystem::path& path);

/// 16 hexadecimal digits of XXH3-64.
std::string hash_hex(std::string_view text);

/// The name nearest to `name` by edit distance, in which two exchanged neighbours count as one
/// edit; of equally near ones the first. "" when there are none.
std::string nearest_name(std::string_view name, const std::string_view* names, std::size_t count);

}  // namespace vla_bench
