#include "experiments/recall.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/statistics.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::cell_of;
using testing::on_threads;

constexpr Index kTrials = 200;

CellConfig recall_cell(const std::string& mixer, Index n_pairs, const std::string& keys,
                       Index trials = kTrials) {
  return cell_of(fmt::format(
      R"({{"experiment": "recall", "mixers": [{}], "model": {{"d_h": 32}}, "seeds": [7],
           "task": {{"n_pairs": {}}}, "recall": {{"trials": {}, "keys": "{}"}}}})",
      mixer, n_pairs, trials, keys));
}

struct PublishedFigure {
  const char* mixer;
  Index n_pairs;
  const char* keys;
  double accuracy;
};

const char* const kVlaKey = R"({"mixer": "vla", "penalty": "key", "u_scale": 1})";
const char* const kLeastSquares =
    R"({"mixer": "vla", "penalty": "key", "u_scale": 1, "write": "raw"})";

// The figures that recall.h states, each from 20 trials and rounded to two digits.
const PublishedFigure kFigures[] = {
    {R"("linear")", 8, "feature", .36},     {R"("linear")", 32, "feature", .07},
    {R"("deltanet")", 8, "feature", .15},   {R"("deltanet")", 32, "feature", .07},
    {R"("vla")", 8, "feature", .13},        {R"("vla")", 32, "feature", .05},
    {kVlaKey, 8, "feature", 1.00},          {kVlaKey, 32, "feature", 1.00},
    {kVlaKey, 64, "feature", .89},          {kLeastSquares, 32, "feature", 1.00},
    {kLeastSquares, 64, "feature", .93},    {R"("linear")", 32, "gaussian", .97},
    {R"("deltanet")", 32, "gaussian", .79}, {R"("vla")", 32, "gaussian", .87},
    {kVlaKey, 32, "gaussian", 1.00},
};

TEST(Recall, MeetsTheStatedFiguresWithinSamplingError) {
  for (const PublishedFigure& figure : kFigures) {
    const CellConfig cell = recall_cell(figure.mixer, figure.n_pairs, figure.keys);
    const std::vector<double> accuracies = recall_accuracies(cell.config, {Device::cpu, 2});
    const Statistics spread = statistics(accuracies);
    // Both are sample means of the same distribution: the difference has variance
    // s^2 (1 / 20 + 1 / trials); four of its standard deviations, and half a unit of the rounding.
    const double tolerance =
        4.0 * spread.standard_deviation * std::sqrt(1.0 / 20.0 + 1.0 / kTrials) + 0.005;
    EXPECT_NEAR(spread.mean, figure.accuracy, tolerance)
        << figure.mixer << " n = " << figure.n_pairs << " keys " << figure.keys;
  }
}

/// Mean accuracy on 4 pairs of Gaussian keys behind a stream of other pairs.
double behind(Index stream, const std::string& mixer) {
  const CellConfig cell = cell_of(fmt::format(
      R"({{"experiment": "recall", "mixers": [{}], "model": {{"d_h": 32}}, "seeds": [7],
           "task": {{"n_pairs": 4}},
           "recall": {{"trials": 20, "keys": "gaussian", "stream": {}}}}})",
      mixer, stream));
  return statistics(recall_accuracies(cell.config, {Device::cpu, 2})).mean;
}

TEST(Recall, AStreamBeforeThePairsCostsWhatKeepsIt) {
  // More than one block, and a part of one.
  constexpr Index kStream = 2500;
  const char* const delta = R"({"mixer": "deltanet", "variant": "standard"})";
  const std::string rls = R"({"mixer": "vla", "penalty": "key", "u_scale": 1, "write": "raw",
                              "period": 0, "normaliser": "none"})";
  for (const std::string& mixer : {std::string(R"("linear")"), std::string(delta), rls}) {
    EXPECT_GT(behind(0, mixer), 0.95) << mixer;
  }
  // The sum of 2,500 values has a length of 50 along any key, and least squares takes the new pair
  // for one of 2,500: both answers are noise. A delta step leaves the last value.
  EXPECT_LT(behind(kStream, R"("linear")"), 0.25);
  EXPECT_LT(behind(kStream, rls), 0.25);
  EXPECT_GT(behind(kStream, delta), 0.9);
}

TEST(Recall, DoesNotDependOnThreads) {
  const CellConfig cell = recall_cell(R"("vla")", 8, "feature", 21);
  EXPECT_EQ(recall_accuracies(cell.config, {Device::cpu, 1}),
            recall_accuracies(cell.config, {Device::cpu, 3}));
}

TEST(Recall, OneStoredPairIsAlwaysRecalled) {
  for (const char* mixer :
       {R"("softmax")", R"("linear")", R"("deltanet")", R"("vla")",
        R"({"mixer": "deltanet", "variant": "standard"})",
        R"({"mixer": "vla", "penalty": "frozen"})", R"({"mixer": "vla", "residual": "write"})"}) {
    const CellResult result = run_cell(recall_cell(mixer, 1, "feature", 30), on_threads(1));
    EXPECT_EQ(result.status, CellStatus::ok);
    ASSERT_EQ(result.table.rows.size(), 1U);
    EXPECT_EQ(testing::number(result.table, 0, "accuracy"), 1.0) << mixer;
    // 30 trials of one draw each, all right: p = 2 / 3 by Laplace's rule.
    EXPECT_NEAR(testing::number(result.table, 0, "low"),
                1.0 - student_t_quantile_975(29) * std::sqrt(2.0 / 9.0 / 30.0), 1e-12)
        << mixer;
    EXPECT_EQ(testing::number(result.table, 0, "high"), 1.0) << mixer;
    EXPECT_EQ(result.table.rows[0][result.table.column("seed")], Value(std::int64_t{7})) << mixer;
  }
}

// Keys are the same, so that wider values only make the codes of other pairs easier to tell apart.
TEST(Recall, ValuesMayBeWiderThanKeys) {
  for (const char* mixer : {R"("gated_deltanet")", R"("vla")", R"("kalman")", R"("mesa")"}) {
    SCOPED_TRACE(mixer);
    const auto accuracy = [mixer](const char* model) {
      const CellConfig cell =
          cell_of(fmt::format(R"({{"experiment": "recall", "mixers": [{}], "model": {},
                         "seeds": [7], "task": {{"n_pairs": 24}},
                         "recall": {{"trials": {}, "keys": "gaussian"}}}})",
                              mixer, model, kTrials));
      return statistics(recall_accuracies(cell.config, {Device::cpu, 2})).mean;
    };
    const double narrow = accuracy(R"({"d_h": 16})");
    EXPECT_GT(accuracy(R"({"d_h": 16, "d_v": 64})"), narrow + (1.0 - narrow) / 4.0);
    EXPECT_EQ(accuracy(R"({"d_h": 16, "d_v": 16})"), narrow);
  }
}

TEST(Recall, StopsBetweenTrials) {
  const std::atomic<bool> stop = true;
  CellEnvironment environment = on_threads(2);
  environment.stop = &stop;
  // Hours of work, were it not stopped.
  const CellConfig cell = recall_cell(R"("linear")", 100'000, "feature", 1'000'000);
  EXPECT_EQ(run_cell(cell, environment).status, CellStatus::interrupted);
}

TEST(Recall, OneTrialHasNoInterval) {
  const CellResult result = run_cell(recall_cell(R"("linear")", 8, "feature", 1), on_threads(1));
  EXPECT_TRUE(testing::is_empty(result.table, 0, "low"));
  EXPECT_TRUE(testing::is_empty(result.table, 0, "high"));
}

}  // namespace
}  // namespace vla_bench
