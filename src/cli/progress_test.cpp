#include "cli/progress.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>

namespace vla_bench::cli {
namespace {

TEST(FormatDuration, ReadsAsAClock) {
  EXPECT_EQ(format_duration(0.0), "0:00");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(754.0), "12:34");
  EXPECT_EQ(format_duration(3 * 3600 + 2 * 60 + 9), "3:02:09");
}

TEST(FormatDuration, SaysWhenItIsUnknown) {
  EXPECT_EQ(format_duration(-1.0), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
}

TEST(ProgressLine, HoldsStepLossAccuracySpeedAndTimeLeft) {
  const TrainProgress progress{
      .step = 1200, .steps = 3000, .loss = 0.12344, .accuracy = 0.9125, .steps_per_second = 45.0};
  EXPECT_EQ(progress_line(3, 12, "vla n_pairs=8 seed=42", progress),
            "cell 3/12  step 1200/3000  loss 0.1234  accuracy 0.912  45.0 steps/s  0:40 left  "
            "vla n_pairs=8 seed=42");
}

TEST(ProgressLine, WithoutStepsNamesTheCellAlone) {
  EXPECT_EQ(progress_line(1, 2, "linear seed=1", {}), "cell 1/2  linear seed=1");
}

TEST(ProgressLine, BeforeTheFirstMeasurementTheTimeLeftIsUnknown) {
  const TrainProgress progress{.step = 1, .steps = 10};
  EXPECT_TRUE(progress_line(1, 1, "x", progress).ends_with("? left  x"));
}

TEST(WorkersLine, HoldsDoneSpeedTimeLeftAndEveryRunningCell) {
  std::vector<RunningCell> running(4);
  running[0] = {.cell = 6, .training = {.step = 1200, .steps = 3000, .steps_per_second = 400.25}};
  running[1] = {.cell = 7, .training = {.step = 1999, .steps = 2000, .steps_per_second = 412.0}};
  running[3] = {.cell = 8};  // no steps yet; worker 2 is idle
  EXPECT_EQ(workers_line(5, 12, running, 130.0),
            "5/12 done  812.2 steps/s  2:10 left  cell 6 40%  cell 7 99%  cell 8");
  EXPECT_EQ(workers_line(0, 3, {}, -1.0), "0/3 done  0.0 steps/s  ? left");
}

TEST(TimeLeft, TakesCellsToBeAlike) {
  EXPECT_DOUBLE_EQ(time_left(30.0, 1.5, 6.0), 90.0);
  EXPECT_DOUBLE_EQ(time_left(30.0, 6.0, 6.0), 0.0);
  EXPECT_LT(time_left(30.0, 0.0, 6.0), 0.0) << "nothing is known yet";
}

TEST(DoneLine, CountsWhatIsDoneAndWhatIsLeft) {
  EXPECT_EQ(done_line(120, 234), "120/234 cells done, 114 left");
}

TEST(CellLines, ShortCellsShareALineEveryTenSeconds) {
  using std::chrono::milliseconds;
  using Line = CellLines::Line;
  const CellLines::Time start{};
  CellLines lines(start);
  EXPECT_FALSE(lines.owes_count());
  int counts = 0;
  // A hundred cells a second for a minute.
  for (int cell = 1; cell <= 6000; ++cell) {
    const auto now = start + cell * milliseconds(10);
    const Line line = lines.after_cell(now - milliseconds(10), now);
    EXPECT_NE(line, Line::cell);
    if (line == Line::count) ++counts;
    EXPECT_EQ(lines.owes_count(), line == Line::none);
  }
  EXPECT_EQ(counts, 6);
}

TEST(CellLines, ALongCellHasItsOwnAndDoesNotHideShortOnes) {
  using std::chrono::seconds;
  using Line = CellLines::Line;
  const CellLines::Time start{};
  CellLines lines(start);
  EXPECT_EQ(lines.after_cell(start, start + seconds(1)), Line::none);
  EXPECT_EQ(lines.after_cell(start, start + seconds(10)), Line::cell);
  EXPECT_TRUE(lines.owes_count()) << "the short one has had no line";
  EXPECT_EQ(lines.after_cell(start + seconds(10), start + seconds(11)), Line::count);
  EXPECT_FALSE(lines.owes_count());
}

}  // namespace
}  // namespace vla_bench::cli
