#include "claims/measure.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "claims/test_tables.h"
#include "core/error.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

using testing::accuracy_of;

Measurement measured(const Selection& selection) {
  const std::vector<Table> tables = testing::all_tables();
  const std::string place = "x.json: /criteria/0";
  return measure(select_rows(tables, selection, place), selection, place);
}

TEST(Measure, TakesIntervalAndCellsFromTheRow) {
  const Measurement found = measured(accuracy_of("vla", {24}));
  EXPECT_EQ(number(found.value), 0.9);
  EXPECT_EQ(found.low, 0.81);
  EXPECT_EQ(found.high, 0.99);
  EXPECT_EQ(found.cells, "5 of 5");
  const Measurement exponent = measured(testing::timing_of("latency_fit", "exponent", "recurrent"));
  EXPECT_EQ(exponent.low, 0.9);
  EXPECT_EQ(exponent.high, 1.1);
}

TEST(Measure, ATimingHasTheIntervalOfItsRelativeError) {
  Selection timing = testing::timing_of("latency_summary", "median_s", "recurrent");
  timing.where.columns.emplace_back("seq_len", std::vector<Value>{testing::whole(64)});
  const Measurement found = measured(timing);
  EXPECT_DOUBLE_EQ(found.low.value(), 0.49);
  EXPECT_DOUBLE_EQ(found.high.value(), 0.51);
}

TEST(Measure, SeveralRowsNeedAStatistic) {
  try {
    measured(accuracy_of("vla", {8, 24}));
    FAIL() << "two rows are not one";
  } catch (const BadInput& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("x.json: /criteria/0: 2 rows of accuracy_summary match"));
    EXPECT_NE(message.find("differ in n_pairs, accuracy_mean"), std::string::npos) << message;
  }
  const Measurement least = measured(accuracy_of("vla", {8, 24}, Reduction::min));
  EXPECT_EQ(number(least.value), 0.9);
  EXPECT_EQ(least.low, 0.81) << "of the row that decides";
  EXPECT_EQ(number(measured(accuracy_of("vla", {8, 24}, Reduction::max)).value), 1.0);
}

TEST(Measure, NanIsNoExtremeAndIsCounted) {
  const Measurement largest = measured(testing::norm_of("linear", Reduction::max));
  EXPECT_EQ(number(largest.value), 14.0);
  EXPECT_EQ(largest.without_number, 1);
  EXPECT_EQ(measured(testing::norm_of("vla", Reduction::max)).without_number, 0);
}

Measurement range(double value, double low, double high) {
  return {.value = value, .low = low, .high = high, .cells = "5 of 5"};
}

TEST(Ratio, AddsErrorsInSquaresOnLogarithms) {
  const Measurement quotient = ratio(range(30.0, 20.0, 36.0), range(10.0, 9.0, 11.0));
  EXPECT_EQ(number(quotient.value), 3.0);
  EXPECT_NEAR(std::log(3.0 / *quotient.low), std::hypot(std::log(1.5), std::log(1.1)), 1e-12);
  EXPECT_NEAR(std::log(*quotient.high / 3.0), std::hypot(std::log(1.2), std::log(10.0 / 9.0)),
              1e-12);
}

// An exact divisor only scales the ends of an interval that is cut at a bound of the quantity.
TEST(Ratio, KeepsTheEndsOfACutInterval) {
  const Measurement quotient = ratio(range(0.9, 0.5, 1.0), range(0.5, 0.5, 0.5));
  EXPECT_NEAR(quotient.low.value(), 1.0, 1e-12);
  EXPECT_NEAR(quotient.high.value(), 2.0, 1e-12);
  const Measurement over = ratio(range(0.5, 0.5, 0.5), range(0.9, 0.5, 1.0));
  EXPECT_NEAR(over.low.value(), 0.5, 1e-12);
  EXPECT_NEAR(over.high.value(), 1.0, 1e-12);
}

TEST(Ratio, StaysAboveZeroAndIsOpenWhereTheDivisorMayBeZero) {
  const Measurement open = ratio(range(0.1, 0.0, 0.4), range(0.2, 0.0, 0.9));
  EXPECT_EQ(open.low, 0.0);
  EXPECT_EQ(open.high, std::numeric_limits<double>::infinity());
}

TEST(Ratio, HasNoIntervalWhereOneIsMissingAndNoValueOverZero) {
  EXPECT_EQ(ratio({.value = 1.0}, {.value = 0.0}).value, Value());
  const Measurement quotient = ratio({.value = 1.0}, range(2.0, 1.9, 2.1));
  EXPECT_EQ(number(quotient.value), 0.5);
  EXPECT_FALSE(quotient.low.has_value());
  EXPECT_FALSE(ratio(range(-1.0, -1.1, -0.9), range(2.0, 1.9, 2.1)).low.has_value());
}

TEST(Ratio, SaysHowManyCellsAreBehindEach) {
  EXPECT_EQ(ratio(range(1, 1, 1), range(1, 1, 1)).cells, "5 of 5");
  Measurement three = range(1, 1, 1);
  three.cells = "3 of 5";
  EXPECT_EQ(ratio(three, range(1, 1, 1)).cells, "3 of 5 over 5 of 5");
}

}  // namespace
}  // namespace vla_bench
