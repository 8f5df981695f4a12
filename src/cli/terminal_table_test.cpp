#include "cli/terminal_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "core/text.h"
#include "experiments/list.h"

namespace vla_bench::cli {
namespace {

std::string text(const char* value) { return value; }

std::size_t widest_line(const std::string& shown) {
  std::istringstream lines(shown);
  std::size_t widest = 0;
  for (std::string line; std::getline(lines, line);) {
    widest = std::max(widest, count_characters(line));
  }
  return widest;
}

bool contains(const std::string& shown, const std::string& part) {
  return shown.find(part) != std::string::npos;
}

/// The words of the line that begins with `start`.
std::vector<std::string> words_of(const std::string& shown, const std::string& start) {
  std::istringstream lines(shown);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(start)) continue;
    std::istringstream words(line);
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

Table small_table() {
  Table table;
  table.columns = {"line", "mixer", "n_pairs", "accuracy_mean", "accuracy_sd", "device"};
  table.add({text("vla"), text("vla"), std::int64_t{4}, 1.0, Value(), text("cpu")});
  table.add({text("linear"), text("linear"), std::int64_t{8}, 0.14812, Value(), text("cpu")});
  return table;
}

/// The columns of the widest raw table, all of them telling rows apart.
Table latency_table() {
  Table table(Latency::table());
  for (std::int64_t i = 0; i < 4; ++i) {
    std::vector<Value> row;
    for (const std::string& column : table.columns) {
      const bool is_text = column == "label" || column == "mixer" || column == "implementation" ||
                           column == "reason" || column == "pass" || column == "status";
      if (is_text) {
        row.emplace_back(column + " number " + std::to_string(i));
      } else {
        row.emplace_back(1.2345e9 * static_cast<double>(i + 1));
      }
    }
    table.add(row);
  }
  return table;
}

TEST(TerminalTable, ConstantEmptyAndRepeatedColumnsStandAbove) {
  EXPECT_EQ(to_terminal(small_table(), {.width = 80}),
            "all rows: device cpu, mixer as line; empty: accuracy_sd\n"
            "line    n_pairs  accuracy_mean\n"
            "------  -------  -------------\n"
            "vla           4              1\n"
            "linear        8         0.1481\n");
}

TEST(TerminalTable, NamesTakeTwoLinesBeforeAColumnIsLeftOut) {
  EXPECT_EQ(to_terminal(small_table(), {.width = 27}),
            "all rows: device cpu, mixer\n"
            "  as line; empty:\n"
            "  accuracy_sd\n"
            "                 accuracy_\n"
            "line    n_pairs       mean\n"
            "------  -------  ---------\n"
            "vla           4          1\n"
            "linear        8     0.1481\n");
}

TEST(TerminalTable, LeavesOutWhatTellsLeastAndSaysHowToSeeIt) {
  const std::string shown = to_terminal(
      latency_table(), {.width = 100, .whole = "vla-bench report R --table latency --format csv"});
  EXPECT_TRUE(contains(shown, "median_s"));
  EXPECT_TRUE(contains(shown, "label number 3"));
  EXPECT_TRUE(contains(shown, "left out: "));
  EXPECT_TRUE(contains(shown, "copy_bytes_per_s"));
  std::string unwrapped = shown;
  for (std::size_t at; (at = unwrapped.find("\n  ")) != std::string::npos;) {
    unwrapped.replace(at, 3, " ");
  }
  EXPECT_TRUE(
      contains(unwrapped, "; all columns: vla-bench report R --table latency --format csv"));
}

TEST(TerminalTable, NoLineIsWiderThanTheTerminal) {
  for (const std::size_t width : {20u, 40u, 80u, 100u, 160u, 400u}) {
    EXPECT_LE(widest_line(to_terminal(latency_table(), {.width = width})), width);
    EXPECT_LE(widest_line(to_terminal(small_table(), {.width = width})), width);
  }
  EXPECT_LE(widest_line(to_terminal(latency_table(), {.width = 1})), 20u);
}

TEST(TerminalTable, AWiderTerminalShowsMoreColumns) {
  std::size_t before = 0;
  for (const std::size_t width : {80u, 100u, 160u, 400u}) {
    const std::size_t columns =
        words_of(to_terminal(latency_table(), {.width = width}), "--------").size();
    EXPECT_GT(columns, before) << width;
    before = columns;
  }
}

TEST(TerminalTable, ShowsBothEndsOfAnIntervalOrNone) {
  Table table;
  table.columns = {"line", "accuracy_mean", "low", "high"};
  table.add({text("vla"), 0.5, 0.4, 0.6});
  table.add({text("linear"), 0.25, 0.2, 0.3});
  for (std::size_t width = 20; width < 45; ++width) {
    const std::string shown = to_terminal(table, {.width = width});
    EXPECT_EQ(contains(shown, "0.4"), contains(shown, "0.6")) << shown;
  }
  EXPECT_TRUE(contains(to_terminal(table, {.width = 44}), "0.4"));
}

TEST(TerminalTable, LongTextsAreWrappedAndThenCut) {
  Table table;
  table.columns = {"claim", "title"};
  table.add({text("C1"), text("the norm of the state stays below linear attention's")});
  table.add({text("C2"), text("short")});
  EXPECT_EQ(to_terminal(table, {.width = 30}),
            "claim  title\n"
            "-----  -----------------------\n"
            "C1     the norm of the state\n"
            "       stays below linear\n"
            "       attention's\n"
            "C2     short\n");
  EXPECT_EQ(to_terminal(table, {.width = 30, .whole = "--format csv", .most_lines = 2}),
            "claim  title\n"
            "-----  -----------------------\n"
            "C1     the norm of the state\n"
            "       stays below linear att…\n"
            "C2     short\n"
            "cut: title; all columns:\n"
            "  --format csv\n");
}

TEST(TerminalTable, CountsCharactersNotBytes) {
  Table table;
  table.columns = {"label", "n"};
  table.add({text("λ₀ = ½"), std::int64_t{1}});
  table.add({text("plain"), std::int64_t{2}});
  EXPECT_EQ(to_terminal(table, {.width = 20}),
            "label   n\n"
            "------  -\n"
            "λ₀ = ½  1\n"
            "plain   2\n");
}

TEST(TerminalTable, ASingleRowThatDoesNotFitBecomesALineAColumn) {
  Table table;
  table.columns = {"folder", "cells", "seconds_to_do", "note"};
  table.add({text("results/runs/a_long_name"), std::int64_t{8}, Value(), text("x")});
  EXPECT_EQ(to_terminal(table, {.width = 50}),
            "empty: seconds_to_do\n"
            "folder                    cells  note\n"
            "------------------------  -----  ----\n"
            "results/runs/a_long_name      8  x\n");
  EXPECT_EQ(to_terminal(table, {.width = 22}),
            "empty: seconds_to_do\n"
            "folder  results/runs/\n"
            "        a_long_name\n"
            "cells   8\n"
            "note    x\n");
}

TEST(TerminalTable, SaysThatThereAreNoRowsOrOnlyEqualOnes) {
  Table table;
  table.columns = {"label", "n"};
  EXPECT_EQ(to_terminal(table, {.width = 80}), "no rows of label, n\n");
  for (int i = 0; i < 3; ++i) table.add({text("vla"), std::int64_t{1}});
  EXPECT_EQ(to_terminal(table, {.width = 80}), "all rows: label vla, n 1\n3 such rows\n");
}

TEST(TerminalTable, ControlCharactersDoNotReachTheTerminal) {
  Table table;
  table.columns = {"label", "n"};
  table.add({text("a\x1b[2Jb"), std::int64_t{1}});
  EXPECT_EQ(to_terminal(table, {.width = 80}).find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace vla_bench::cli
