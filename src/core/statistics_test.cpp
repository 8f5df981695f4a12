#include "core/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace vla_bench {
namespace {

// Inverse incomplete beta function at 30 digits. 1e-12 leaves room for the roundings of sums of up
// to 500 terms near 1, divided by the density at the quantile (0.004 for one degree of freedom).
TEST(Statistics, StudentQuantiles) {
  EXPECT_NEAR(student_t_quantile_975(1), 12.70620473617471, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(2), 4.302652729749464, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(3), 3.182446305283710, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(4), 2.776445105197794, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(9), 2.262157162798206, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(30), 2.042272456301238, 1e-12);
  EXPECT_NEAR(student_t_quantile_975(100), 1.983971518523552, 1e-12);
  EXPECT_THROW(student_t_quantile_975(0), std::invalid_argument);
}

TEST(Statistics, StudentQuantileIsSmoothWhereTheFormulaChanges) {
  // The expansion's next term is below 1e-12.
  const double exact = student_t_quantile_975(1000);
  const double expansion = student_t_quantile_975(1001);
  EXPECT_NEAR(exact, 1.962339080826408, 1e-11);
  EXPECT_NEAR(expansion, 1.962336705280880, 1e-11);
  EXPECT_NEAR(student_t_quantile_975(1'000'000'000), 1.959963984540054, 1e-8);
}

TEST(Statistics, MeanDeviationAndInterval) {
  const std::vector<double> values = {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0};
  const Statistics result = statistics(values);
  EXPECT_EQ(result.count, 8);
  EXPECT_DOUBLE_EQ(result.mean, 5.0);
  EXPECT_DOUBLE_EQ(result.standard_deviation, std::sqrt(32.0 / 7.0));
  EXPECT_NEAR(result.ci95, 2.364624251592785 * std::sqrt(32.0 / 7.0 / 8.0), 1e-12);
}

TEST(Statistics, OneValueHasNoSpreadAndNoneIsEmpty) {
  const std::vector<double> one = {3.5};
  const Statistics single = statistics(one);
  EXPECT_EQ(single.count, 1);
  EXPECT_EQ(single.mean, 3.5);
  EXPECT_EQ(single.standard_deviation, 0.0);
  EXPECT_EQ(single.ci95, 0.0);
  EXPECT_EQ(statistics({}).count, 0);
}

TEST(Statistics, IntervalsAreStudentsInsideTheRange) {
  const std::vector<double> values = {0.9, 1.0, 0.8};
  const auto interval = mean_interval_95(statistics(values), 0.0, {0.0, kUnbounded});
  const double half = 4.302652729749464 * 0.1 / std::sqrt(3.0);
  EXPECT_NEAR(interval->low, 0.9 - half, 1e-12);
  EXPECT_NEAR(interval->high, 0.9 + half, 1e-12);
  EXPECT_EQ(mean_interval_95(statistics(values), 0.0, kFractions)->high, 1.0);
  const std::vector<double> one = {0.5};
  EXPECT_FALSE(mean_interval_95(statistics(one), 1.0, kFractions));
}

TEST(Statistics, IntervalsOfObservationsThatAgreeAreNotZeroWide) {
  const std::vector<double> values = {1.0, 1.0, 1.0, 1.0};
  const double variance = fraction_variance(1.0, 8.0);  // Laplace: p = 9 / 10
  EXPECT_NEAR(variance, 0.09 / 8.0, 1e-16);
  const auto interval = mean_interval_95(statistics(values), variance, kFractions);
  EXPECT_NEAR(interval->low, 1.0 - 3.182446305283710 * std::sqrt(variance / 4.0), 1e-12);
  EXPECT_EQ(interval->high, 1.0);
  EXPECT_GT(fraction_variance(0.0, 1e9), 0.0);
}

TEST(Statistics, QuantilesInterpolate) {
  const std::vector<double> values = {4.0, 1.0, 3.0, 2.0};
  EXPECT_DOUBLE_EQ(quantile(values, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 3.7);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 4.0);
  EXPECT_DOUBLE_EQ(quantile({7.0}, 0.1), 7.0);
  EXPECT_THROW(quantile({}, 0.5), std::invalid_argument);
}

// Ranks from tables of the sign test: n = 6 -> 1st and 6th, n = 10 -> 2nd and 9th,
// n = 25 -> 8th and 18th, n = 100 -> 40th and 61st.
TEST(Statistics, MedianIntervals) {
  const auto interval = [](int count) {
    std::vector<double> values;
    for (int i = count; i >= 1; --i) values.push_back(i);
    return median_interval_95(values);
  };
  EXPECT_FALSE(interval(0));
  EXPECT_FALSE(interval(5));
  EXPECT_EQ(interval(6), std::pair(1.0, 6.0));
  EXPECT_EQ(interval(10), std::pair(2.0, 9.0));
  EXPECT_EQ(interval(25), std::pair(8.0, 18.0));
  EXPECT_EQ(interval(100), std::pair(40.0, 61.0));
}

TEST(Statistics, PowerLawsAreRecovered) {
  const std::vector<double> x = {512, 1024, 2048, 4096};
  std::vector<double> y;
  for (const double value : x) y.push_back(3e-7 * std::pow(value, 1.8));
  const PowerLaw law = fit_power_law(x, y);
  EXPECT_NEAR(law.exponent, 1.8, 1e-12);
  EXPECT_NEAR(law.scale / 3e-7, 1.0, 1e-11);
}

// The published T4 timings (T = 512 to 4,096; arXiv:2605.11196) have the published exponents 1.80
// and 0.97. The latter holds to its last digit; the former rests on 0.4 ms, known to 12%, which
// weighs 0.216 in the slope: 0.026.
TEST(Statistics, PowerLawsOfThePublishedTimings) {
  const std::vector<double> x = {512, 1024, 2048, 4096};
  EXPECT_NEAR(fit_power_law(x, {0.4, 1.2, 4.3, 16.6}).exponent, 1.80, 0.026);
  EXPECT_NEAR(fit_power_law(x, {15.3, 28.2, 55.6, 113.9}).exponent, 0.97, 0.005);
}

TEST(Statistics, PowerLawsNeedPositivePairs) {
  EXPECT_THROW(fit_power_law({1, 2}, {1}), std::invalid_argument);
  EXPECT_THROW(fit_power_law({}, {}), std::invalid_argument);
  EXPECT_THROW(fit_power_law({2, 2}, {1, 3}), std::invalid_argument);
  EXPECT_THROW(fit_power_law({1, 2}, {0, 3}), std::invalid_argument);
  EXPECT_THROW(fit_power_law({1, 2}, {std::numeric_limits<double>::infinity(), 3}),
               std::invalid_argument);
}

}  // namespace
}  // namespace vla_bench
