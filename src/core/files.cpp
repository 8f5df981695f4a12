#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <numeric>
#include <random>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"

// Inlined: no link dependency on libxxhash. Scalar: configs are short, and GCC 12 warns inside its
// own AVX-512 intrinsics.
#define XXH_INLINE_ALL
#define XXH_VECTOR 0  // XXH_SCALAR
#include <xxhash.h>

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryPrefix = ".tmp-";

std::string reason(int error) { return std::generic_category().message(error); }

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// An open file; closed at the end of its scope.
class OpenFile {
 public:
  OpenFile(const fs::path& path, int flags)
      : descriptor_(uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); })) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() { close(); }

  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }

  bool write_all(std::string_view content) {
    while (!content.empty()) {
      const ssize_t written =
          uninterrupted([&] { return ::write(descriptor_, content.data(), content.size()); });
      if (written < 0) return false;
      content.remove_prefix(static_cast<std::size_t>(written));
    }
    return true;
  }

  bool sync() {
    return uninterrupted([&] { return ::fsync(descriptor_); }) == 0;
  }

  /// Network filesystems may report a failed write only here. No retry after EINTR: Linux has
  /// released the descriptor by then.
  bool close() {
    if (descriptor_ < 0) return true;
    return ::close(std::exchange(descriptor_, -1)) == 0 || errno == EINTR;
  }

 private:
  int descriptor_;
};

/// A unique file name in `folder`. Random rather than made from the process id, since several
/// machines may write into one shared folder.
fs::path temporary_name(const fs::path& folder) {
  std::random_device random;
  return folder / fmt::format("{}{:08x}{:08x}", kTemporaryPrefix, random(), random());
}

bool is_temporary_name(std::string_view name) {
  if (!name.starts_with(kTemporaryPrefix)) return false;
  name.remove_prefix(kTemporaryPrefix.size());
  return name.size() == 16 && name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

[[noreturn]] void throw_unwritable(const fs::path& path, int error) {
  throw RunError(fmt::format("[file] {}: cannot write: {}", path.string(), reason(error)));
}

/// Returns the folder of `path`; creates it if it is missing.
fs::path made_folder(const fs::path& path) {
  fs::path folder = folder_of(path);
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) throw_unwritable(path, code.value());
  return folder;
}

/// The number of insertions, deletions, substitutions and transpositions of neighbours that turn
/// `a` into `b` (optimal string alignment: every character moves at most once).
std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Rows i - 2, i - 1 and i of the table: entry j is the distance of a[0, i) and b[0, j).
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({substitute, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row.back();
}

}  // namespace

struct AtomicFile::State {
  fs::path path;
  fs::path temporary;
  OpenFile file;
  bool exists = true;  // the temporary file

  explicit State(const fs::path& path_)
      : path(path_),
        temporary(temporary_name(made_folder(path_))),
        file(temporary, O_WRONLY | O_CREAT | O_EXCL) {}

  /// The error number is taken before the temporary file is removed.
  [[noreturn]] void fail() {
    const int error = errno;
    remove();
    throw_unwritable(path, error);
  }
  void remove() {
    if (exists) ::unlink(temporary.c_str());
    exists = false;
  }
};

AtomicFile::AtomicFile(const fs::path& path) : state_(std::make_unique<State>(path)) {
  if (!state_->file.is_open()) state_->fail();
}

AtomicFile::~AtomicFile() { state_->remove(); }

void AtomicFile::write(std::string_view content) {
  if (!state_->file.write_all(content)) state_->fail();
}

void AtomicFile::commit() {
  if (!state_->file.sync() || !state_->file.close()) state_->fail();
  if (::rename(state_->temporary.c_str(), state_->path.c_str()) != 0) state_->fail();
  state_->exists = false;
  // Makes the rename survive a power cut. Some filesystems cannot sync a folder; the file is whole
  // either way.
  OpenFile(folder_of(state_->path), O_RDONLY | O_DIRECTORY).sync();
}

void write_file_atomically(const fs::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content);
  file.commit();
}

struct InputFile::State {
  fs::path path;
  OpenFile file;
  std::size_t left = 0;  // bytes to the end of the file; only a hint

  explicit State(const fs::path& path_) : path(path_), file(path_, O_RDONLY) {
    if (!file.is_open()) fail(errno);
    struct stat status = {};
    if (::fstat(file.descriptor(), &status) != 0) fail(errno);
    if (S_ISDIR(status.st_mode)) fail(EISDIR);
    left = static_cast<std::size_t>(std::max<off_t>(status.st_size, 0));
  }

  [[noreturn]] void fail(int error) const {
    throw BadInput(fmt::format("[file] {}: cannot read: {}", path.string(), reason(error)));
  }
};

InputFile::InputFile(const fs::path& path) : state_(std::make_unique<State>(path)) {}

InputFile::~InputFile() = default;

std::string InputFile::take(std::size_t most) {
  // The size is only a hint: a pipe has none, and a file may grow. Asking for one byte more finds
  // the end without another block; buffers fit tightly, since thousands of small files are kept.
  constexpr std::size_t kBlock = 1 << 16;
  std::string content(std::min(most, state_->left + 1), '\0');
  std::size_t filled = 0;
  while (filled < most) {
    if (filled == content.size()) {
      content.resize(std::min(most, std::max(kBlock, 2 * content.size())));
    }
    const ssize_t count = uninterrupted([&] {
      return ::read(state_->file.descriptor(), content.data() + filled, content.size() - filled);
    });
    if (count < 0) state_->fail(errno);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  content.resize(filled);
  state_->left -= std::min(state_->left, filled);
  return content;
}

std::size_t InputFile::size_hint() const { return state_->left; }

std::string read_file(const fs::path& path, std::size_t most) {
  InputFile file(path);
  const bool bounded = most < std::numeric_limits<std::size_t>::max();
  const bool told = file.size_hint() > most;
  std::string content = told ? std::string() : file.take(bounded ? most + 1 : most);
  if (told || content.size() > most) {
    throw BadInput(fmt::format("[file] {}: larger than {} bytes", path.string(), most));
  }
  return content;
}

void require_writable_folder(const fs::path& folder) {
  const auto fail = [&](int error) {
    throw BadInput(
        fmt::format("[file] {}: not a writable folder: {}", folder.string(), reason(error)));
  };
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) fail(code.value());
  // Permission bits miss read-only mounts and access lists, so this tries a write.
  const fs::path probe = temporary_name(folder);
  if (!OpenFile(probe, O_WRONLY | O_CREAT | O_EXCL).is_open()) fail(errno);
  ::unlink(probe.c_str());
}

bool is_temporary_file(const fs::path& path) { return is_temporary_name(path.filename().string()); }

void remove_leftovers(const fs::path& folder) {
  // Longer than any write, and than the clock difference of machines that share a folder.
  const auto oldest_kept = fs::file_time_type::clock::now() - std::chrono::hours(1);
  std::error_code code;
  fs::directory_iterator entry(folder, code);
  while (!code && entry != fs::directory_iterator()) {
    std::error_code vanished;
    const bool ours = is_temporary_file(entry->path()) && entry->is_regular_file(vanished) &&
                      !entry->is_symlink(vanished);
    if (ours && entry->last_write_time(vanished) < oldest_kept && !vanished) {
      fs::remove(entry->path(), vanished);
    }
    entry.increment(code);
  }
}

std::string hash_hex(std::string_view text) {
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

std::string nearest_name(std::string_view name, const std::string_view* names, std::size_t count) {
  std::string_view nearest;
  std::size_t nearest_distance = 0;
  for (const std::string_view candidate : std::span(names, count)) {
    const std::size_t distance = edit_distance(name, candidate);
    if (nearest.empty() || distance < nearest_distance) {
      nearest = candidate;
      nearest_distance = distance;
    }
  }
  return std::string(nearest);
}

}  // namespace vla_bench
