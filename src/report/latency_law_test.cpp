#include "report/latency_law.h"

#include <gtest/gtest.h>

#include <cmath>

namespace vla_bench {
namespace {

using Timings = std::vector<LatencyPoint>;

constexpr double kError = 1e-3;

Timings power_law(double scale, double exponent, std::initializer_list<double> lengths,
                  std::optional<double> error = kError) {
  Timings points;
  for (const double tokens : lengths) {
    points.push_back({tokens, scale * std::pow(tokens, exponent), error});
  }
  return points;
}

Timings timed(std::initializer_list<std::pair<double, double>> timings,
              std::optional<double> error = kError) {
  Timings points;
  for (const auto& [tokens, seconds] : timings) points.push_back({tokens, seconds, error});
  return points;
}

TEST(LatencyLaw, ErrorOfAMedian) {
  EXPECT_NEAR(*timing_error(0.02, 1.0, {}, {}, 200), 0.02 / 1.959963984540054, 1e-15);
  EXPECT_NEAR(*timing_error({}, 2.0, 1.9, 2.2, 25), 1.2533 * 0.3 / 2.5631 / 5 / 2, 1e-15);
  EXPECT_FALSE(timing_error({}, 2.0, 2.0, 2.0, 1)) << "one repeat";
  EXPECT_FALSE(timing_error({}, 2.0, {}, 2.0, 25));
}

TEST(LatencyLaw, FitsTheLongLengthsWhenThereAreThree) {
  Timings points = power_law(1e-6, 2.0, {512, 1024, 2048});
  points.insert(points.begin(), {64, 1.0, kError});  // a fixed cost
  const LatencyLine line = fit_latency(points);
  EXPECT_EQ(line.first, 512);
  EXPECT_EQ(line.last, 2048);
  EXPECT_EQ(line.fitted, 3);
  EXPECT_NEAR(line.law->power_law().exponent, 2.0, 1e-12);
}

TEST(LatencyLaw, FitsAllLengthsOtherwise) {
  const LatencyLine line = fit_latency(power_law(1e-6, 1.0, {128, 256, 512, 1024}));
  EXPECT_EQ(line.first, 128);
  EXPECT_EQ(line.fitted, 4);
  EXPECT_FALSE(fit_latency(timed({{128, 1.0}})).law);
  EXPECT_FALSE(fit_latency({}).law);
}

TEST(LatencyLaw, ExponentsErrFromTheTimingsOnTheLine) {
  // Two lengths, a factor 2 apart: half = 1.96 sqrt(2) e / ln 2.
  const Exponent two = exponent_of(fit_latency(power_law(1e-6, 1.5, {512, 1024}, 0.01)));
  EXPECT_NEAR(*two.value, 1.5, 1e-12);
  EXPECT_NEAR(two.interval->high - 1.5, 1.959963984540054 * std::sqrt(2.0) * 0.01 / std::log(2.0),
              1e-12);
  EXPECT_EQ(two.note, "");
  // Without residuals only the errors of the timings count.
  const Exponent three = exponent_of(fit_latency(power_law(1e-6, 1.5, {512, 1024, 2048}, 0.01)));
  EXPECT_NEAR(three.interval->high - 1.5,
              1.959963984540054 * 0.01 / (std::sqrt(2.0) * std::log(2.0)), 1e-12);
}

TEST(LatencyLaw, ExponentsErrFromResidualsOffTheLine) {
  // y = (0, d, 0) at x = (-1, 0, 1) ln 2: residuals (-d, 2d, -d) / 3, s = d sqrt(6) / 3.
  const double d = 0.01;
  const Exponent exponent =
      exponent_of(fit_latency(timed({{512, 1.0}, {1024, std::exp(d)}, {2048, 1.0}}, 1e-6)));
  EXPECT_NEAR(*exponent.value, 0.0, 1e-12);
  EXPECT_NEAR(exponent.interval->high,
              12.70620473617471 * d * std::sqrt(6.0) / 3.0 / (std::sqrt(2.0) * std::log(2.0)),
              1e-9);
}

TEST(LatencyLaw, ExponentsThatCannotBeKnownAreUnknown) {
  // T = 16 and 17: 1% of a timing is 0.46 of the exponent.
  const Exponent near = exponent_of(fit_latency(power_law(1e-6, 1.0, {16, 17}, 0.01)));
  EXPECT_FALSE(near.value);
  EXPECT_EQ(near.note, "unknown: between 0.54 and 1.5");
  EXPECT_NEAR(near.interval->low, 0.543, 1e-3);
  const Exponent once = exponent_of(fit_latency(power_law(1e-6, 1.0, {512, 1024}, {})));
  EXPECT_FALSE(once.value);
  EXPECT_EQ(once.note, "unknown: timings of one repeat have no error");
  EXPECT_FALSE(once.interval);
  EXPECT_EQ(exponent_of(fit_latency(timed({{512, 1.0}}))).note, "unknown: fewer than 2 lengths");
}

TEST(LatencyLaw, MeasuredCrossoverIsInterpolated) {
  const LatencyLine softmax = fit_latency(power_law(1e-6, 2.0, {512, 1024, 2048, 4096}));
  const LatencyLine mixer = fit_latency(power_law(1e-3, 1.0, {512, 1024, 2048, 4096}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 1000) << "log-log interpolation is exact for power laws";
  // The ratio falls by its own size: its error is that of ln T.
  const double half = 1.959963984540054 * std::sqrt(2.0) * kError;
  EXPECT_EQ(crossover.low, std::round(1000 * std::exp(-half)));
  EXPECT_EQ(crossover.high, std::round(1000 * std::exp(half)));
}

TEST(LatencyLaw, MeasuredCrossoverIsTheLastOne) {
  const LatencyLine softmax = fit_latency(timed({{64, 1.0}, {128, 1.0}, {256, 1.0}, {512, 4.0}}));
  const LatencyLine mixer = fit_latency(timed({{64, 0.5}, {128, 2.0}, {256, 2.0}, {512, 2.0}}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 362) << "256 sqrt(2)";
}

TEST(LatencyLaw, CheaperEverywhereIsSaidAndHasNoLowerBound) {
  const LatencyLine softmax = fit_latency(power_law(2e-6, 2.0, {512, 1024, 2048}));
  const LatencyLine mixer = fit_latency(power_law(1e-6, 1.0, {512, 1024, 2048}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 512);
  EXPECT_FALSE(crossover.low);
  EXPECT_EQ(crossover.high, 512);
  EXPECT_FALSE(crossover.note.empty());
}

TEST(LatencyLaw, CrossoversWithinTheErrorsAreUnknown) {
  const LatencyLine softmax = fit_latency(timed({{512, 1.0}, {1024, 2.0}}, 0.05));
  const Crossover cheaper =
      find_crossover(fit_latency(timed({{512, 1.5}, {1024, 1.95}}, 0.05)), softmax);
  EXPECT_EQ(cheaper.basis, "unknown");
  EXPECT_FALSE(cheaper.seq_len);
  EXPECT_EQ(cheaper.note,
            "at 1024 tokens, the longest, the times differ by less than their errors");
  const Crossover dearer =
      find_crossover(fit_latency(timed({{512, 1.5}, {1024, 2.05}}, 0.05)), softmax);
  EXPECT_EQ(dearer.basis, "unknown");
  // One length and one repeat.
  EXPECT_EQ(
      find_crossover(fit_latency(timed({{64, 1.0}}, {})), fit_latency(timed({{64, 2.0}}, {}))).note,
      "timings of one repeat have no error");
}

// The published T4 timings and the published extrapolation of 43,401 tokens (arXiv:2605.11196).
// Softmax's 0.4 ms is rounded by up to 12%, which moves ln T* by about
// 0.026 ln(T* / 1448) / 0.83 = 0.11 through the slope and 0.04 through the level.
TEST(LatencyLaw, ReproducesThePublishedExtrapolation) {
  const LatencyLine softmax =
      fit_latency(timed({{512, 0.4e-3}, {1024, 1.2e-3}, {2048, 4.3e-3}, {4096, 16.6e-3}}));
  const LatencyLine vla =
      fit_latency(timed({{512, 15.3e-3}, {1024, 28.2e-3}, {2048, 55.6e-3}, {4096, 113.9e-3}}));
  const Crossover crossover = find_crossover(vla, softmax);
  EXPECT_EQ(crossover.basis, "extrapolated");
  EXPECT_NEAR(std::log(*crossover.seq_len / 43401.0), 0.0, 0.15);
  EXPECT_LT(*crossover.low, *crossover.seq_len);
  EXPECT_GT(*crossover.high, *crossover.seq_len);
}

TEST(LatencyLaw, ExtrapolationsErrByTheDeltaMethod) {
  // Exact laws that meet at 8,192 tokens: x* - mean x = 3 ln 2, Sxx = 2 (ln 2)^2, so each law is
  // known to 1.96 e sqrt(1 / 3 + 3^2 / 2) there; D = 1.
  const LatencyLine softmax = fit_latency(power_law(1.0, 2.0, {512, 1024, 2048}));
  const LatencyLine mixer = fit_latency(power_law(8192.0, 1.0, {512, 1024, 2048}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "extrapolated");
  EXPECT_EQ(crossover.seq_len, 8192);
  const double half =
      1.959963984540054 * kError * std::sqrt(2.0) * std::sqrt(1.0 / 3.0 + 3.0 * 3.0 / 2.0);
  EXPECT_EQ(crossover.low, std::round(8192 * std::exp(-half)));
  EXPECT_EQ(crossover.high, std::round(8192 * std::exp(half)));
}

TEST(LatencyLaw, NeverWhenTheMixerGrowsFaster) {
  const LatencyLine softmax = fit_latency(power_law(1e-6, 1.0, {512, 1024, 2048}));
  const LatencyLine mixer = fit_latency(power_law(2e-6, 1.5, {512, 1024, 2048}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "never");
  EXPECT_FALSE(crossover.seq_len);
}

TEST(LatencyLaw, ExponentsThatMayBeEqualTellNothing) {
  const LatencyLine softmax = fit_latency(power_law(1e-6, 1.1, {512, 1024}, 0.03));
  const LatencyLine mixer = fit_latency(power_law(4e-6, 1.0, {512, 1024}, 0.03));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "unknown");
  EXPECT_NE(crossover.note.find("0.1 +- 0.17"), std::string::npos) << crossover.note;
}

TEST(LatencyLaw, FitsThatContradictTheMeasurementGiveABound) {
  // Laws that meet at 40,000; at 65,536 softmax is still the cheaper one.
  const auto lengths = {512., 1024., 2048., 4096., 8192., 16384., 32768., 65536.};
  const LatencyLine softmax = fit_latency(power_law(1e-9, 2.0, lengths));
  Timings points = power_law(4e-5, 1.0, lengths);
  points.back().seconds = 1.2 * softmax.points.back().seconds;
  const Crossover crossover = find_crossover(fit_latency(points), softmax);
  EXPECT_EQ(crossover.basis, "extrapolated");
  EXPECT_EQ(crossover.seq_len, 65536);
  EXPECT_EQ(crossover.low, 65536);
  EXPECT_FALSE(crossover.high);
  EXPECT_NE(crossover.note.find("later"), std::string::npos);
}

TEST(LatencyLaw, OneLengthTellsNothing) {
  EXPECT_EQ(find_crossover(fit_latency(timed({{64, 2.0}})), fit_latency(timed({{64, 1.0}}))).basis,
            "unknown");
}

}  // namespace
}  // namespace vla_bench
