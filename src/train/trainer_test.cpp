#include "train/trainer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <numbers>

#include "core/files.h"
#include "core/text.h"
#include "experiments/list.h"
#include "testing/small_runs.h"
#include "testing/temporary_folder.h"
#include "train/checkpoint.h"

namespace vla_bench {
namespace {

using testing::small_run_config;
using testing::SmallRun;
using testing::TemporaryFolder;

class TrainerTest : public ::testing::TestWithParam<MixerConfig> {};

INSTANTIATE_TEST_SUITE_P(Mixers, TrainerTest, ::testing::ValuesIn(every_mixer()),
                         [](const auto& mixer) { return std::string(mixer.param.name()); });

TEST_P(TrainerTest, SameBitsOnAnyThreads) {
  RunConfig config = small_run_config(GetParam());
  config.train.steps = 3;
  SmallRun<float> one(config, 1);
  SmallRun<float> two(config, 2);
  SmallRun<float> three(config, 3);
  one.train();
  two.train();
  three.train();
  EXPECT_EQ(one.values(), two.values());
  EXPECT_EQ(one.values(), three.values());
}

// A run that is stopped and resumed after every step must not differ in any bit.
TEST_P(TrainerTest, StoppedAndResumedRunReachesTheSameBits) {
  const RunConfig config = small_run_config(GetParam());
  SmallRun<float> undisturbed(config);
  const TrainOutcome expected = undisturbed.train();
  EXPECT_FALSE(expected.interrupted);

  const TemporaryFolder folder;
  const std::filesystem::path checkpoint = folder.path() / "checkpoint.safetensors";
  const std::atomic<bool> stop = true;
  TrainOutcome outcome;
  int sittings = 0;
  double seconds = 0.0;
  do {
    SmallRun<float> run(config);
    outcome = run.train(checkpoint, &stop);
    ++sittings;
    EXPECT_EQ(outcome.steps_done, sittings);
    EXPECT_GT(outcome.train_seconds, seconds);  // summed over the resumed runs
    seconds = outcome.train_seconds;
    if (outcome.interrupted) continue;
    EXPECT_EQ(run.values(), undisturbed.values());
  } while (outcome.interrupted && sittings < 100);
  EXPECT_EQ(sittings, config.train.steps);

  ASSERT_EQ(outcome.history.size(), expected.history.size());
  for (std::size_t i = 0; i < expected.history.size(); ++i) {
    EXPECT_EQ(outcome.history[i].step, expected.history[i].step);
    EXPECT_EQ(outcome.history[i].loss, expected.history[i].loss);
    EXPECT_EQ(outcome.history[i].accuracy, expected.history[i].accuracy);
    EXPECT_EQ(outcome.history[i].lr, expected.history[i].lr);
    EXPECT_EQ(outcome.history[i].gradient_norm, expected.history[i].gradient_norm);
  }

  // A finished run is only loaded.
  SmallRun<float> again(config);
  EXPECT_EQ(again.train(checkpoint).train_seconds, seconds);
  EXPECT_EQ(again.values(), undisturbed.values());
}

// A killed run leaves its last periodic checkpoint (step 6 of 7).
TEST_P(TrainerTest, KilledRunReachesTheSameBits) {
  const RunConfig config = small_run_config(GetParam());
  SmallRun<float> undisturbed(config);
  undisturbed.train();

  const TemporaryFolder folder;
  const std::filesystem::path checkpoint = folder.path() / "checkpoint.safetensors";
  struct Killed {};
  SmallRun<float> killed(config);
  const auto kill = [](const TrainProgress& progress) {
    if (progress.step == progress.steps) throw Killed();
  };
  EXPECT_THROW(killed.train(checkpoint, nullptr, kill), Killed);

  SmallRun<float> resumed(config);
  const TrainOutcome outcome = resumed.train(checkpoint);
  EXPECT_EQ(outcome.steps_done, 7);
  EXPECT_EQ(outcome.history.size(), 3u);
  EXPECT_EQ(resumed.values(), undisturbed.values());
}

// A checkpoint that cannot be used costs its steps, but changes no bit of the result.
TEST(Trainer, StartsAnewFromACheckpointOfNoUse) {
  SmallRun<float> undisturbed;
  undisturbed.train();
  const auto expect_new_start = [&](const char* damage, const auto& damaged) {
    SCOPED_TRACE(damage);
    const TemporaryFolder folder;
    const std::filesystem::path checkpoint = folder.path() / "checkpoint.safetensors";
    const std::atomic<bool> stop = true;
    SmallRun<float> first;
    EXPECT_EQ(first.train(checkpoint, &stop).warning, "");
    damaged(checkpoint);

    SmallRun<float> again;
    const TrainOutcome outcome = again.train(checkpoint);
    EXPECT_NE(outcome.warning.find(".safetensors"), std::string::npos) << outcome.warning;
    EXPECT_NE(outcome.warning.find("starts at step 0"), std::string::npos) << outcome.warning;
    EXPECT_EQ(outcome.steps_done, 7);
    EXPECT_EQ(outcome.history.size(), 3u);
    EXPECT_EQ(again.values(), undisturbed.values());

    SmallRun<float> finished;
    EXPECT_EQ(finished.train(checkpoint).warning, "") << "the new checkpoint replaces the old one";
    EXPECT_EQ(finished.values(), undisturbed.values());
  };
  using Path = std::filesystem::path;
  expect_new_start("cut off", [](const Path& checkpoint) {
    write_file_atomically(checkpoint, read_file(checkpoint).substr(0, 1000));
  });
  expect_new_start("not safetensors",
                   [](const Path& checkpoint) { write_file_atomically(checkpoint, "weights"); });
  expect_new_start("optimiser lost to another process", [](const Path& checkpoint) {
    std::filesystem::remove(optimiser_path(checkpoint, 1));
  });
  expect_new_start("optimiser cut off", [](const Path& checkpoint) {
    write_file_atomically(optimiser_path(checkpoint, 1), "");
  });
  expect_new_start("of another config", [](const Path& checkpoint) {
    RunConfig config = small_run_config();
    config.train.lr = 0.5;
    const std::atomic<bool> stop = true;
    std::filesystem::remove(checkpoint);
    SmallRun<float>(config).train(checkpoint, &stop);
  });
}

TEST(Trainer, HistoryHoldsEveryThirdStepAndTheLast) {
  SmallRun<float> run;
  const TrainOutcome outcome = run.train();
  ASSERT_EQ(outcome.history.size(), 3u);
  EXPECT_EQ(outcome.history[0].step, 3);
  EXPECT_EQ(outcome.history[1].step, 6);
  EXPECT_EQ(outcome.history[2].step, 7);
  EXPECT_EQ(outcome.history[0].lr, learning_rate(schedule_of(run.config.train), 2));
  EXPECT_FALSE(outcome.diverged);
  EXPECT_EQ(outcome.steps_done, 7);
}

// Training seconds are part of the elapsed seconds, in one run and over resumed ones.
TEST(Trainer, TrainSecondsAreCountedOnce) {
  RunConfig config = small_run_config({.options = LinearOptions{}});
  config.train.steps = 12000;  // progress, which stops the first run, comes after 0.1 s
  config.train.checkpoint_every = 0;
  const TemporaryFolder folder;
  double passed = 0.0;
  TrainOutcome outcome;
  for (const bool first : {true, false}) {
    SmallRun<float> run(config);
    std::atomic<bool> stop = false;
    const auto start = std::chrono::steady_clock::now();
    outcome = run.train(folder.path() / "checkpoint.safetensors", &stop,
                        [&](const TrainProgress&) { stop = first; });
    passed += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_LE(outcome.train_seconds, passed);
    ASSERT_EQ(outcome.interrupted, first);
  }
  EXPECT_EQ(outcome.steps_done, 12000);
  // Training takes most of the time, so that counting any step twice would fail the check above.
  EXPECT_GT(outcome.train_seconds, 0.5 * passed);
}

TEST(Trainer, LearnsToCopy) {
  RunConfig config = small_run_config({.options = LinearOptions{}});
  config.experiment = experiment_kind<Copy>;
  config.task.seq_len = 15;
  config.train.steps = 60;
  SmallRun<float> run(config);
  const LossResult before = evaluate<float>(run.context, config, run.model);
  run.train();
  const LossResult after = evaluate<float>(run.context, config, run.model);
  EXPECT_EQ(before.count, 2 * 3 * 7);  // batches x rows x copied tokens
  EXPECT_EQ(after.count, before.count);
  EXPECT_GT(before.loss, 2.0);  // guessing among 16 tokens costs log 16 = 2.77
  EXPECT_LT(after.loss, 0.5 * before.loss);
  EXPECT_GT(after.accuracy, before.accuracy);
}

TEST(Trainer, DivergenceEndsTheRunAndNamesTheStep) {
  RunConfig config = small_run_config({.options = LinearOptions{}});
  config.train.lr = 1e30;
  SmallRun<float> run(config);
  const TemporaryFolder folder;
  const TrainOutcome outcome = run.train(folder.path() / "checkpoint.safetensors");
  EXPECT_TRUE(outcome.diverged);
  EXPECT_LT(outcome.steps_done, config.train.steps);
  const std::string step = "at step " + std::to_string(outcome.steps_done + 1);
  EXPECT_NE(outcome.reason.find(step), std::string::npos) << outcome.reason;
}

TEST(Trainer, NansAreNamedWithoutTheirSign) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(fmt::format("{}", without_nan_sign(-nan)), "nan");
  EXPECT_EQ(fmt::format("{}", without_nan_sign(-1.5)), "-1.5");
}

TEST(Trainer, GradientThatIsNotFiniteMovesNothing) {
  SmallRun<float> run;
  OptimiserState<float> optimiser(run.context, run.model.values().size());
  const auto step = [&] {
    request_optimiser_step(run.context, run.config.train, run.model, optimiser);
    return optimiser.read();
  };
  EXPECT_EQ(step().step, 1);
  const auto before = run.values();
  run.model.gradients()[3] = std::numeric_limits<float>::quiet_NaN();
  const ops::TrainingState state = step();
  EXPECT_TRUE(std::isnan(state.gradient_norm));
  EXPECT_EQ(state.diverged, 1);
  EXPECT_EQ(state.step, 1);
  EXPECT_EQ(before, run.values());
  for (float moment : optimiser.first_moment) EXPECT_FALSE(std::isnan(moment));
}

TEST(Trainer, ProgressReachesTheLastStep) {
  SmallRun<float> run;
  TrainProgress last;
  run.train({}, nullptr, [&](const TrainProgress& progress) { last = progress; });
  EXPECT_EQ(last.step, 7);
  EXPECT_EQ(last.steps, 7);
  EXPECT_GT(last.steps_per_second, 0.0);
  EXPECT_TRUE(std::isfinite(last.loss));
}

TEST(Schedule, WarmsUpFromZeroAndDecaysToZero) {
  const Schedule config{.peak = 3e-4, .warmup = 300, .steps = 3000};
  EXPECT_EQ(learning_rate(config, 0), 0.0);
  EXPECT_DOUBLE_EQ(learning_rate(config, 150), 1.5e-4);
  EXPECT_DOUBLE_EQ(learning_rate(config, 300), 3e-4);
  EXPECT_NEAR(learning_rate(config, 1650), 1.5e-4, 1e-18);  // half way down
  EXPECT_DOUBLE_EQ(learning_rate(config, 975), 3e-4 * 0.5 * (1 + std::cos(std::numbers::pi / 4)));
  EXPECT_LT(learning_rate(config, 2999), 1e-9);
}

TEST(Schedule, DegenerateWarmups) {
  Schedule config{.peak = 1.0, .warmup = 0, .steps = 10};
  EXPECT_EQ(learning_rate(config, 0), 1.0);
  config.warmup = 10;
  EXPECT_DOUBLE_EQ(learning_rate(config, 9), 0.9);
}

TEST(Schedule, ClippingIsTorchs) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_factor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_factor(0.0, 1.0), 1.0);
}

}  // namespace
}  // namespace vla_bench
