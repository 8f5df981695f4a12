// CUDA against the CPU in double: elementwise operations, rows, the loss and the optimiser.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "testing/gpu_operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::expect_gpu_matches_cpu;
using vla_bench::testing::gpu_context;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::near;
using vla_bench::testing::Operand;
using vla_bench::testing::Outputs;
using vla_bench::testing::poison;
using vla_bench::testing::random_floats;
using vla_bench::testing::random_integers;
using vla_bench::testing::to_device;
using vla_bench::testing::to_host;

constexpr double kEps = kEpsilon<float>;

std::vector<std::int32_t> random_tokens(Index count, Index vocab) {
  Rng rng(7, RngStream::benchmark, 9, 0);
  std::vector<std::int32_t> tokens;
  for (Index i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocab))));
  }
  return tokens;
}

// `skip` elements before the buffers: 1 leaves no address that float4 could be read from.
void check_gelu(Index count, Index skip) {
  SCOPED_TRACE(::testing::Message() << "count " << count << " skip " << skip);
  const auto x = random_floats(skip + count, 1, 3.0);
  const auto dy = random_floats(skip + count, 2);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    Operand<T> x_operand(context, x), gradient(context, dy);
    Operand<T> y(context, std::vector<double>(x.size(), -1.0));
    gelu_forward<T>(context, x_operand.data() + skip, y.data() + skip, count);
    gelu_backward<T>(context, x_operand.data() + skip, gradient.data() + skip,
                     gradient.data() + skip, count);
    // 1 + erf is off by 2 eps absolutely, x and dy multiply it.
    return {{"y", y.values(), 8 * kEps}, {"dx", gradient.values(), 8 * kEps}};
  });
}

TEST(GeluCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (Index count : {1, 3, 4, 257, 1024, 5000, 4672 * 256}) {
    for (Index skip : {0, 1}) check_gelu(count, skip);
  }
}

TEST(GatedSumCuda, EqualsTheCpu) {
  VLA_NEEDS_GPU();
  for (const Index count : {1, 5, 1023, 4672 * 16}) {
    const auto value = random_integers(count, 1);
    const auto gate = random_integers(count, 2);
    const auto x = random_integers(count, 3);
    const auto residual = random_integers(count, 4);
    const auto dy = random_integers(count, 5);
    expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
      Operand<T> value_operand(context, value), gate_operand(context, gate);
      Operand<T> x_operand(context, x), residual_operand(context, residual);
      Operand<T> dy_operand(context, dy), y(context, poison(count));
      Operand<T> dvalue(context, poison(count)), dgate(context, poison(count));
      gated_sum_forward<T>(context, {.value = value_operand.data(),
                                     .gate = gate_operand.data(),
                                     .x = x_operand.data(),
                                     .residual = residual_operand.data(),
                                     .y = y.data(),
                                     .count = count});
      gated_sum_backward<T>(context, {.value = value_operand.data(),
                                      .gate = gate_operand.data(),
                                      .dy = dy_operand.data(),
                                      .dvalue = dvalue.data(),
                                      .dgate = dgate.data(),
                                      .count = count});
      return {{"y", y.values()}, {"dvalue", dvalue.values()}, {"dgate", dgate.values()}};
    });
  }
}

TEST(FillZeroCuda, ClearsItsElementsAlone) {
  VLA_NEEDS_GPU();
  Operand<float> values(gpu_context(), random_floats(5000, 1));
  fill_zero<float>(gpu_context(), values.data(), 5000);
  EXPECT_EQ(values.values(), std::vector<double>(5000, 0.0));
}

struct EmbeddingCase {
  Index B, L, V, D;
  Index gap = 0;  // 0: rows of float4 where D allows
  bool one_token = false;
  bool positions = true;
};

void check_embedding(const EmbeddingCase& c) {
  SCOPED_TRACE(::testing::Message()
               << "B " << c.B << " T " << c.L << " V " << c.V << " D " << c.D << " gap " << c.gap
               << (c.one_token ? " one token" : "") << (c.positions ? "" : " no positions"));
  const Index M = c.B * c.L;
  const Index positions = c.L + 2;
  const auto host_tokens = c.one_token ? std::vector<std::int32_t>(M, 3) : random_tokens(M, c.V);
  const auto token_table = random_floats(c.V * c.D, 1);
  const auto position_table = random_floats(positions * c.D, 2);
  const auto dh = random_integers(M * c.D, 3);
  const auto token_start = random_integers(c.V * c.D, 4);
  const auto position_start = random_integers(positions * c.D, 5);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    const auto tokens = to_device(context.device, host_tokens);
    Operand<T> token(context, c.V, c.D, c.gap, token_table);
    Operand<T> position(context, positions, c.D, c.gap, position_table);
    Operand<T> h(context, M, c.D, c.gap, poison(M * c.D));
    embedding_forward<T>(context, {.tokens = tokens.data(),
                                   .batch = c.B,
                                   .tokens_per_row = c.L,
                                   .token_table = token.view(),
                                   .position_table = c.positions ? position.view() : Matrix<T>(),
                                   .h = h.view()});
    Operand<T> upstream(context, M, c.D, c.gap, dh);
    Operand<T> dtoken(context, c.V, c.D, c.gap, token_start);
    Operand<T> dposition(context, positions, c.D, c.gap, position_start);
    embedding_backward<T>(context,
                          {.tokens = tokens.data(),
                           .batch = c.B,
                           .tokens_per_row = c.L,
                           .dh = upstream.view(),
                           .dtoken_table = dtoken.view(),
                           .dposition_table = c.positions ? dposition.view() : Matrix<T>()});
    // One addition; sums of integers are exact.
    return {{"h", h.values(), kEps},
            {"dtoken_table", dtoken.values()},
            {"dposition_table", dposition.values()}};
  });
}

TEST(EmbeddingCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  check_embedding({.B = 1, .L = 1, .V = 4, .D = 1});
  check_embedding({.B = 3, .L = 1, .V = 4, .D = 5, .gap = 2});
  check_embedding({.B = 3, .L = 11, .V = 33, .D = 33});
  check_embedding({.B = 1, .L = 257, .V = 33, .D = 300});
  check_embedding({.B = 257, .L = 1, .V = 128, .D = 128, .gap = 3});
  check_embedding({.B = 64, .L = 73, .V = 128, .D = 128});
  check_embedding({.B = 3, .L = 11, .V = 8193, .D = 1024});
  check_embedding({.B = 64, .L = 73, .V = 8193, .D = 16});
  check_embedding({.B = 3, .L = 11, .V = 33, .D = 33, .positions = false});
  check_embedding({.B = 64, .L = 200, .V = 8193, .D = 64, .positions = false});
  // One value has all rows: more than 255 for a warp.
  check_embedding({.B = 64, .L = 73, .V = 128, .D = 33, .one_token = true});
}

TEST(EmbeddingCuda, ManyPositionsAreCutIntoSegments) {
  VLA_NEEDS_GPU();
  check_embedding({.B = 100, .L = 90, .V = 128, .D = 33});
  check_embedding({.B = 100, .L = 90, .V = 8193, .D = 40, .gap = 1});
  check_embedding({.B = 70, .L = 512, .V = 1025, .D = 16, .one_token = true});
}

TEST(RowsCuda, GatherAndScatterMatchTheCpu) {
  VLA_NEEDS_GPU();
  for (const Index D : {1, 5, 33, 128, 300, 1024}) {
    for (const Index gap : {0, 3, 4}) {
      for (const auto& [M, count] : {std::pair<Index, Index>{1, 1}, {33, 0}, {257, 100}}) {
        SCOPED_TRACE(::testing::Message() << "D " << D << " gap " << gap << " M " << M);
        // 5 and 257 have no common factor: the rows are distinct, in no order.
        std::vector<std::int32_t> rows;
        for (Index i = 0; i < count; ++i) rows.push_back(static_cast<std::int32_t>(i * 5 % M));
        const auto values = random_floats(M * D, 1);
        expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
          const auto chosen = to_device(context.device, rows);
          Operand<T> in(context, M, D, gap, values);
          Operand<T> gathered(context, count, D, gap, poison(count * D));
          gather_rows<T>(context, in.view(), chosen.data(), gathered.view());
          Operand<T> scattered(context, M, D, gap, poison(M * D));
          scatter_rows<T>(context, gathered.view(), chosen.data(), scattered.view());
          return {{"gathered", gathered.values()}, {"scattered", scattered.values()}};
        });
      }
    }
  }
}

enum class GradientAt { none, elsewhere, logits };

void check_cross_entropy(Index M, Index V, GradientAt at) {
  SCOPED_TRACE(::testing::Message() << "M " << M << " V " << V << " at " << static_cast<int>(at));
  auto values = random_floats(M * V, 1, 3.0);
  std::vector<std::int32_t> host_targets;
  for (Index i = 0; i < M; ++i) {
    host_targets.push_back(static_cast<std::int32_t>((i * 5) % V));
    // Every third row is right by a small margin: a loss near zero would be only rounding.
    const auto row = values.begin() + i * V;
    if (i % 3 == 0)
      row[host_targets.back()] = static_cast<float>(0.5 + *std::max_element(row, row + V));
  }
  // A thread adds up V / 32 exponentials (V / 256 with a block per row) of 2 ulp each, then five or
  // eight partial sums. Logits up to 12 carry half an ulp into exponents.
  const double tolerance = (static_cast<double>(V) / 32.0 + 16.0) * kEps;
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    const auto targets = to_device(context.device, host_targets);
    const std::vector<LossSums> poisoned{{.loss = -1.0, .correct = -1, .count = -1}};
    auto sums = to_device(context.device, poisoned);
    Operand<T> logits(context, M, V, 3, values);
    Operand<T> elsewhere(context, M, V, 1, poison(M * V));
    Matrix<T> dlogits;
    if (at == GradientAt::elsewhere) dlogits = elsewhere.view();
    if (at == GradientAt::logits) dlogits = logits.view();
    cross_entropy<T>(context, {.logits = logits.view(),
                               .targets = targets.data(),
                               .dlogits = dlogits,
                               .sums = sums.data()});
    const LossSums got = to_host(sums).front();
    Outputs outputs{{"loss", {got.loss}, tolerance},
                    {"correct", {static_cast<double>(got.correct)}},
                    {"count", {static_cast<double>(got.count)}}};
    outputs.push_back({"logits", logits.values(), tolerance});
    if (at == GradientAt::elsewhere) outputs.push_back({"dlogits", elsewhere.values(), tolerance});
    return outputs;
  });
}

TEST(CrossEntropyCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const auto& [M, V] : {std::pair<Index, Index>{1, 4},
                             {3, 33},
                             {257, 128},
                             {33, 1024},
                             {33, 1025},
                             {3, 8193},
                             {1536, 128},
                             {4672, 128},
                             // More rows than all blocks have at once, of a warp and of a block.
                             {16397, 4},
                             {2051, 1100}}) {
    for (const GradientAt at : {GradientAt::none, GradientAt::elsewhere, GradientAt::logits}) {
      check_cross_entropy(M, V, at);
    }
  }
}

struct HeadSize {
  Index M, V, K, chunk;
};

/// x and W are integers over 4: logits are exact on both devices, and only the softmax rounds.
void check_linear_cross_entropy(HeadSize s, Precision precision) {
  SCOPED_TRACE(::testing::Message() << "M " << s.M << " V " << s.V << " K " << s.K << " chunk "
                                    << s.chunk << " " << enum_name(precision));
  const auto quarters = [](Index count, std::uint32_t index) {
    auto values = random_integers(count, index);
    for (double& value : values) value /= 4.0;
    return values;
  };
  const auto x = quarters(s.M * s.K, 1), w = quarters(s.V * s.K, 2);
  auto dw_start = quarters(s.V * s.K, 3);
  for (double& value : dw_start) value /= 1024.0;  // not above the gradients, which are over M
  std::vector<std::int32_t> host_targets;
  for (Index i = 0; i < s.M; ++i) {
    host_targets.push_back(static_cast<std::int32_t>((i * 5) % s.V));
  }
  // As for cross_entropy; a gradient in tf32 or bf16 is rounded to 10 or 7 bits before dx and dW,
  // whose sums of V or M terms of either sign are at least as large as one term.
  const double softmax = (static_cast<double>(s.V) / 32.0 + 16.0) * kEps;
  const double rounded = precision == Precision::float32 ? 0.0
                         : precision == Precision::tf32  ? 0x1p-10
                                                         : 0x1p-7;
  const double sums = static_cast<double>(s.V + s.M) * kEps;
  const double tolerance = 4.0 * (softmax + rounded + sums);
  for (const bool gradients : {false, true}) {
    expect_gpu_matches_cpu(
        [&]<class T>(const Context& context) -> Outputs {
          const auto targets = to_device(context.device, host_targets);
          const std::vector<LossSums> poisoned{{.loss = -1.0, .correct = -1, .count = -1}};
          auto loss = to_device(context.device, poisoned);
          Operand<T> x_view(context, s.M, s.K, 3, x), w_view(context, s.V, s.K, 1, w);
          Operand<T> logits(context, s.chunk, s.V, 5, poison(s.chunk * s.V));
          Operand<T> dx(context, s.M, s.K, 2, poison(s.M * s.K));
          Operand<T> dw(context, s.V, s.K, 4, dw_start);
          LinearCrossEntropy<T> args{.x = x_view.view(),
                                     .weight = w_view.view(),
                                     .targets = targets.data(),
                                     .logits = logits.view(),
                                     .sums = loss.data()};
          if (gradients) {
            args.dx = dx.view();
            args.dweight = dw.view();
          }
          linear_cross_entropy<T>(context, args);
          join_side_streams(context);
          const LossSums got = to_host(loss).front();
          Outputs outputs{{"loss", {got.loss}, softmax},
                          {"correct", {static_cast<double>(got.correct)}},
                          {"count", {static_cast<double>(got.count)}}};
          if (gradients) {
            outputs.push_back({"dx", dx.values(), tolerance});
            outputs.push_back({"dweight", dw.values(), tolerance});
          }
          return outputs;
        },
        precision);
  }
}

// One row; one chunk; chunks that do and do not divide the rows; a warp and a block per row.
TEST(LinearCrossEntropyCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (const HeadSize size : {HeadSize{1, 4, 1, 1},
                              {7, 33, 5, 3},
                              {257, 130, 31, 257},
                              {257, 130, 31, 64},
                              {1536, 128, 128, 1536},
                              {67, 1025, 33, 16},
                              {70, 8192, 64, 32},
                              {5, 9001, 17, 3}}) {
    for (const Precision precision : {Precision::float32, Precision::tf32, Precision::bf16}) {
      check_linear_cross_entropy(size, precision);
    }
  }
}

LossSums sums_of(Index V, const std::vector<double>& values,
                 const std::vector<std::int32_t>& host_targets) {
  const Context context = gpu_context();
  const auto rows = static_cast<Index>(host_targets.size());
  Operand<float> logits(context, rows, V, 0, values);
  const auto targets = to_device(context.device, host_targets);
  Array<LossSums> sums(context.device, 1);
  cross_entropy<float>(
      context,
      {.logits = logits.view(), .targets = targets.data(), .dlogits = {}, .sums = sums.data()});
  return to_host(sums).front();
}

constexpr Index kLossWidths[] = {5, 64, 3000};  // part of a warp, a warp, a block a row

TEST(CrossEntropyCuda, FirstOfEqualLogitsWins) {
  VLA_NEEDS_GPU();
  for (const Index V : kLossWidths) {
    std::vector<double> row(V, 0.0);
    row[1] = row[2] = row[V - 1] = 5.0;
    std::vector<double> logits;
    for (int i = 0; i < 3; ++i) logits.insert(logits.end(), row.begin(), row.end());
    EXPECT_EQ(sums_of(V, logits, {1, 2, static_cast<std::int32_t>(V - 1)}).correct, 1) << V;
  }
}

TEST(CrossEntropyCuda, NanAndInfiniteLogitsGiveALossThatIsNotFinite) {
  VLA_NEEDS_GPU();
  for (const Index V : kLossWidths) {
    for (const double bad : {std::nan(""), HUGE_VAL}) {
      for (const Index place : {Index{0}, Index{2}, V - 1}) {
        std::vector<double> logits(V, 1.0);
        logits[place] = bad;
        EXPECT_TRUE(std::isnan(sums_of(V, logits, {1}).loss)) << bad << " at " << place;
      }
    }
  }
}

constexpr Schedule kSchedule{.peak = 0.02, .warmup = 1, .steps = 6};

/// Parameters, moments and state in a device's memory.
template <class T>
struct Optimised {
  Optimised(const Context& context, const std::vector<double>& start, Index skip_ = 0)
      : skip(skip_),
        parameters(context, start),
        first_moment(context, std::vector<double>(start.size(), 0.0)),
        second_moment(context, std::vector<double>(start.size(), 0.0)),
        state(context.device, 1) {}

  void step(const Context& context, Operand<T>& gradients, double clip_norm) {
    optimiser_step<T>(context, {.parameters = parameters.data() + skip,
                                .gradients = gradients.data() + skip,
                                .first_moment = first_moment.data() + skip,
                                .second_moment = second_moment.data() + skip,
                                .count = parameters.view().cols - skip,
                                .schedule = kSchedule,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .epsilon = 1e-8,
                                .weight_decay = 0.1,
                                .clip_norm = clip_norm,
                                .state = state.data()});
  }

  Index skip;
  Operand<T> parameters, first_moment, second_moment;
  Array<TrainingState> state;
};

void check_optimiser(Index count, Index skip) {
  SCOPED_TRACE(::testing::Message() << "count " << count << " skip " << skip);
  const auto gradients = random_floats(skip + count, 1);
  const auto start = random_floats(skip + count, 2);
  const double squares =
      std::inner_product(gradients.begin() + skip, gradients.end(), gradients.begin() + skip, 0.0);
  expect_gpu_matches_cpu([&]<class T>(const Context& context) -> Outputs {
    Operand<T> gradient(context, gradients);
    Optimised<T> run(context, start, skip);
    // The first two steps clip, the third does not.
    for (const double clip : {0.5, 0.25, 2.0})
      run.step(context, gradient, clip * std::sqrt(squares));
    const TrainingState state = to_host(run.state).front();
    // Three updates of about ten roundings each, all relative to values of order one. The norm is a
    // sum in double; cosine and power differ by an ulp of double between libraries.
    return {{"parameters", run.parameters.values(), 30 * kEps},
            {"first moment", run.first_moment.values(), 30 * kEps},
            {"second moment", run.second_moment.values(), 30 * kEps},
            {"norm", {state.gradient_norm}, 1e-13},
            {"rate", {state.learning_rate}, 1e-15},
            {"step and diverged",
             {static_cast<double>(state.step), static_cast<double>(state.diverged)}}};
  });
}

TEST(OptimiserCuda, MatchesTheCpu) {
  VLA_NEEDS_GPU();
  for (Index count : {1, 3, 257, 4096, 4101, 812345}) {
    for (Index skip : {0, 1}) check_optimiser(count, skip);
  }
  // More than 1,024 blocks of the norm's least size.
  check_optimiser(4'300'003, 0);
}

TEST(OptimiserCuda, StopsForGoodAtALossOrNormThatIsNotFinite) {
  VLA_NEEDS_GPU();
  const Context context = gpu_context();
  const double nan = std::nan("");
  Optimised<float> run(context, random_floats(5000, 2));
  const auto good = random_floats(5000, 1);
  auto bad = good;
  bad[4999] = nan;
  const auto step = [&](const std::vector<double>& gradients, double loss) {
    TrainingState state = to_host(run.state).front();
    state.loss.loss = loss;
    device_copy(context.device, run.state.data(), Device::cpu, &state, sizeof(state));
    Operand<float> gradient(context, gradients);
    run.step(context, gradient, 1.0);
    return to_host(run.state).front();
  };
  step(good, 0.5);
  const TrainingState before = step(good, 0.5);
  EXPECT_EQ(before.step, 2);
  EXPECT_EQ(before.diverged, 0);
  const auto parameters = run.parameters.values();
  const auto moments = run.first_moment.values();

  EXPECT_EQ(step(good, HUGE_VAL).diverged, 1);
  EXPECT_EQ(step(good, 0.5).step, 2);
  device_copy(context.device, run.state.data(), Device::cpu, &before, sizeof(before));
  const TrainingState after = step(bad, 0.5);
  EXPECT_EQ(after.diverged, 1);
  EXPECT_EQ(after.step, 2);
  EXPECT_EQ(after.learning_rate, before.learning_rate);
  EXPECT_TRUE(std::isnan(after.gradient_norm));
  EXPECT_EQ(run.parameters.values(), parameters);
  EXPECT_EQ(run.first_moment.values(), moments);
}

}  // namespace
}  // namespace vla_bench::ops
