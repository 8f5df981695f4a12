#include "runs/find.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <tuple>

#include "core/error.h"
#include "core/files.h"
#include "runs/cell_folder.h"
#include "runs/pack.h"
#include "testing/records.h"
#include "testing/source_dir.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

CellRecord cell(int seed, double accuracy = 0.5, bool with_history = false) {
  Table table(Recall::table());
  std::vector<Value> row(table.columns.size());
  row[table.column("accuracy")] = accuracy;
  table.add(std::move(row));
  CellRecord record = testing::record_of(
      R"({"experiment": "recall", "mixers": ["vla"], "seeds": [)" + std::to_string(seed) + "]}",
      std::move(table));
  if (with_history) {
    record.history = Table(history_schema());
    record.history.add({std::int64_t{seed}, 0.5, 0.5, 0.5, 0.5});
  }
  return record;
}

class Find : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return folder_.path() / name; }
  CellFolder folder_of(const std::string& run, const CellRecord& record) const {
    return {at(run) / record.hash};
  }
  void seal_in(const std::string& run, const CellRecord& record) const {
    folder_of(run, record).seal(record);
  }
  std::set<std::string> hashes(const FoundCells& found) const {
    std::set<std::string> hashes;
    for (const CellRecord& record : found.records) hashes.insert(record.hash);
    return hashes;
  }

  testing::TemporaryFolder folder_;
};

TEST_F(Find, FoldersAndPacksAlike) {
  seal_in("a", cell(1));
  write_pack(at("b.jsonl"), {.name = "b"}, {seal(cell(2)), seal(cell(3))});
  const FoundCells found = find_cells({folder_.path()});
  EXPECT_TRUE(found.problems.empty());
  ASSERT_EQ(found.records.size(), 3u);
  EXPECT_EQ(hashes(found), (std::set{cell(1).hash, cell(2).hash, cell(3).hash}));
  EXPECT_EQ(found.records[0].run, "a");
  EXPECT_EQ(found.records[1].run, "b");
  EXPECT_EQ(found.records[1].place, at("b.jsonl").string() + ":2");
  EXPECT_EQ(find_cells({at("b.jsonl")}).records.size(), 2u);
  EXPECT_EQ(find_cells({at("a"), folder_.path()}).records.size(), 3u) << "overlapping roots";
  EXPECT_THROW(find_cells({at("nowhere")}), BadInput);
}

TEST_F(Find, ACellInProgressIsNoErrorAndKeepsItsRecordUntilItIsDiscarded) {
  folder_of("a", cell(1)).begin(cell(1).config);
  seal_in("a", cell(2));
  FoundCells found = find_cells({folder_.path()});
  EXPECT_EQ(found.in_progress, 1);
  EXPECT_EQ(found.records.size(), 1u);
  EXPECT_TRUE(found.problems.empty());
  EXPECT_EQ(dump_config(read_begun(folder_of("a", cell(1)))), dump_config(cell(1).config));
  // Two processes may run one cell: the second begins when the first has sealed it and reads it.
  folder_of("a", cell(2)).begin(cell(2).config);
  EXPECT_EQ(find_cells({folder_.path()}).records.size(), 1u);
  EXPECT_EQ(find_cells({folder_.path()}).in_progress, 1);
  folder_of("a", cell(2)).discard();
  EXPECT_EQ(find_cells({folder_.path()}).records.size(), 0u);
  EXPECT_EQ(find_cells({folder_.path()}).in_progress, 2);
  seal_in("a", cell(2));
  EXPECT_FALSE(fs::exists(folder_of("a", cell(2)).begun()));
}

// Cases 5 and 15.
TEST_F(Find, WhatIsDamagedIsNamedAndTheRestGoesOn) {
  for (int seed = 1; seed <= 4; ++seed) seal_in("a", cell(seed));
  const auto record = [&](int seed) { return folder_of("a", cell(seed)).record(); };
  const std::string whole = read_file(record(1));
  write_file_atomically(record(1), whole.substr(0, whole.size() / 2));
  std::string edited = read_file(record(2));
  edited.replace(edited.find("0.5"), 3, "0.9");
  write_file_atomically(record(2), edited);
  write_file_atomically(record(3), "");
  const FoundCells found = find_cells({folder_.path()});
  EXPECT_EQ(hashes(found), std::set{cell(4).hash});
  ASSERT_EQ(found.problems.size(), 3u);
  for (int seed = 1; seed <= 3; ++seed) {
    EXPECT_TRUE(std::any_of(found.problems.begin(), found.problems.end(), [&](const auto& text) {
      return text.find(cell(seed).hash) != std::string::npos;
    }));
    EXPECT_NE(look_up(folder_of("a", cell(seed)))->damage, "");
  }
  EXPECT_EQ(look_up(folder_of("a", cell(4)))->damage, "");
  // A record that was moved into another cell's folder does not count for that cell.
  fs::copy_file(record(4), record(3), fs::copy_options::overwrite_existing);
  EXPECT_EQ(find_cells({folder_.path()}).problems.size(), 3u);
}

// Case 8: a run's folder may be a link to where there is room.
TEST_F(Find, LinksAreFollowedEachRealFolderOnce) {
  seal_in("scratch/run", cell(1));
  fs::create_directory(at("runs"));
  fs::create_directory_symlink(at("scratch/run"), at("runs/run"));
  fs::create_directory_symlink(at("runs"), at("scratch/run/loop"));
  EXPECT_EQ(find_cells({at("runs")}).records.size(), 1u);
  EXPECT_EQ(find_cells({folder_.path()}).records.size(), 1u);
  EXPECT_EQ(find_cells({at("runs")}).records[0].run, "run");
}

// Case 10.
TEST_F(Find, CopiesThatDifferAreNamedAndNeitherCounts) {
  seal_in("a", cell(1, 0.5));
  seal_in("b", cell(1, 0.6));
  seal_in("c", cell(2));
  seal_in("d", cell(2));
  const FoundCells found = find_cells({folder_.path()});
  EXPECT_EQ(hashes(found), std::set{cell(2).hash});
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_NE(found.problems[0].find("/a/"), std::string::npos) << found.problems[0];
  EXPECT_NE(found.problems[0].find("/b/"), std::string::npos) << found.problems[0];
}

TEST_F(Find, AFolderWinsOverThePackBesideIt) {
  write_pack(at("a.jsonl"), {.name = "a"}, {seal(cell(1, 0.5))});
  seal_in("a", cell(1, 0.6));
  const FoundCells found = find_cells({folder_.path()});
  EXPECT_TRUE(found.problems.empty());
  ASSERT_EQ(found.records.size(), 1u);
  EXPECT_EQ(found.records[0].place, (at("a") / cell(1).hash).string());
}

TEST_F(Find, HistoriesAreReadWhereAskedFor) {
  seal_in("a", cell(1, 0.5, true));
  seal_in("a", cell(2));
  write_pack(at("b.jsonl"), {.name = "b"}, {seal(cell(3)), seal(cell(4, 0.5, true))});
  const FoundCells found = find_cells({folder_.path()});
  ASSERT_EQ(found.records.size(), 4u);
  for (const CellRecord& record : found.records) EXPECT_TRUE(record.history.rows.empty());
  std::vector<std::int64_t> steps;
  read_histories(found, [&](const CellRecord&, const Table& curve) {
    steps.push_back(std::get<std::int64_t>(curve.rows.at(0)[0]));
  });
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 4}));
}

TEST_F(Find, OfALearningCurveWhenItsPlateauEndedIsKept) {
  const auto trained = [](int seed, double last) {
    CellRecord record = testing::record_of(
        fmt::format(R"({{"mixers": ["vla"], "task": {{"n_pairs": 8}}, "seeds": [{}]}})", seed));
    record.history = Table(history_schema());
    record.history.add({std::int64_t{50}, 2.1, 0.1, 1e-3, 1.0});
    record.history.add({std::int64_t{100}, last, 0.9, 1e-3, 1.0});
    return record;
  };
  seal_in("a", trained(1, 0.2));
  write_pack(at("b.jsonl"), {.name = "b"}, {seal(trained(2, 0.2)), seal(trained(3, 2.0))});
  seal_in("c", cell(4, 0.5, true));
  const FoundCells found = find_cells({folder_.path()});
  ASSERT_EQ(found.records.size(), 4u);
  EXPECT_FALSE(found.records[1].plateau.has_value()) << "recall";
  // Those of folders come before those of packs.
  for (const std::size_t i : {0u, 2u, 3u}) ASSERT_TRUE(found.records[i].plateau.has_value());
  EXPECT_EQ(found.records[0].plateau->left, 100);
  EXPECT_EQ(found.records[2].plateau->left, 100);
  EXPECT_EQ(found.records[3].plateau->left, std::nullopt);
}

TEST_F(Find, FoldersOfEarlierVersionsAreNamed) {
  write_file_atomically(at("old/hash/config.json"), "{}");
  write_file_atomically(at("old/hash/recall.csv"), "");
  const FoundCells found = find_cells({folder_.path()});
  EXPECT_TRUE(found.records.empty());
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_NE(found.problems[0].find("vla-bench pack"), std::string::npos);
}

// Hashes of cells must never change: otherwise the committed cells would be run again. A commit
// that adds cells changes these numbers; one that changes the program must not.
TEST(CommittedCells, KeepTheirHashes) {
  for (const auto& [machine, cells, digest] : {std::tuple("h200", 2321, "f6f8189f9ede6f01"),
                                               std::tuple("cpu", 1057, "124e22d353c390ae")}) {
    const FoundCells found = find_cells({testing::source_dir() / "results/reference" / machine});
    EXPECT_TRUE(found.problems.empty()) << found.problems.front();
    std::set<std::string> hashes;  // of the configs, which read_record has compared
    for (const CellRecord& record : found.records) hashes.insert(record.hash);
    std::string all;
    for (const std::string& hash : hashes) all += hash;
    EXPECT_EQ(hashes.size(), static_cast<std::size_t>(cells)) << machine;
    EXPECT_EQ(hash_hex(all), digest) << machine;
  }
}

}  // namespace
}  // namespace vla_bench
