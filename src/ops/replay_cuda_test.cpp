// A training step of a small model made of every operation: captured once as a CUDA graph and
// replayed, it gives the same bits as launched piece by piece.
#include <array>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "testing/gpu_operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::gpu_context;
using vla_bench::testing::random_floats;
using vla_bench::testing::to_device;
using vla_bench::testing::to_host;

// Off every tile; M = 306 rows take several blocks of everything.
constexpr Index B = 6, L = 51, M = B * L, D = 36, F = 70, V = 130, K = 3, kTargets = 100,
                kChunk = 40;

/// Offsets of the parameters in one flat buffer.
constexpr Index kTokenTable = 0, kPositionTable = kTokenTable + V * D,
                kConvWeight = kPositionTable + L * D, kConvBias = kConvWeight + D * K,
                kNormWeight = kConvBias + D, kNormBias = kNormWeight + D, kUpWeight = kNormBias + D,
                kUpBias = kUpWeight + F * D, kDownWeight = kUpBias + F,
                kDownBias = kDownWeight + D * F, kParameters = kDownBias + D;

class Step {
 public:
  explicit Step(const Context& context) : context_(context) {
    std::vector<std::int32_t> tokens, rows, targets;
    Rng rng(3, RngStream::benchmark, 0, 0);
    for (Index i = 0; i < M; ++i) tokens.push_back(static_cast<std::int32_t>(rng.below(V)));
    for (Index i = 0; i < kTargets; ++i) {
      rows.push_back(static_cast<std::int32_t>(3 * i + 1));
      targets.push_back(static_cast<std::int32_t>(rng.below(V)));
    }
    tokens_ = to_device(context.device, tokens);
    rows_ = to_device(context.device, rows);
    targets_ = to_device(context.device, targets);
    for (Array<float>* array : {&parameters_, &gradients_, &first_moment_, &second_moment_}) {
      array->resize(context.device, kParameters);
    }
    for (Array<float>* array :
         {&h_, &convolved_, &normed_, &out_, &d_out_, &d_normed_, &d_convolved_, &d_h_}) {
      array->resize(context.device, M * D);
    }
    for (Array<float>* array : {&hidden_, &activated_, &d_hidden_}) {
      array->resize(context.device, M * F);
    }
    for (Array<float>* array : {&mean_, &inverse_std_}) array->resize(context.device, M);
    for (Array<float>* array : {&chosen_, &d_chosen_}) array->resize(context.device, kTargets * D);
    logits_.resize(context.device, kChunk * V);
    state_.resize(context.device, 1);
    start_again();
  }

  /// Parameters, moments and state as they were in the beginning.
  void start_again() {
    const auto fill = [&](Array<float>& array, const std::vector<double>& values) {
      const std::vector<float> host(values.begin(), values.end());
      device_copy(context_.device, array.data(), Device::cpu, host.data(),
                  static_cast<std::size_t>(array.bytes()));
    };
    fill(parameters_, random_floats(kParameters, 1, 0.3));
    fill(first_moment_, std::vector<double>(kParameters, 0.0));
    fill(second_moment_, std::vector<double>(kParameters, 0.0));
    const TrainingState state;
    device_copy(context_.device, state_.data(), Device::cpu, &state, sizeof(state));
  }

  void request() {
    fill_zero<float>(context_, gradients_.data(), kParameters);
    forward();
    backward();
    optimiser_step<float>(context_, {.parameters = parameters_.data(),
                                     .gradients = gradients_.data(),
                                     .first_moment = first_moment_.data(),
                                     .second_moment = second_moment_.data(),
                                     .count = kParameters,
                                     .schedule = {.peak = 0.01, .warmup = 1, .steps = 10},
                                     .beta1 = 0.9,
                                     .beta2 = 0.999,
                                     .epsilon = 1e-8,
                                     .weight_decay = 0.01,
                                     .clip_norm = 1.0,
                                     .state = state_.data()});
  }

  struct Outcome {
    std::vector<float> parameters, first_moment, second_moment;
    TrainingState state;
  };
  Outcome outcome() const {
    return {to_host(parameters_), to_host(first_moment_), to_host(second_moment_),
            to_host(state_).front()};
  }

 private:
  static Matrix<float> matrix(Array<float>& array, Index cols) {
    return {array.data(), array.size() / cols, cols};
  }
  Matrix<float> weight(Array<float>& flat, Index offset, Index rows, Index cols) {
    return {flat.data() + offset, rows, cols};
  }
  ShortConv<float> conv() {
    return {.batch = B,
            .tokens = L,
            .x = matrix(h_, D),
            .weight = weight(parameters_, kConvWeight, D, K),
            .bias = parameters_.data() + kConvBias};
  }

  void forward() {
    embedding_forward<float>(context_, {.tokens = tokens_.data(),
                                        .batch = B,
                                        .tokens_per_row = L,
                                        .token_table = weight(parameters_, kTokenTable, V, D),
                                        .position_table = weight(parameters_, kPositionTable, L, D),
                                        .h = matrix(h_, D)});
    short_conv_forward<float>(context_, conv(), matrix(convolved_, D));
    layer_norm_forward<float>(context_, {.x = matrix(convolved_, D),
                                         .weight = parameters_.data() + kNormWeight,
                                         .bias = parameters_.data() + kNormBias,
                                         .y = matrix(normed_, D),
                                         .mean = mean_.data(),
                                         .inverse_std = inverse_std_.data()});
    linear_forward<float>(context_, {.x = matrix(normed_, D),
                                     .weight = weight(parameters_, kUpWeight, F, D),
                                     .bias = parameters_.data() + kUpBias,
                                     .y = matrix(hidden_, F)});
    gelu_forward<float>(context_, hidden_.data(), activated_.data(), M * F);
    linear_forward<float>(context_, {.x = matrix(activated_, F),
                                     .weight = weight(parameters_, kDownWeight, D, F),
                                     .bias = parameters_.data() + kDownBias,
                                     .residual = matrix(convolved_, D),
                                     .y = matrix(out_, D)});
    gather_rows<float>(context_, matrix(out_, D), rows_.data(), matrix(chosen_, D));
    linear_cross_entropy<float>(context_, {.x = matrix(chosen_, D),
                                           .weight = weight(parameters_, kTokenTable, V, D),
                                           .targets = targets_.data(),
                                           .logits = matrix(logits_, V),
                                           .dx = matrix(d_chosen_, D),
                                           .dweight = weight(gradients_, kTokenTable, V, D),
                                           .sums = &state_.data()->loss});
  }

  void backward() {
    scatter_rows<float>(context_, matrix(d_chosen_, D), rows_.data(), matrix(d_out_, D));
    linear_backward<float>(context_, {.x = matrix(activated_, F),
                                      .weight = weight(parameters_, kDownWeight, D, F),
                                      .dy = matrix(d_out_, D),
                                      .dx = matrix(d_hidden_, F),
                                      .dweight = weight(gradients_, kDownWeight, D, F),
                                      .dbias = gradients_.data() + kDownBias,
                                      .on_side_stream = true});
    gelu_backward<float>(context_, hidden_.data(), d_hidden_.data(), d_hidden_.data(), M * F);
    linear_backward<float>(context_, {.x = matrix(normed_, D),
                                      .weight = weight(parameters_, kUpWeight, F, D),
                                      .dy = matrix(d_hidden_, F),
                                      .dx = matrix(d_normed_, D),
                                      .dweight = weight(gradients_, kUpWeight, F, D),
                                      .dbias = gradients_.data() + kUpBias,
                                      .on_side_stream = true});
    layer_norm_backward<float>(context_, {.x = matrix(convolved_, D),
                                          .weight = parameters_.data() + kNormWeight,
                                          .mean = mean_.data(),
                                          .inverse_std = inverse_std_.data(),
                                          .dy = matrix(d_normed_, D),
                                          .residual = matrix(d_out_, D),
                                          .dx = matrix(d_convolved_, D),
                                          .dweight = gradients_.data() + kNormWeight,
                                          .dbias = gradients_.data() + kNormBias,
                                          .on_side_stream = true});
    short_conv_backward<float>(context_, conv(),
                               {.dy = matrix(d_convolved_, D),
                                .dx = matrix(d_h_, D),
                                .dweight = weight(gradients_, kConvWeight, D, K),
                                .dbias = gradients_.data() + kConvBias});
    join_side_streams(context_);
    embedding_backward<float>(context_,
                              {.tokens = tokens_.data(),
                               .batch = B,
                               .tokens_per_row = L,
                               .dh = matrix(d_h_, D),
                               .dtoken_table = weight(gradients_, kTokenTable, V, D),
                               .dposition_table = weight(gradients_, kPositionTable, L, D)});
  }

  Context context_;
  Array<std::int32_t> tokens_, rows_, targets_;
  Array<float> parameters_, gradients_, first_moment_, second_moment_;
  Array<float> h_, convolved_, normed_, out_, d_out_, d_normed_, d_convolved_, d_h_;  // (M, D)
  Array<float> hidden_, activated_, d_hidden_;                                        // (M, F)
  Array<float> mean_, inverse_std_;                                                   // (M)
  Array<float> chosen_, d_chosen_;  // (kTargets, D)
  Array<float> logits_;             // (kChunk, V)
  Array<TrainingState> state_;      // (1)
};

TEST(ReplayCuda, GivesTheBitsOfEagerCalls) {
  VLA_NEEDS_GPU();
  constexpr int kSteps = 5;
  Step step(gpu_context());
  for (int i = 0; i < kSteps; ++i) step.request();
  const Step::Outcome eager = step.outcome();
  EXPECT_EQ(eager.state.step, kSteps);
  EXPECT_EQ(eager.state.diverged, 0);
  EXPECT_GT(eager.state.loss.loss, 0.0);
  EXPECT_EQ(eager.state.loss.count, kTargets);

  step.start_again();
  Replay replay(Device::cuda, [&step] { step.request(); });
  EXPECT_EQ(step.outcome().state.step, 0) << "capture runs nothing";
  for (int i = 0; i < kSteps; ++i) replay.run();
  const Step::Outcome replayed = step.outcome();
  EXPECT_EQ(replayed.parameters, eager.parameters);
  EXPECT_EQ(replayed.first_moment, eager.first_moment);
  EXPECT_EQ(replayed.second_moment, eager.second_moment);
  EXPECT_EQ(replayed.state.step, kSteps);
  EXPECT_EQ(replayed.state.loss.loss, eager.state.loss.loss);
  EXPECT_EQ(replayed.state.loss.correct, eager.state.loss.correct);
  EXPECT_EQ(replayed.state.gradient_norm, eager.state.gradient_norm);
  EXPECT_EQ(replayed.state.learning_rate, eager.state.learning_rate);
}

// A sweep's workers: some create and destroy memory and handles while others capture.
TEST(ReplayCuda, CapturesWhileOtherThreadsComeAndGo) {
  VLA_NEEDS_GPU();
  constexpr int kThreads = 6, kSteps = 3;
  const int rounds = testing::small_tests() ? 1 : 4;
  Step undisturbed(gpu_context());
  for (int i = 0; i < kSteps; ++i) undisturbed.request();
  const std::vector<float> expected = undisturbed.outcome().parameters;
  for (int round = 0; round < rounds; ++round) {
    std::array<std::vector<float>, kThreads> parameters;
    std::array<std::string, kThreads> faults;
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
          try {
            Step step(gpu_context());
            step.request();
            if (i % 2 == 1) return;  // ends while others capture
            step.start_again();
            Replay replay(Device::cuda, [&step] { step.request(); });
            for (int k = 0; k < kSteps; ++k) replay.run();
            parameters[i] = step.outcome().parameters;
          } catch (const std::exception& error) {
            faults[i] = error.what();
          }
        });
      }
    }
    for (std::size_t i = 0; i < kThreads; ++i) {
      EXPECT_EQ(faults[i], "");
      if (i % 2 == 0) {
        EXPECT_EQ(parameters[i], expected);
      }
    }
  }
}

// The test's model does train: its loss falls.
TEST(ReplayCuda, TheStepLearns) {
  VLA_NEEDS_GPU();
  Step step(gpu_context());
  step.request();
  const double first = step.outcome().state.loss.loss;
  for (int i = 0; i < 8; ++i) step.request();
  EXPECT_LT(step.outcome().state.loss.loss, 0.9 * first);
}

}  // namespace
}  // namespace vla_bench::ops
