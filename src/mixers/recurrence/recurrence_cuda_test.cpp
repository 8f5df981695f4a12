#include "mixers/recurrence/recurrence_cuda.h"

#include <limits>
#include <optional>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "testing/gpu.h"
#include "testing/recurrence_reference.h"

namespace vla_bench::mixers::cuda {
namespace {

using namespace vla_bench::testing;
using namespace vla_bench::testing::recurrence;

/// (B, T, H, width) on the GPU with `padding` numbers behind a row's heads, NaN as everything that
/// nobody has written; a width of 0 is an array that is not there.
class Rows {
 public:
  Rows(const HeadDims& dims, Index width, Index padding)
      : dims_(dims), width_(width), stride_(dims.heads * width + padding) {
    if (width > 0) upload(std::vector<float>(size(), kNaN));
  }
  Rows(const HeadDims& dims, Index padding, const Values& values)
      : Rows(dims, static_cast<Index>(values.size()) / (dims.rows() * dims.heads), padding) {
    if (width_ == 0) return;
    std::vector<float> host(size(), kNaN);
    const Index row = dims.heads * width_;
    for (Index i = 0; i < dims.rows(); ++i) {
      for (Index j = 0; j < row; ++j) {
        host[static_cast<std::size_t>(i * stride_ + j)] =
            static_cast<float>(values[static_cast<std::size_t>(i * row + j)]);
      }
    }
    upload(host);
  }

  TokenView<float> view() {
    if (width_ == 0) return {};
    return {data_.data(), dims_.tokens * stride_, stride_, width_};
  }
  float* data() { return data_.data(); }

  Values values() const {
    Values result;
    if (width_ == 0) return result;
    const std::vector<float> host = to_host(data_);
    for (Index i = 0; i < dims_.rows(); ++i) {
      const auto row = host.begin() + i * stride_;
      result.insert(result.end(), row, row + dims_.heads * width_);
      for (Index j = dims_.heads * width_; j < stride_; ++j) {
        EXPECT_TRUE(std::isnan(row[j])) << "wrote behind row " << i;
      }
    }
    return result;
  }

 private:
  static constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  std::size_t size() const { return static_cast<std::size_t>(dims_.rows() * stride_); }
  void upload(const std::vector<float>& host) { data_ = to_device(Device::cuda, host); }

  HeadDims dims_;
  Index width_, stride_;
  Array<float> data_;
};

struct CudaOptions {
  Index padding = 0;  // 0: four channels are read at once
  bool wants_ddecay = true;
  bool constant_decay = false;  // the first token's, with strides of 0
  // Passes in chunks; a forward in chunks leaves no checkpoints for another backward.
  std::optional<ChunkedOptions> chunked{}, chunked_backward{};
};

/// Memory that nobody has written.
Array<float> scratch(Index size) {
  return to_device(Device::cuda, std::vector<float>(static_cast<std::size_t>(size),
                                                    std::numeric_limits<float>::quiet_NaN()));
}

/// Returns the scratch memory, for the backward.
Array<float> run_chunks(const RecurrenceInputs& inputs, const RecurrenceForward& forward,
                        ChunkedOptions options) {
  Array<float> states = scratch(chunked_scratch_size(inputs.dims, options.plan));
  options.scratch = states.data();
  chunked_forward(vla_bench::cuda::stream_context().stream(), inputs, forward, options);
  return states;
}
void run_chunks_back(const RecurrenceInputs& inputs, const RecurrenceBackward& backward,
                     const Array<float>& forward_states, ChunkedOptions options) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  Array<float> states = scratch(
      chunked_backward_scratch_size(inputs.dims, options.plan, backward.ddecay.data != nullptr));
  Array<float> sums = scratch(normaliser_backward_scratch_size(inputs.dims));
  options.scratch = states.data();
  options.sums = sums.data();
  if (forward_states.size() > 0) options.forward_scratch = forward_states.data();
  chunked_backward(stream, inputs, backward, options);
  VLA_CUDA(cudaStreamSynchronize(stream));
}

Results run_cuda(const Rule& rule, const Tensors& tensors, const CudaOptions& options = {}) {
  const HeadDims& dims = tensors.dims;
  const Index d = dims.d_h;
  const Index padding = options.padding;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const bool wants_ddecay = options.wants_ddecay && rule.decay != Decay::none;
  const bool in_pass = rule.normaliser && rule.decay == Decay::none && !rule.residual;
  const auto absent_unless = [](bool wanted, Index width) { return wanted ? width : 0; };

  Rows r(dims, padding, tensors.r), a(dims, padding, tensors.a), q(dims, padding, tensors.q);
  Rows v(dims, padding, tensors.v), d_o(dims, padding, tensors.d_o);
  Rows decay(dims, padding, tensors.decay);
  Rows o(dims, d, padding), e(dims, absent_unless(rule.residual, d), padding);
  Rows denominator(dims, 1, 0), scale(dims, 1, 0), d_denominator(dims, 1, 0);
  Array<float> checkpoints =
      to_device(Device::cuda, std::vector<float>(static_cast<std::size_t>(checkpoint_size(dims))));

  RecurrenceInputs inputs{.dims = dims, .r = r.view(), .a = a.view(), .q = q.view()};
  inputs.decay_kind = rule.decay;
  inputs.decay = decay.view();
  if (options.constant_decay) inputs.decay.batch = inputs.decay.token = 0;

  RecurrenceForward forward{.v = v.view(), .o = o.view(), .e = e.view()};
  forward.checkpoints = wants_ddecay ? checkpoints.data() : nullptr;
  if (in_pass) {
    forward.denominator = denominator.data();
    forward.floor = static_cast<float>(kFloor);
  } else if (rule.normaliser) {
    Rows sums({1, normaliser_scratch_size(dims), 1, 1}, 1, 0);
    normaliser_forward(stream, {.dims = dims,
                                .f = a.view(),
                                .q = q.view(),
                                .floor = static_cast<float>(kFloor),
                                .denominator = denominator.data(),
                                .scale = scale.data(),
                                .sums = options.chunked ? sums.data() : nullptr});
    VLA_CUDA(cudaStreamSynchronize(stream));
    inputs.scale = scale.data();
  }
  Array<float> forward_states;
  if (options.chunked) {
    forward_states = run_chunks(inputs, forward, *options.chunked);
  } else {
    recurrence_forward(stream, inputs, forward);
  }

  Rows dv(dims, d, padding), dq(dims, d, padding), da(dims, d, padding);
  Rows dr(dims, absent_unless(rule.residual, d), padding);
  Rows ddecay(dims, absent_unless(wants_ddecay, rule.decay_width(d)), padding);
  Rows df(dims, absent_unless(rule.normaliser, d), padding);
  Rows dq_normaliser(dims, absent_unless(rule.normaliser, d), padding);
  RecurrenceBackward backward{.e = rule.residual ? e.view() : v.view(),
                              .d_o = d_o.view(),
                              .de = dv.view(),
                              .dq = dq.view(),
                              .da = da.view(),
                              .dr = dr.view(),
                              .ddecay = ddecay.view(),
                              .checkpoints = checkpoints.data()};
  if (rule.normaliser) {
    normaliser_terms(stream, {.dims = dims,
                              .o = o.view(),
                              .d_o = d_o.view(),
                              .denominator = denominator.data(),
                              .floor = static_cast<float>(kFloor),
                              .scale = scale.data(),
                              .d_denominator = d_denominator.data()});
    inputs.scale = scale.data();
    backward.normaliser = {.f = a.view(),
                           .q = q.view(),
                           .d_denominator = d_denominator.data(),
                           .df = df.view(),
                           .dq = dq_normaliser.view()};
  }
  if (options.chunked_backward) {
    run_chunks_back(inputs, backward, forward_states, *options.chunked_backward);
  } else {
    recurrence_backward(stream, inputs, backward);
  }
  return {.o = o.values(),
          .e = rule.residual ? e.values() : tensors.v,
          .dv = dv.values(),
          .dq = dq.values(),
          .da = da.values(),
          .dr = dr.values(),
          .ddecay = ddecay.values(),
          .df = df.values(),
          .dq_normaliser = dq_normaliser.values()};
}

/// Gradients that nearly vanish hold rounding noise: they are held to the scale of all.
void expect_same(const Results& actual, const Results& expected, const HeadDims& dims,
                 const std::string& where, double tolerance = 0.0) {
  double largest = 0.0;
  for (std::size_t i = 2; i < Results::kNames.size(); ++i) {
    for (double value : *expected.all()[i]) largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
    const double floor = i < 2 ? 1e-300 : std::max(1e-300, 0.1 * largest);
    EXPECT_TRUE(near(where + " " + testing::describe(dims) + " " + Results::kNames[i],
                     std::span<const double>(*actual.all()[i]),
                     std::span<const double>(*expected.all()[i]),
                     tolerance > 0.0 ? tolerance : rounding_tolerance<float>(dims), floor));
  }
}

TEST(RecurrenceCuda, EqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    for (const HeadDims& dims : gpu_shapes()) {
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = run_reference(rule, tensors);
      for (Index padding : {0, 1}) {
        expect_same(run_cuda(rule, tensors, {.padding = padding}), expected, dims,
                    describe(rule) + " padding " + std::to_string(padding));
      }
    }
  }
}

// Token by token alone.
TEST(RecurrenceCuda, EqualsTheReferenceOfLargeHeads) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    for (const HeadDims& dims : {HeadDims{1, 1, 1, 256}, {2, 21, 2, 256}}) {
      const Tensors tensors = random_tensors(rule, dims);
      Results expected = run_reference(rule, tensors);
      for (Index padding : {0, 1}) {
        expect_same(run_cuda(rule, tensors, {.padding = padding}), expected, dims,
                    describe(rule) + " padding " + std::to_string(padding));
      }
      if (rule.decay == Decay::none) continue;
      expected.ddecay.clear();
      expect_same(run_cuda(rule, tensors, {.wants_ddecay = false}), expected, dims,
                  describe(rule) + " held constant");
    }
  }
}

TEST(RecurrenceCuda, EqualsTheReferenceWithoutTheDecaysGradient) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    if (rule.decay == Decay::none) continue;
    for (Index d : {8, 16, 32, 64, 128}) {
      const HeadDims dims{2, small_tests() ? 33 : 73, 2, d};
      const Tensors tensors = random_tensors(rule, dims);
      Results expected = run_reference(rule, tensors);
      expected.ddecay.clear();
      expect_same(run_cuda(rule, tensors, {.wants_ddecay = false}), expected, dims,
                  describe(rule) + " held constant");
    }
  }
}

std::vector<Rule> chunked_rules() {
  std::vector<Rule> rules = all_rules();
  std::erase_if(rules, [](const Rule& rule) { return rule.decay == Decay::rows; });
  return rules;
}

/// One segment, and short ones for joins.
std::vector<ChunkedPlan> chunked_plans(Index tokens) {
  std::vector<ChunkedPlan> plans = {{}};
  for (Index length : {kChunkTokens, 3 * kChunkTokens}) {
    const Index segments = (tokens + length - 1) / length;
    if (segments > 1) plans.push_back({.segments = segments, .segment_tokens = length});
  }
  return plans;
}

CudaOptions in_chunks(const ChunkedOptions& options, Index padding = 0) {
  return {.padding = padding, .chunked = options, .chunked_backward = options};
}

/// With the gradient of the decay's logarithm: where the decay is near 0, passes in chunks have
/// only that exact.
Results by_logarithm(Results results, const Tensors& tensors) {
  for (std::size_t i = 0; i < results.ddecay.size(); ++i) results.ddecay[i] *= tensors.decay[i];
  return results;
}
Results run_in_chunks(const Rule& rule, const Tensors& tensors, const ChunkedOptions& options,
                      Index padding = 0) {
  return by_logarithm(run_cuda(rule, tensors, in_chunks(options, padding)), tensors);
}

/// A test a head size: under racecheck all of them together do not end.
class ChunkedCudaOf : public ::testing::TestWithParam<Index> {};
INSTANTIATE_TEST_SUITE_P(HeadSize, ChunkedCudaOf, ::testing::Values(8, 16, 32, 64, 128),
                         ::testing::PrintToStringParamName());

TEST_P(ChunkedCudaOf, EqualsTheReference) {
  VLA_NEEDS_GPU();
  std::vector<HeadDims> shapes = gpu_shapes();
  std::erase_if(shapes, [](const HeadDims& dims) { return dims.d_h != GetParam(); });
  shapes.push_back({2, small_tests() ? 65 : 200, 2, GetParam()});
  if (!small_tests() && GetParam() == 64) {
    for (Index tokens : {5, 63, 65, 1000, 4097}) shapes.push_back({1, tokens, 1, 64});
  }
  if (!small_tests() && GetParam() == 16) shapes.push_back({75, 65, 4, 16});
  for (const Rule& rule : chunked_rules()) {
    for (const HeadDims& dims : shapes) {
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      for (const ChunkedPlan& plan : chunked_plans(dims.tokens)) {
        for (Index padding : {0, 1}) {
          const ChunkedOptions options{.plan = plan};
          expect_same(run_in_chunks(rule, tensors, options, padding), expected, dims,
                      describe(rule) + " padding " + std::to_string(padding) + " segments " +
                          std::to_string(plan.segments));
        }
      }
    }
  }
}

// Either pass may follow or precede one that goes token by token.
TEST(ChunkedCuda, MixesWithTheRecurrence) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    const HeadDims dims{2, 130, 2, 32};
    const Tensors tensors = random_tensors(rule, dims);
    Results expected = run_reference(rule, tensors);
    expected.ddecay.clear();
    const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back()};
    expect_same(run_cuda(rule, tensors, {.wants_ddecay = false, .chunked = options}), expected,
                dims, describe(rule) + " forward only");
    expect_same(run_cuda(rule, tensors, {.wants_ddecay = false, .chunked_backward = options}),
                expected, dims, describe(rule) + " backward only");
  }
}

// TF32 rounds operands to 2^-11; where errors of a thousand products add like a random walk, and
// gradients cancel, 64 such units cover it. One unit is a hundred times what float32 leaves.
TEST(ChunkedCuda, RoundsToTf32) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    for (Index d : {8, 16, 32, 64, 128}) {
      const HeadDims dims{2, 130, 2, d};
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back(), .grade = Grade::tf32};
      const Results actual = run_in_chunks(rule, tensors, options);
      expect_same(actual, expected, dims, describe(rule) + " tf32", 64.0 * 0x1p-11);
      for (std::size_t i : {0, 2, 3, 4}) {  // o, dv, dq, da
        EXPECT_FALSE(near("float32", std::span<const double>(*actual.all()[i]),
                          std::span<const double>(*expected.all()[i]),
                          rounding_tolerance<float>(dims), 1e-300))
            << describe(rule) << " " << Results::kNames[i] << ": TF32 does not round";
      }
    }
  }
}

TEST(ChunkedCuda, EqualsTheReferenceWithDecaysNearZero) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    if (rule.decay == Decay::none) continue;
    for (Index d : {16, 32, 64, 128}) {
      const HeadDims dims{2, 100, 2, d};
      Tensors tensors = random_tensors(rule, dims, 0.0);
      for (double& decay : tensors.decay) decay = static_cast<float>(std::pow(decay, 16.0));
      for (std::size_t i = 0; i < tensors.decay.size(); i += 7) tensors.decay[i] = 0.0;
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      for (const ChunkedPlan& plan : chunked_plans(dims.tokens)) {
        const ChunkedOptions options{.plan = plan};
        expect_same(run_in_chunks(rule, tensors, options), expected, dims,
                    describe(rule) + " near 0");
      }
    }
  }
}

TEST(ChunkedCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    const HeadDims dims{3, 200, 2, 64};
    const Tensors tensors = random_tensors(rule, dims);
    const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back()};
    const Results first = run_cuda(rule, tensors, in_chunks(options));
    const Results second = run_cuda(rule, tensors, in_chunks(options));
    for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
      EXPECT_EQ(*first.all()[i], *second.all()[i])
          << describe(rule) << ": " << Results::kNames[i] << " differs between runs";
    }
  }
}

TEST(ChunkedCuda, CutsLanesToFillTheChip) {
  bool has_residual = true;
  Index d = 64;
  const auto plan = [&](Index batch, Index tokens, Index heads) {
    return plan_segments({batch, tokens, heads, d}, has_residual, 132);
  };
  EXPECT_EQ(plan(4, 383, 1).segments, 1);
  EXPECT_EQ(plan(4, 384, 1).segments, 3);
  EXPECT_EQ(plan(4, 384, 1).segment_tokens, 128);
  EXPECT_EQ(plan(4, 131072, 1).segments, 33);
  EXPECT_EQ(plan(4, 131072, 1).segment_tokens, 4000);
  EXPECT_EQ(plan(45, 131072, 1).segments, 1);
  EXPECT_EQ(plan(1, 131072, 16).segments, 8);
  has_residual = false;
  EXPECT_EQ(plan(4, 131072, 1).segments, 66);
  EXPECT_EQ(plan(67, 131072, 1).segments, 3);
  d = 128;
  EXPECT_EQ(plan(4, 131072, 1).segments, 33);
}

// A state that is divided by its decay to go back in time would blow up.
TEST(RecurrenceCuda, EqualsTheReferenceWithDecaysNearZero) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    const HeadDims dims{2, 40, 2, 32};
    Tensors tensors = random_tensors(rule, dims, 0.0);
    for (double& decay : tensors.decay) decay = static_cast<float>(std::pow(decay, 16.0));
    if (rule.decay != Decay::none) tensors.decay[tensors.decay.size() / 2] = 0.0;
    expect_same(run_cuda(rule, tensors), run_reference(rule, tensors), dims,
                describe(rule) + " near 0");
  }
}

// RetNet's: a number a head, whatever the token.
TEST(RecurrenceCuda, TakesOneDecayForAllTokens) {
  VLA_NEEDS_GPU();
  const Rule rule{.decay = Decay::head};
  const HeadDims dims{2, 40, 3, 32};
  Tensors tensors = random_tensors(rule, dims);
  for (std::size_t i = 3; i < tensors.decay.size(); ++i) tensors.decay[i] = tensors.decay[i - 3];
  const Results expected = run_cuda(rule, tensors, {.wants_ddecay = false});
  const Results actual = run_cuda(rule, tensors, {.wants_ddecay = false, .constant_decay = true});
  for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
    EXPECT_EQ(*actual.all()[i], *expected.all()[i]) << Results::kNames[i];
  }
}

TEST(RecurrenceCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    const Tensors tensors = random_tensors(rule, {3, 70, 2, 64});
    const Results first = run_cuda(rule, tensors);
    const Results second = run_cuda(rule, tensors);
    for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
      EXPECT_EQ(*first.all()[i], *second.all()[i])
          << describe(rule) << ": " << Results::kNames[i] << " differs between runs";
    }
  }
}

// The reference's backward against central differences of its forward: their error is about 1e-10
// at a step of 1e-5, and the smallest wrong term is some 1e-2.
TEST(RecurrenceReference, EqualsCentralDifferences) {
  constexpr double kStep = 1e-5;
  for (const Rule& rule : all_rules()) {
    const HeadDims dims{1, 5, 2, 3};
    Tensors tensors = random_tensors(rule, dims);
    const Results run = run_reference(rule, tensors);
    const auto loss = [&] {
      const Results probe = run_reference(rule, tensors);
      double sum = 0.0;
      for (std::size_t i = 0; i < probe.o.size(); ++i) sum += probe.o[i] * tensors.d_o[i];
      return sum;
    };
    const auto expect_gradient = [&](const char* name, Values& input, const Values& gradient,
                                     const Values& more) {
      for (std::size_t i = 0; i < input.size(); ++i) {
        const double start = input[i];
        input[i] = start + kStep;
        const double above = loss();
        input[i] = start - kStep;
        const double below = loss();
        input[i] = start;
        EXPECT_NEAR((above - below) / (2 * kStep), gradient[i] + (more.empty() ? 0.0 : more[i]),
                    1e-7)
            << describe(rule) << " " << name << "[" << i << "]";
      }
    };
    expect_gradient("v", tensors.v, run.dv, {});
    expect_gradient("q", tensors.q, run.dq, run.dq_normaliser);
    expect_gradient("a", tensors.a, run.da, run.df);
    expect_gradient("r", tensors.r, run.dr, {});
    expect_gradient("decay", tensors.decay, run.ddecay, {});
  }
}

}  // namespace
}  // namespace vla_bench::mixers::cuda
