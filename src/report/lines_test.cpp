#include "report/lines.h"

#include <gtest/gtest.h>

#include "report/grouping.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::records_of;

/// The names of the groups of some configs; n_pairs is their only column, and seq_len is where
/// along its line a row lies.
std::vector<LineName> names_of(std::initializer_list<std::string_view> configs,
                               std::vector<std::string_view> along = {}) {
  static std::vector<CellRecord> records;
  records.clear();
  for (const std::string_view json : configs) {
    for (CellRecord& record : records_of(json)) records.push_back(std::move(record));
  }
  std::vector<const CellRecord*> pointers;
  for (const CellRecord& record : records) pointers.push_back(&record);
  std::vector<NamedCells> named;
  for (const CellGroup& group : group_cells(pointers)) {
    named.push_back(
        {.label = group.label,
         .hash = group.hash,
         .config = &group.config(),
         .places = {{column_of(group.config(), "n_pairs")}},
         .points = {{column_of(group.config(), "n_pairs"), column_of(group.config(), "seq_len")}}});
  }
  return name_lines(named, {.keys = {"task.n_pairs"}, .along = std::move(along)});
}

std::vector<std::string> lines_of(std::initializer_list<std::string_view> configs) {
  std::vector<std::string> lines;
  for (const LineName& name : names_of(configs)) lines.push_back(name.line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Lines, AreTheLabelWhereTheColumnsTellGroupsApart) {
  EXPECT_EQ(lines_of({R"({"mixers": ["vla", "linear"], "sweep": {"task.n_pairs": [4, 8]}})"}),
            (Lines{"linear", "linear", "vla", "vla"}));
  // One learning rate at each n_pairs.
  EXPECT_EQ(lines_of({R"({"mixers": ["vla"], "sweep": {"task.n_pairs,train.lr": [[4, 0.1],
                                                                               [8, 0.2]]}})"}),
            (Lines{"vla", "vla"}));
}

TEST(Lines, NameWhatElseDiffers) {
  EXPECT_EQ(lines_of({R"({"mixers": ["vla"], "sweep": {"train.lr": [3e-4, 1e-5]}})"}),
            (Lines{"vla lr=0.0003", "vla lr=1e-05"}));
  // When one n_pairs has two rates, all lines of the label name theirs.
  EXPECT_EQ(lines_of({R"({"mixers": ["vla"], "sweep": {"train.lr": [0.1, 0.2]}})",
                      R"({"mixers": ["vla"], "train": {"lr": 0.1}, "task": {"n_pairs": 8}})"}),
            (Lines{"vla lr=0.1", "vla lr=0.1", "vla lr=0.2"}));
}

TEST(Lines, NameTheMixersKeysToo) {
  EXPECT_EQ(lines_of({R"({"mixers": [{"mixer": "vla", "label": "mine", "penalty": "frozen"}]})",
                      R"({"mixers": [{"mixer": "vla", "label": "mine"}]})"}),
            (Lines{"mine penalty=frozen", "mine penalty=learned"}));
  EXPECT_EQ(lines_of({R"({"mixers": [{"mixer": "vla", "label": "mine"}]})",
                      R"({"mixers": [{"mixer": "linear", "label": "mine"}]})"}),
            (Lines{"mine mixer=linear", "mine mixer=vla"}));
}

// Case 7: long values are written in full, but no more keys than needed.
TEST(Lines, OfKeysThatMoveTogetherOneIsNamed) {
  const char* const config = R"({"mixers": ["vla"], "sweep": {"train": [
      {"steps": 400, "batch": 4, "weight_decay": 0.01, "lr": 1e-3},
      {"steps": 400, "batch": 4, "weight_decay": 0.1, "lr": 1e-1}]}})";
  EXPECT_EQ(lines_of({config}), (Lines{"vla lr=0.001", "vla lr=0.1"}));
  const std::vector<LineName> names = names_of({config});
  std::vector<std::string> settings = {names[0].setting, names[1].setting};
  std::sort(settings.begin(), settings.end());
  EXPECT_EQ(settings, (Lines{"lr=0.001 weight_decay=0.01", "lr=0.1 weight_decay=0.1"}));
}

TEST(Lines, KeysThatShareTheirLastPartGoByTheWhole) {
  EXPECT_EQ(lines_of({R"({"mixers": ["vla"], "sweep": {"eval.batch": [8, 16]}})"}),
            (Lines{"vla eval.batch=16", "vla eval.batch=8"}));
}

TEST(Lines, WhatVariesAlongALineIsNotInItsName) {
  const char* const config = R"({"mixers": ["vla"], "experiment": "copy",
                                 "sweep": {"task.seq_len": [9, 17]}})";
  EXPECT_EQ(names_of({config})[0].line.substr(0, 12), "vla seq_len=");
  EXPECT_EQ(names_of({config}, {"task.seq_len"})[0].line, "vla");
  // Unless two rows would be at one point.
  const char* const again = R"({"mixers": ["vla"], "experiment": "copy", "task": {"seq_len": 9},
                                "train": {"lr": 0.1}})";
  const std::vector<std::string_view> along = {"task.seq_len", "train.lr"};
  EXPECT_EQ(names_of({config}, along)[0].line, "vla");
  EXPECT_EQ(names_of({config, again}, along)[0].line.substr(0, 7), "vla lr=");
}

TEST(Lines, LabelsThatReadLikeNamesAreToldApart) {
  const Lines lines = lines_of({R"({"mixers": ["vla"], "sweep": {"train.lr": [0.1, 0.2]}})",
                                R"({"mixers": [{"mixer": "vla", "label": "vla lr=0.1"}]})"});
  EXPECT_EQ(std::set<std::string>(lines.begin(), lines.end()).size(), 3u);
  EXPECT_EQ(lines[2], "vla lr=0.2");
}

TEST(Lines, ListsReadWithoutTheSignsOfJson) {
  const Lines lines = lines_of({R"({"mixers": ["vla"], "experiment": "latency",
           "sweep": {"latency.passes": [["forward"], ["forward", "backward"]]}})"});
  EXPECT_EQ(lines, (Lines{"vla passes=forward", "vla passes=forward,backward"}));
}

}  // namespace
}  // namespace vla_bench
