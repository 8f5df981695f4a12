#include "bench/stopwatch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace vla_bench {
namespace {

void sleep_ms(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(Stopwatch, CountsWarmUpAndRepeats) {
  int calls = 0;
  // No interval is narrower than zero, so only the limit stops it.
  const Timing timing = measure(
      {.warmup = 3, .min_repeats = 5, .max_repeats = 12, .relative_error = -1.0}, [&] { ++calls; });
  EXPECT_EQ(timing.repeats, 12);
  EXPECT_EQ(calls, 15);
}

TEST(Stopwatch, StopsOnceTheMedianIsKnown) {
  const Timing timing =
      measure({.min_repeats = 3, .max_repeats = 200, .relative_error = 1e9}, [] { sleep_ms(1); });
  EXPECT_EQ(timing.repeats, 6) << "six values are the fewest with a 95% interval";
}

TEST(Stopwatch, TellsHowWellTheMedianIsKnown) {
  const auto timed = [](std::vector<double> seconds, double asked) {
    std::size_t next = 0;
    const auto limit = static_cast<Index>(seconds.size());
    return repeat_until_known({.min_repeats = limit, .max_repeats = limit, .relative_error = asked},
                              [&] { return seconds[next++]; });
  };
  // Of six values the interval is the range.
  EXPECT_DOUBLE_EQ(*timed({1, 1, 1, 1, 1, 2}, 0).relative_error, 0.5);
  EXPECT_EQ(timed({3, 3, 3, 3, 3, 3}, 0).relative_error, 0.0);
  EXPECT_EQ(timed({0, 0, 0, 0, 0, 0}, 0).relative_error, 0.0);
  EXPECT_FALSE(timed({1, 1, 1, 1, 2}, 0).relative_error.has_value()) << "too few";
}

TEST(Stopwatch, StopsAfterItsTimeButKeepsTheMinimum) {
  const TimingRule rule{
      .warmup = 0, .min_repeats = 2, .max_repeats = 1000, .relative_error = -1.0, .max_seconds = 0};
  EXPECT_EQ(measure(rule, [] { sleep_ms(1); }).repeats, 2);
}

TEST(Stopwatch, EndsWhenStopped) {
  std::atomic<bool> stop = false;
  int calls = 0;
  const TimingRule rule{
      .warmup = 2, .max_repeats = 1000, .relative_error = -1.0, .max_seconds = 60, .stop = &stop};
  EXPECT_EQ(measure(rule, [&] { stop = ++calls == 5; }).repeats, 3);
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(measure(rule, [&] { ++calls; }).repeats, 0);
  EXPECT_EQ(calls, 5);
}

TEST(Stopwatch, AtLeastOneCallIsTimed) {
  const Timing timing = measure({.warmup = 0, .min_repeats = 0, .max_repeats = 0}, [] {});
  EXPECT_EQ(timing.repeats, 1);
}

// Sleeping has a lower bound and, on a busy machine, no upper one.
TEST(Stopwatch, ReportsSecondsInOrder) {
  int call = 0;
  const Timing timing = measure({.warmup = 0, .min_repeats = 11, .max_repeats = 11},
                                [&] { sleep_ms(call++ == 0 ? 40 : 2); });
  EXPECT_GE(timing.p10_s, 0.002);
  EXPECT_LE(timing.p10_s, timing.median_s);
  EXPECT_LE(timing.median_s, timing.p90_s);
  EXPECT_LT(timing.median_s, 0.040) << "the median follows the one slow call";
}

TEST(Stopwatch, TheRuleTakesAnyClock) {
  // Twenty samples of one second use up the limit; their quantiles are those of the samples.
  Index samples = 0;
  const TimingRule rule{
      .min_repeats = 2, .max_repeats = 1000, .relative_error = -1.0, .max_seconds = 20.0};
  const Timing timing = repeat_until_known(rule, [&] { return ++samples == 7 ? 1.5 : 1.0; });
  EXPECT_EQ(samples, 20);
  EXPECT_EQ(timing.repeats, 20);
  EXPECT_EQ(timing.median_s, 1.0);
  EXPECT_EQ(timing.p90_s, 1.0);
  // The rule does not warm up: every sample counts.
  samples = 0;
  repeat_until_known({.warmup = 5, .min_repeats = 3, .max_repeats = 3}, [&] {
    ++samples;
    return 1e-9;
  });
  EXPECT_EQ(samples, 3);
}

TEST(Stopwatch, SgemmRateIsPlausible) {
  const double gflops = sgemm_gflops(1);
  EXPECT_GT(gflops, 0.01);
  EXPECT_LT(gflops, 1e4);  // no core does 10 TFLOP/s
}

}  // namespace
}  // namespace vla_bench
