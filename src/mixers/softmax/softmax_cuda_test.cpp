#include "mixers/softmax/softmax_cuda.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "mixers/cuda_mixers.h"
#include "mixers/softmax/softmax_tiles.h"
#include "testing/gpu.h"

namespace vla_bench::testing {
namespace {

using mixers::SoftmaxTiling;

const MixerConfig kSoftmax{.options = SoftmaxOptions{}};

constexpr SoftmaxTiling kTilings[] = {SoftmaxTiling::narrow, SoftmaxTiling::shared_keys,
                                      SoftmaxTiling::medium, SoftmaxTiling::wide,
                                      SoftmaxTiling::whole_lane};

std::unique_ptr<MixerCore<float>> make_core(Index d_h,
                                            SoftmaxTiling tiling = SoftmaxTiling::by_shape) {
  return mixers::make_softmax_cuda_core(d_h, tiling);
}

/// Relative rounding of an operand of a tensor core product.
double operand_rounding(Precision precision) {
  return precision == Precision::tf32 ? 0x1p-11 : 0x1p-8;
}

/// Inputs of a core and what the reference makes of them.
struct Case {
  CoreTensors tensors;
  CoreRun expected;

  Case(const HeadDims& dims, std::uint64_t seed, double scale = 0.7)
      : tensors(random_tensors(kSoftmax, dims, seed, scale)),
        expected(run_core<double>(*reference_core(kSoftmax, dims.d_h), tensors)) {}
};

/// Checks every tiling, with rows whose addresses allow vector loads and rows whose do not.
void expect_everywhere(const Case& one, Precision precision, double tolerance) {
  for (const SoftmaxTiling tiling : kTilings) {
    for (const Index padding : {0, 1}) {
      const CoreRun actual = run_core<float>(*make_core(one.tensors.dims.d_h, tiling), one.tensors,
                                             gpu_context(precision), true, padding);
      expect_same_run(actual, one.expected, tolerance,
                      describe(one.tensors.dims) + " tiling " +
                          std::to_string(static_cast<int>(tiling)) + " padding " +
                          std::to_string(padding));
    }
  }
}

TEST(SoftmaxCuda, MatchesReference) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    expect_everywhere(Case(dims, 41), Precision::float32, rounding_tolerance<float>(dims));
  }
  for (const HeadDims& dims : {HeadDims{1, 1, 1, 256}, {2, 33, 2, 256}, {1, 130, 1, 256}}) {
    const Case one(dims, 41);
    for (const Index padding : {0, 1}) {
      expect_same_run(run_core<float>(*make_core(256), one.tensors, gpu_context(), true, padding),
                      one.expected, rounding_tolerance<float>(dims), describe(dims));
    }
  }
}

// Off every tile by one, and several of the widest; the head size of the golden files.
TEST(SoftmaxCuda, MatchesReferenceAtTheEdgesOfTiles) {
  VLA_NEEDS_GPU();
  const auto lengths = small_tests() ? std::vector<Index>{63, 129}
                                     : std::vector<Index>{31, 32, 63, 65, 127, 128, 129, 257};
  for (const Index d_h : {8, 32, 64}) {
    for (const Index tokens : lengths) {
      const HeadDims dims{.batch = 1, .tokens = tokens, .heads = 2, .d_h = d_h};
      expect_everywhere(Case(dims, 42), Precision::float32, rounding_tolerance<float>(dims));
    }
  }
}

// The backward with a whole lane per block at every length, and so every edge of its tiles of 4 and
// squares of 8, up to the longest (80) and the first beyond; the published size.
TEST(SoftmaxCuda, WholeLanesMatchReference) {
  VLA_NEEDS_GPU();
  std::vector<HeadDims> shapes = {{.batch = 64, .tokens = 73, .heads = 4, .d_h = 32}};
  for (const Index d_h : {8, 16, 32, 64}) {
    for (Index tokens = 1; tokens <= 81; tokens += small_tests() ? 20 : 1) {
      shapes.push_back({.batch = 2, .tokens = tokens, .heads = 2, .d_h = d_h});
    }
  }
  for (const HeadDims& dims : shapes) {
    const Case one(dims, 54);
    const CoreRun actual = run_core<float>(*make_core(dims.d_h, SoftmaxTiling::whole_lane),
                                           one.tensors, gpu_context(), true, dims.tokens % 2);
    expect_same_run(actual, one.expected, rounding_tolerance<float>(dims), describe(dims));
  }
}

// A gradient is three products deep (scores, dp, the product with its result), each of two operands
// rounded by u, relative to the largest terms of its sum: 6 u if all of them erred the same way. A
// score of size x carries its error into a weight with the factor x; |x| stays below 3 here.
TEST(SoftmaxCuda, TensorCoresMatchReference) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    if (dims.d_h == 8) continue;  // only float32
    const Case one(dims, 43);
    for (const Precision precision : {Precision::tf32, Precision::bf16}) {
      expect_everywhere(one, precision, 6.0 * operand_rounding(precision));
    }
  }
}

// Tensor cores must be used when requested, which their rounding shows.
TEST(SoftmaxCuda, PrecisionsDiffer) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 1, .tokens = 50, .heads = 2, .d_h = 32};
  const Case one(dims, 44);
  for (const Precision precision : {Precision::tf32, Precision::bf16}) {
    const CoreRun actual = run_core<float>(*make_core(32), one.tensors, gpu_context(precision));
    for (std::size_t i = 0; i < 4; ++i) {
      const Worst worst = worst_error(std::span<const double>(*actual.all()[i].second),
                                      std::span<const double>(*one.expected.all()[i].second));
      EXPECT_GT(worst.error, operand_rounding(precision) / 32.0) << actual.all()[i].first;
    }
  }
}

TEST(SoftmaxCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  const Index longest = small_tests() ? 75 : 145;
  for (Index tokens = 75; tokens <= longest; tokens += 70) {
    const HeadDims dims{.batch = 3, .tokens = tokens, .heads = 2, .d_h = 64};
    const CoreTensors tensors = random_tensors(kSoftmax, dims, 45);
    for (const SoftmaxTiling tiling : kTilings) {
      for (const Precision precision : {Precision::float32, Precision::tf32, Precision::bf16}) {
        expect_gpu_repeats(*make_core(64, tiling), tensors, precision);
      }
    }
  }
}

// The layout of rows changes how they are loaded, not what is computed.
TEST(SoftmaxCuda, LayoutIsInvisible) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 2, .tokens = 75, .heads = 3, .d_h = 32};
  const CoreTensors tensors = random_tensors(kSoftmax, dims, 46);
  for (const Precision precision : {Precision::float32, Precision::tf32, Precision::bf16}) {
    const auto core = make_core(32);
    const CoreRun vectors = run_core<float>(*core, tensors, gpu_context(precision), true, 0);
    const CoreRun scalars = run_core<float>(*core, tensors, gpu_context(precision), true, 1);
    for (std::size_t i = 0; i < vectors.all().size(); ++i) {
      EXPECT_EQ(*vectors.all()[i].second, *scalars.all()[i].second) << vectors.all()[i].first;
    }
  }
}

// Keys of a late token, made enormous, change no bit of an earlier output: masked scores never
// enter a maximum, a sum or a product. Tiles that hold both sides of the change are the ones that
// matter.
TEST(SoftmaxCuda, IsCausal) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 2, .tokens = 70, .heads = 2, .d_h = 16};
  const CoreTensors tensors = random_tensors(kSoftmax, dims, 47);
  const std::size_t T = 70, D = 32;
  for (const SoftmaxTiling tiling : kTilings) {
    for (const Precision precision : {Precision::float32, Precision::tf32, Precision::bf16}) {
      const auto output = [&](const CoreTensors& of) {
        return run_core<float>(*make_core(16, tiling), of, gpu_context(precision), false).o;
      };
      const std::vector<double> before = output(tensors);
      for (const std::size_t t : {1U, 15U, 16U, 33U, 69U}) {
        CoreTensors changed = tensors;
        for (const std::size_t b : {0, 1}) {
          std::fill_n(changed.k.begin() + (b * T + t) * D, D, 1e3);
          std::fill_n(changed.v.begin() + (b * T + t) * D, D, 1e3);
        }
        const std::vector<double> after = output(changed);
        for (const std::size_t b : {0, 1}) {
          const std::size_t first = b * T * D, end = first + t * D;
          EXPECT_TRUE(
              std::equal(before.begin() + first, before.begin() + end, after.begin() + first))
              << "token " << t << " changed an earlier output";
          EXPECT_NE(before[end], after[end]) << "token " << t << " does not reach its output";
        }
      }
    }
  }
}

// Scores up to thousands, whose maximum moves from tile to tile by more than the exponent range of
// float.
TEST(SoftmaxCuda, LargeScoresAcrossTiles) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : {HeadDims{.batch = 1, .tokens = 200, .heads = 2, .d_h = 16},
                               HeadDims{.batch = 1, .tokens = 200, .heads = 2, .d_h = 64},
                               HeadDims{.batch = 1, .tokens = 78, .heads = 2, .d_h = 32}}) {
    const Case one(dims, 48, 30.0);
    // A score of size 3000 carries an error of 2^-24 * 3000 = 2e-4 into its weight.
    expect_everywhere(one, Precision::float32, 5e-3);
    // With rounded operands the weights are arbitrary, but must be numbers.
    for (const Precision precision : {Precision::tf32, Precision::bf16}) {
      const CoreRun run =
          run_core<float>(*make_core(dims.d_h), one.tensors, gpu_context(precision));
      for (const auto& [name, values] : run.all()) {
        for (const double value : *values) ASSERT_TRUE(std::isfinite(value));
      }
    }
  }
}

// The gradient of a key bias is sum_t dk_t, which vanishes. Each dk_t is stored with an error of
// 2^-24 of its size at most, and its sum over queries adds errors of that size like a random walk:
// relative to sum_t |dk_t| at most a few 2^-24 remain. Values and upstream gradients have a common
// part here that hardly depends on the key, so that D_i is much larger than dp_ij - D_i: without
// the correction of softmax_cuda.h the rounding of D shows as 600 times 2^-24.
TEST(SoftmaxCuda, GradientOfAKeyBiasVanishes) {
  VLA_NEEDS_GPU();
  const HeadDims dims{.batch = 4, .tokens = 73, .heads = 2, .d_h = 32};
  CoreTensors tensors = random_tensors(kSoftmax, dims, 50, 0.02);
  for (double& value : tensors.v) value = static_cast<float>(value + 1.0);
  for (double& value : tensors.d_o) value = static_cast<float>(value + 0.5);
  for (const SoftmaxTiling tiling :
       {SoftmaxTiling::narrow, SoftmaxTiling::wide, SoftmaxTiling::whole_lane}) {
    const CoreRun run = run_core<float>(*make_core(32, tiling), tensors, gpu_context());
    const auto channels = static_cast<std::size_t>(dims.heads * dims.d_h);
    for (std::size_t channel = 0; channel < channels; ++channel) {
      double sum = 0.0, size = 0.0;
      for (std::size_t i = channel; i < run.dk.size(); i += channels) {
        sum += run.dk[i];
        size += std::abs(run.dk[i]);
      }
      EXPECT_LT(std::abs(sum), 4.0 * 0x1p-24 * size) << "channel " << channel;
    }
  }
}

// The shape's own choice is one of the tilings above.
TEST(SoftmaxCuda, ShapesChooseTheirTiles) {
  VLA_NEEDS_GPU();
  struct Choice {
    HeadDims dims;
    SoftmaxTiling tiling;
  };
  const Choice choices[] = {
      {{.batch = 1, .tokens = 40, .heads = 2, .d_h = 16}, SoftmaxTiling::shared_keys},
      {{.batch = 44, .tokens = 40, .heads = 4, .d_h = 16}, SoftmaxTiling::narrow},
      {{.batch = 16, .tokens = 256, .heads = 4, .d_h = 16}, SoftmaxTiling::medium},
      {{.batch = 11, .tokens = 1030, .heads = 4, .d_h = 16}, SoftmaxTiling::wide},
  };
  for (const Choice& choice : choices) {
    const CoreTensors tensors = random_tensors(kSoftmax, choice.dims, 52);
    const CoreRun expected =
        run_core<float>(*make_core(16, choice.tiling), tensors, gpu_context(), false);
    EXPECT_EQ(run_core<float>(*make_core(16), tensors, gpu_context(), false).o, expected.o)
        << describe(choice.dims);
  }
}

TEST(SoftmaxCuda, ShortSequencesTakeAWholeLane) {
  const auto takes = [](SoftmaxTiling tiling, Index tokens, Index d_h) {
    return mixers::softmax::cuda::takes_whole_lane(tiling, {2, tokens, 2, d_h});
  };
  EXPECT_FALSE(takes(SoftmaxTiling::by_shape, 16, 32));
  EXPECT_TRUE(takes(SoftmaxTiling::by_shape, 17, 32));
  EXPECT_TRUE(takes(SoftmaxTiling::by_shape, 80, 64));
  EXPECT_FALSE(takes(SoftmaxTiling::by_shape, 81, 64));
  EXPECT_FALSE(takes(SoftmaxTiling::by_shape, 73, 128));
  EXPECT_TRUE(takes(SoftmaxTiling::whole_lane, 1, 32));
  EXPECT_FALSE(takes(SoftmaxTiling::wide, 73, 32));
}

TEST(SoftmaxCuda, NamesTheHeadSizesItHas) {
  for (const Index d_h : {8, 16, 32, 64, 128, 256}) EXPECT_NO_THROW(make_core(d_h));
  for (const Index d_h : {4, 24, 512}) EXPECT_THROW(make_core(d_h), RunError);
  for (const Index d_h : {8, 256}) {
    CoreInputs<float> inputs;
    inputs.dims = {.batch = 1, .tokens = 1, .heads = 1, .d_h = d_h};
    EXPECT_THROW(make_core(d_h)->forward(gpu_context(Precision::bf16), inputs, {}, nullptr),
                 RunError);
  }
}

TEST(UnfusedSoftmaxCuda, ForwardMatchesReference) {
  VLA_NEEDS_GPU();
  for (HeadDims dims : gpu_shapes()) {
    // cuBLAS takes any d.
    if (dims.d_h == 16) dims.d_h = 20;
    const Case one(dims, 53);
    const auto core = mixers::make_unfused_softmax_cuda_core(dims.d_h);
    for (const Index padding : {0, 1}) {
      const CoreRun actual = run_core<float>(*core, one.tensors, gpu_context(), false, padding);
      EXPECT_TRUE(near(describe(dims) + " o", std::span<const double>(actual.o),
                       std::span<const double>(one.expected.o), rounding_tolerance<float>(dims)));
    }
  }
}

TEST(UnfusedSoftmaxCuda, HasNoBackward) {
  const auto core = mixers::make_unfused_softmax_cuda_core(16);
  EXPECT_THROW(core->backward({}, {}, {}, {}), RunError);
}

}  // namespace
}  // namespace vla_bench::testing
