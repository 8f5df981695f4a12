#include "train/trainer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
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

using testing::segmented_run_config;
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

class SegmentsTest : public TrainerTest {};

INSTANTIATE_TEST_SUITE_P(Mixers, SegmentsTest, ::testing::ValuesIn(every_mixer()),
                         [](const auto& mixer) { return std::string(mixer.param.name()); });

TEST_P(SegmentsTest, NothingOfOneSizeReachesTheOther) {
  for (const TaskLayout layout : {TaskLayout::paper, TaskLayout::zoology}) {
    RunConfig config = segmented_run_config(GetParam(), layout);
    // With evaluations between the steps.
    config.train.stop_accuracy = 1.0;
    config.train.stop_every = 2;
    SmallRun<float> run(config);
    EXPECT_EQ(run.train().steps_done, 9);
    EXPECT_EQ(run.values(), testing::train_on_new_models<float>(config, run.context))
        << enum_name(layout);
  }
}

TEST_P(SegmentsTest, EvaluatesEachSliceOnItsOwnBatches) {
  const RunConfig config = segmented_run_config(GetParam(), TaskLayout::zoology);
  SmallRun<float> run(config);
  Evaluation<float> evaluation(run.context, config, run.model, RngStream::eval_batch);
  const std::vector<LossResult> results = evaluation.run();
  ASSERT_EQ(results.size(), 3u);
  Index index = 0;
  for (std::size_t i = 0; const Slice& slice : eval_slices(config)) {
    double loss = 0.0;
    for (Index batches = 0; batches < config.eval.batches; ++batches) {
      SmallRun<float> fresh(config);
      Batch batch;
      make_batch(slice.config, RngStream::eval_batch, index++, config.eval.batch, batch);
      loss += fresh.model.evaluate(batch).loss / static_cast<double>(config.eval.batches);
    }
    EXPECT_DOUBLE_EQ(results[i].loss, loss) << slice.name;
    ++i;
  }
  EXPECT_EQ(results[1].count, 2 * 3 * 4);  // batches x rows x pairs
  const std::vector<LossResult> again = evaluation.run();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(again[i].loss, results[i].loss);
  EXPECT_DOUBLE_EQ(mean_of(results).loss,
                   (results[0].loss + results[1].loss + results[2].loss) / 3.0);
}

TEST(Segments, ResumeAtAnyStep) {
  for (const SegmentOrder order : {SegmentOrder::in_order, SegmentOrder::shuffled}) {
    RunConfig config = segmented_run_config({.options = LinearOptions{}}, TaskLayout::paper);
    config.task.segment_order = order;
    SmallRun<float> undisturbed(config);
    undisturbed.train();
    const TemporaryFolder folder;
    const std::atomic<bool> stop = true;
    TrainOutcome outcome;
    std::vector<float> reached;
    do {
      SmallRun<float> run(config);
      outcome = run.train(folder.path() / "checkpoint.safetensors", &stop);
      reached = run.values();
    } while (outcome.interrupted);
    EXPECT_EQ(outcome.steps_done, 9);
    EXPECT_EQ(reached, undisturbed.values()) << enum_name(order);
  }
}

/// A copying task that is learned in the course of its 60 steps.
RunConfig stopping_config() {
  RunConfig config = small_run_config({.options = LinearOptions{}});
  config.experiment = experiment_kind<Copy>;
  config.task.seq_len = 15;
  config.train.steps = 60;
  config.train.log_every = 7;
  config.train.stop_accuracy = 0.7;
  config.train.stop_every = 5;
  return config;
}

TEST(StopAccuracy, StopsAtTheFirstTestThatReachesIt) {
  RunConfig config = stopping_config();
  SmallRun<float> run(config);
  const TrainOutcome outcome = run.train();
  ASSERT_TRUE(outcome.stopped);
  EXPECT_LT(outcome.steps_done, 60);
  EXPECT_EQ(outcome.steps_done % 5, 0);
  EXPECT_EQ(outcome.history.back().step, outcome.steps_done);
  // On a stream of its own, and at every test before it was below.
  const auto accuracy_after = [&](Index steps) {
    config.train.stop_accuracy = 0.0;
    SmallRun<float> again(config);
    const std::atomic<bool> stop = true;
    const TemporaryFolder folder;
    for (Index done = 0; done < steps;) {
      done = again.train(folder.path() / "checkpoint.safetensors", &stop).steps_done;
    }
    Evaluation<float> test(again.context, config, again.model, RngStream::stop_batch);
    return mean_of(test.run()).accuracy;
  };
  for (Index step = 5; step < outcome.steps_done; step += 5) EXPECT_LT(accuracy_after(step), 0.7);
  EXPECT_GE(accuracy_after(outcome.steps_done), 0.7);
}

TEST(StopAccuracy, AResumedRunDoesNotTrainOn) {
  const RunConfig config = stopping_config();
  const TemporaryFolder folder;
  const std::filesystem::path checkpoint = folder.path() / "checkpoint.safetensors";
  SmallRun<float> run(config);
  const TrainOutcome outcome = run.train(checkpoint);
  ASSERT_TRUE(outcome.stopped);
  SmallRun<float> resumed(config);
  const TrainOutcome again = resumed.train(checkpoint);
  EXPECT_TRUE(again.stopped);
  EXPECT_EQ(again.steps_done, outcome.steps_done);
  EXPECT_EQ(again.train_seconds, outcome.train_seconds);
  EXPECT_EQ(resumed.values(), run.values());
}

// A run that is stopped in a test has decided nothing: the test is made again.
TEST(StopAccuracy, AnInterruptedTestIsMadeAgain) {
  const RunConfig config = stopping_config();
  SmallRun<float> undisturbed(config);
  const TrainOutcome expected = undisturbed.train();
  ASSERT_TRUE(expected.stopped);
  const TemporaryFolder folder;
  const std::filesystem::path checkpoint = folder.path() / "checkpoint.safetensors";
  const std::atomic<bool> stop = true;
  for (int sitting = 1; sitting <= 7; ++sitting) {
    SmallRun<float> run(config);
    const TrainOutcome outcome = run.train(checkpoint, &stop);
    EXPECT_TRUE(outcome.interrupted);
    EXPECT_FALSE(outcome.stopped);
    EXPECT_EQ(outcome.steps_done, std::min(sitting, 5)) << "the first test is after step 5";
  }
  SmallRun<float> resumed(config);
  const TrainOutcome outcome = resumed.train(checkpoint);
  EXPECT_TRUE(outcome.stopped);
  EXPECT_EQ(outcome.steps_done, expected.steps_done);
  EXPECT_EQ(resumed.values(), undisturbed.values());
  ASSERT_EQ(outcome.history.size(), expected.history.size());
  for (std::size_t i = 0; i < expected.history.size(); ++i) {
    EXPECT_EQ(outcome.history[i].step, expected.history[i].step);
    EXPECT_EQ(outcome.history[i].loss, expected.history[i].loss);
  }
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
  Evaluation<float> evaluation(run.context, config, run.model, RngStream::eval_batch);
  const LossResult before = evaluation.run().front();
  run.train();
  const LossResult after = evaluation.run().front();
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

TEST(Schedule, IsSteppedOnceACycle) {
  const Schedule config{.peak = 2.0, .warmup = 0, .steps = 32 * 707, .every = 707};
  for (const Index cycle : {0, 1, 16, 31}) {
    const double rate = 1.0 + std::cos(std::numbers::pi * static_cast<double>(cycle) / 32.0);
    EXPECT_DOUBLE_EQ(learning_rate(config, 707 * cycle), rate);
    EXPECT_EQ(learning_rate(config, 707 * cycle + 706), learning_rate(config, 707 * cycle));
  }
  // The warm-up is by steps; a last part may be shorter.
  const Schedule warm{.peak = 1.0, .warmup = 4, .steps = 15, .every = 4};
  EXPECT_EQ(learning_rate(warm, 1), 0.25);
  EXPECT_EQ(learning_rate(warm, 7), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(warm, 8), 0.75);  // a third of the way
  EXPECT_DOUBLE_EQ(learning_rate(warm, 14), 0.25);
}

TEST(Schedule, AClipNormOfZeroDoesNotClip) { EXPECT_EQ(clip_factor(1e9, 0.0), 1.0); }

TEST(Schedule, ClippingIsTorchs) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_factor(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_factor(0.0, 1.0), 1.0);
}

}  // namespace
}  // namespace vla_bench
