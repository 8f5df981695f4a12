// Trainings of several sizes on a GPU, whose steps and evaluations are CUDA graphs.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "testing/gpu.h"
#include "testing/small_runs.h"

namespace vla_bench {
namespace {

using testing::gpu_context;
using testing::segmented_run_config;
using testing::SmallRun;

class TrainerCuda : public ::testing::TestWithParam<MixerConfig> {};

INSTANTIATE_TEST_SUITE_P(Mixers, TrainerCuda, ::testing::ValuesIn(every_mixer()),
                         [](const auto& mixer) { return std::string(mixer.param.name()); });

/// With evaluations, longer than any training row, between the steps.
RunConfig tested_config(const MixerConfig& mixer, TaskLayout layout) {
  RunConfig config = segmented_run_config(mixer, layout);
  config.train.stop_accuracy = 1.0;
  config.train.stop_every = 2;
  return config;
}

TEST_P(TrainerCuda, GraphsOfSeveralSizesHaveTheBitsOfNewModels) {
  VLA_NEEDS_GPU();
  for (const TaskLayout layout : {TaskLayout::paper, TaskLayout::zoology}) {
    for (const SegmentOrder order : {SegmentOrder::in_order, SegmentOrder::shuffled}) {
      RunConfig config = tested_config(GetParam(), layout);
      config.task.segment_order = order;
      SmallRun<float> run(config, gpu_context());
      EXPECT_EQ(run.train().steps_done, config.train.steps);
      EXPECT_EQ(run.values(), testing::train_on_new_models<float>(config, gpu_context()))
          << enum_name(layout) << " " << enum_name(order);
    }
  }
}

TEST_P(TrainerCuda, SizesABAAgreeWithTheCpu) {
  VLA_NEEDS_GPU();
  RunConfig config = tested_config(GetParam(), TaskLayout::zoology);
  // Small steps: AdamW's first ones have the size of the learning rate whatever the gradient, so
  // that rounding can turn the sign of the smallest.
  config.train.lr = 1e-4;
  SmallRun<float> gpu(config, gpu_context());
  SmallRun<float> cpu(config);
  const TrainOutcome actual = gpu.train();
  const TrainOutcome expected = cpu.train();
  ASSERT_EQ(actual.history.size(), 9u);
  ASSERT_EQ(expected.history.size(), 9u);
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(actual.history[i].loss, expected.history[i].loss, 1e-4) << "step " << i + 1;
    EXPECT_NEAR(actual.history[i].gradient_norm, expected.history[i].gradient_norm,
                1e-3 * expected.history[i].gradient_norm)
        << "step " << i + 1;
  }
  const auto evaluate = [&](SmallRun<float>& run) {
    return Evaluation<float>(run.context, config, run.model, RngStream::eval_batch).run();
  };
  const std::vector<LossResult> on_gpu = evaluate(gpu), on_cpu = evaluate(cpu);
  ASSERT_EQ(on_gpu.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(on_gpu[i].count, on_cpu[i].count);
    EXPECT_NEAR(on_gpu[i].loss, on_cpu[i].loss, 1e-4) << "slice " << i;
  }
}

}  // namespace
}  // namespace vla_bench
