#include "report/run_directory.h"

#include <gtest/gtest.h>

#include <chrono>

#include "core/error.h"
#include "core/files.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

Table one_row(std::int64_t t) {
  Table table(jacobian_schema());
  table.add(
      {std::string("vla"), std::int64_t{42}, t, 1.25, 1.25, 0.5, 2.0, std::string("float32")});
  return table;
}

void publish_cell(const fs::path& folder, std::int64_t t) {
  const RunDirectory directory{folder};
  directory.write_config("{\"seeds\": [42]}");
  directory.write_provenance("{}");
  directory.publish(one_row(t), {});
}

TEST(RunDirectory, ACellIsFinishedOnceItsTableIsThere) {
  const TemporaryFolder folder;
  const RunDirectory directory{folder.path() / "name" / "hash"};
  EXPECT_FALSE(directory.finished("jacobian"));
  directory.write_config("{}");
  directory.write_history(Table(history_schema()));
  EXPECT_FALSE(directory.finished("jacobian"));
  EXPECT_TRUE(find_finished_cells(folder.path()).empty());
  directory.publish(one_row(1), {});
  EXPECT_TRUE(directory.finished("jacobian"));
  EXPECT_FALSE(directory.finished("accuracy"));
  EXPECT_TRUE(fs::exists(directory.folder / "jacobian.md"));
  EXPECT_EQ(directory.checkpoint().parent_path(), directory.folder);
}

TEST(RunDirectory, ACellBeginsWithoutTheLeftoversOfAnEarlierOne) {
  const TemporaryFolder folder;
  const fs::path leftover = folder.path() / ".tmp-00000000deadbeef";
  write_file_atomically(leftover, "half a checkpoint");
  fs::last_write_time(leftover, fs::file_time_type::clock::now() - std::chrono::hours(2));
  RunDirectory{folder.path()}.write_config("{}");
  EXPECT_FALSE(fs::exists(leftover));
}

TEST(RunDirectory, KeepsHowACellEnded) {
  const TemporaryFolder folder;
  const RunDirectory directory{folder.path() / "name" / "hash"};
  directory.write_config("{}");
  directory.publish(Table(jacobian_schema()), {.status = "skipped", .reason = "says \"no\" \xFF"});
  std::vector<FinishedCell> cells = find_finished_cells(folder.path());
  ASSERT_EQ(cells.size(), 1u) << "a cell without rows is finished too";
  EXPECT_EQ(cells[0].outcome.status, "skipped");
  EXPECT_EQ(cells[0].outcome.reason, "says \"no\" \xEF\xBF\xBD");

  // Folders of earlier versions, and edited ones.
  for (const char* text : {"{", "[]", R"({"status": 3})", ""}) {
    write_file_atomically(directory.folder / "status.json", text);
    EXPECT_EQ(directory.read_outcome().status, "ok") << text;
  }
  fs::remove(directory.folder / "status.json");
  EXPECT_EQ(find_finished_cells(folder.path())[0].outcome.status, "ok");
}

TEST(RunDirectory, FindsCellsFromEveryLevelInPathOrder) {
  const TemporaryFolder folder;
  publish_cell(folder.path() / "b" / "2", 2);
  publish_cell(folder.path() / "a" / "1", 1);
  publish_cell(folder.path() / "b" / "10", 10);
  write_file_atomically(folder.path() / "report" / "jacobian.csv", to_csv(one_row(99)));

  const std::vector<FinishedCell> all = find_finished_cells(folder.path());
  ASSERT_EQ(all.size(), 3u) << "a table without a config is no cell";
  EXPECT_EQ(all[0].directory.folder, folder.path() / "a" / "1");
  EXPECT_EQ(all[1].directory.folder, folder.path() / "b" / "10");
  EXPECT_EQ(all[0].config_json, "{\"seeds\": [42]}");
  EXPECT_EQ(all[0].table.rows[0][2], Value(std::int64_t{1}));
  EXPECT_EQ(find_finished_cells(folder.path() / "b").size(), 2u);
  EXPECT_EQ(find_finished_cells(folder.path() / "b" / "2").size(), 1u);
}

TEST(RunDirectory, LinksAreNotFollowed) {
  const TemporaryFolder folder;
  publish_cell(folder.path() / "a" / "1", 1);
  fs::create_directory_symlink(folder.path(), folder.path() / "a" / "loop");
  EXPECT_EQ(find_finished_cells(folder.path()).size(), 1u);
}

TEST(RunDirectory, BadRootsAndTablesAreNamed) {
  const TemporaryFolder folder;
  EXPECT_THROW(find_finished_cells(folder.path() / "absent"), BadInput);
  write_file_atomically(folder.path() / "file", "x");
  EXPECT_THROW(find_finished_cells(folder.path() / "file"), BadInput);
  publish_cell(folder.path() / "cell", 1);
  write_file_atomically(folder.path() / "cell" / "jacobian.csv", "label,seed\n");
  try {
    find_finished_cells(folder.path());
    FAIL() << "a table with missing columns was accepted";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find("jacobian.csv"), std::string::npos) << error.what();
  }
}

TEST(RunDirectory, AnUnwritableFolderIsARunError) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "file", "x");
  const RunDirectory directory{folder.path() / "file" / "hash"};
  EXPECT_THROW(directory.write_config("{}"), RunError);
}

}  // namespace
}  // namespace vla_bench
