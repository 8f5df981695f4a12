#include "core/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <iterator>
#include <string>

#include "core/error.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

std::ptrdiff_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

template <class Error, class Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Files, WritesReplacesAndReadsBack) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "new" / "folders" / "file.txt";
  write_file_atomically(path, "first");
  std::string content("second\0with a zero", 18);
  write_file_atomically(path, content);
  EXPECT_EQ(read_file(path), content);
  write_file_atomically(path, "");
  EXPECT_EQ(read_file(path), "");
  EXPECT_EQ(entries(path.parent_path()), 1) << "a temporary file was left";
}

TEST(Files, ReadsMoreThanOneBlock) {
  const TemporaryFolder folder;
  const std::string content(1'000'003, 'x');
  write_file_atomically(folder.path() / "large", content);
  EXPECT_EQ(read_file(folder.path() / "large"), content);
}

TEST(Files, HonoursTheUmask) {
  const TemporaryFolder folder;
  const mode_t old = ::umask(022);
  write_file_atomically(folder.path() / "file", "x");
  ::umask(old);
  EXPECT_EQ(fs::status(folder.path() / "file").permissions(), static_cast<fs::perms>(0644));
}

TEST(Files, AFailedWriteLeavesTheOldFileAndNoTemporary) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "taken");
  const std::string message =
      message_of<RunError>([&] { write_file_atomically(folder.path() / "taken", "x"); });
  EXPECT_NE(message.find("taken"), std::string::npos) << message;
  EXPECT_NE(message.find("directory"), std::string::npos) << message;
  EXPECT_EQ(entries(folder.path()), 1);

  write_file_atomically(folder.path() / "plain", "old");
  EXPECT_THROW(write_file_atomically(folder.path() / "plain" / "below", "x"), RunError);
  EXPECT_EQ(read_file(folder.path() / "plain"), "old");
}

// A file-size limit makes write() fail halfway, as a full disk does.
TEST(Files, AWriteThatRunsOutOfSpaceLeavesTheOldFile) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  write_file_atomically(path, "old");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message =
        message_of<RunError>([&] { write_file_atomically(path, std::string(100'000, 'x')); });
    ::_exit(message.find("File too large") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(folder.path()), 1) << "a temporary file was left";
}

TEST(Files, UnreadablePathsAreNamedWithTheReason) {
  const TemporaryFolder folder;
  std::string message = message_of<BadInput>([&] { read_file(folder.path() / "absent"); });
  EXPECT_NE(message.find("absent"), std::string::npos) << message;
  EXPECT_NE(message.find("No such file"), std::string::npos) << message;
  message = message_of<BadInput>([&] { read_file(folder.path()); });
  EXPECT_NE(message.find("Is a directory"), std::string::npos) << message;
}

TEST(Files, ReadsNoMoreThanAsked) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  write_file_atomically(path, "12345");
  EXPECT_EQ(read_file(path, 5), "12345");
  std::string message = message_of<BadInput>([&] { read_file(path, 4); });
  EXPECT_NE(message.find("larger than 4 bytes"), std::string::npos) << message;
  // A file without an end and without a size.
  message = message_of<BadInput>([] { read_file("/dev/zero", 1000); });
  EXPECT_NE(message.find("/dev/zero: larger than 1000 bytes"), std::string::npos) << message;
  EXPECT_EQ(read_file("/dev/null", 0), "");
}

TEST(Files, RequiresAWritableFolder) {
  const TemporaryFolder folder;
  require_writable_folder(folder.path() / "a" / "b");
  EXPECT_TRUE(fs::is_empty(folder.path() / "a" / "b"));
  write_file_atomically(folder.path() / "file", "x");
  EXPECT_THROW(require_writable_folder(folder.path() / "file"), BadInput);
  EXPECT_THROW(require_writable_folder(folder.path() / "file" / "below"), BadInput);
  EXPECT_THROW(require_writable_folder("/proc/vla-bench"), BadInput);
}

TEST(Files, RemovesWhatKilledWritersLeftAnHourAgo) {
  const TemporaryFolder folder;
  const auto make = [&](const char* name, std::chrono::minutes age) {
    const fs::path path = folder.path() / name;
    write_file_atomically(path, "x");
    fs::last_write_time(path, fs::file_time_type::clock::now() - age);
    return path;
  };
  using std::chrono::minutes;
  const fs::path old = make(".tmp-0123456789abcdef", minutes(61));
  const fs::path young = make(".tmp-0123456789abcdee", minutes(59));
  const fs::path notes = make(".tmp-notes", minutes(1000));
  const fs::path longer = make(".tmp-0123456789abcdef0", minutes(1000));
  const fs::path below = make("below/.tmp-0123456789abcdef", minutes(1000));
  remove_leftovers(folder.path());
  EXPECT_FALSE(fs::exists(old));
  for (const fs::path& kept : {young, notes, longer, below}) EXPECT_TRUE(fs::exists(kept)) << kept;
  EXPECT_NO_THROW(remove_leftovers(folder.path() / "absent"));
}

// Values of the reference implementation (xxhsum -H3): cell folders of older runs depend on them.
TEST(Files, HashesAreXxh3) {
  EXPECT_EQ(hash_hex(""), "2d06800538d394c2");
  EXPECT_EQ(hash_hex("abc"), "78af5f94892f3950");
}

TEST(Files, NearestName) {
  const std::array<std::string_view, 4> names = {"n_heads", "n_layers", "d_h", "vocab_size"};
  const auto nearest = [&](std::string_view name) {
    return nearest_name(name, names.data(), names.size());
  };
  EXPECT_EQ(nearest("n_head"), "n_heads");
  EXPECT_EQ(nearest("n_layer"), "n_layers");
  EXPECT_EQ(nearest("vocabsize"), "vocab_size");
  EXPECT_EQ(nearest("d_h"), "d_h");
  EXPECT_EQ(nearest("dh"), "d_h");
  EXPECT_EQ(nearest("vocabulary_entries"), "vocab_size") << "however far it is";
  EXPECT_EQ(nearest(""), "d_h");
  EXPECT_EQ(nearest_name("x", nullptr, 0), "");

  // Exchanged neighbours are one edit, so nearer than one letter less and another one changed.
  const std::array<std::string_view, 3> tasks = {"aqr", "mqar", "copy"};
  EXPECT_EQ(nearest_name("mqra", tasks.data(), tasks.size()), "mqar");
  const std::array<std::string_view, 2> ends = {"ca", "abc"};
  EXPECT_EQ(nearest_name("ac", ends.data(), ends.size()), "ca");
}

}  // namespace
}  // namespace vla_bench
