// Mixers in chunks and segments against their recurrence, token by token: output and every gradient
// to 1e-10 of the largest value.
#include "mixers/recurrence/chunked.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "mixers/list.h"
#include "mixers/penalty_memory.h"
#include "mixers/recurrence/rules_cpu.h"
#include "mixers/vla/vla_chunked.h"
#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

using mixers::ChunkPlan;

constexpr double kTolerance = 1e-10;

/// The mixer in chunks; those of A may have a length of their own.
std::unique_ptr<MixerCore<double>> chunked_core(const MixerConfig& mixer, Index d,
                                                const ChunkPlan& plan, const ChunkPlan& plan_of_A,
                                                Index* low_pivots = nullptr) {
  const auto make =
      [&]<class Options>(const Options& options) -> std::unique_ptr<MixerCore<double>> {
    if constexpr (requires { make_chunked_reference_rule(options, d, plan_of_A, low_pivots); }) {
      return mixers::make_chunked_reference(
          make_chunked_reference_rule(options, d, plan_of_A, low_pivots), plan);
    } else if constexpr (requires { make_reference_rule(options, d); }) {
      return mixers::make_chunked_reference(make_reference_rule(options, d), plan);
    } else {
      return mixers::make_chunked_reference(mixers::make_cpu_rule<double>(options, d), plan);
    }
  };
  return std::visit(make, mixer.options);
}

void expect_chunks_equal_reference(const MixerConfig& mixer, const CoreTensors& tensors,
                                   const std::vector<ChunkPlan>& plans) {
  const Index d = tensors.dims.d_h;
  const CoreRun expected = run_core<double>(*reference_core(mixer, d), tensors);
  for (const ChunkPlan& plan : plans) {
    Index low_pivots = 0;
    const auto core = chunked_core(mixer, d, plan, plan, &low_pivots);
    expect_same_run(run_core<double>(*core, tensors), expected, kTolerance,
                    describe(tensors.dims) + " C=" + std::to_string(plan.chunk) + " segments of " +
                        std::to_string(plan.chunks_per_segment));
    EXPECT_EQ(low_pivots, 0);
  }
}

/// One segment, and segments of one, two and three chunks.
std::vector<ChunkPlan> plans_of(Index chunk) {
  return {{chunk, 0}, {chunk, 1}, {chunk, 2}, {chunk, 3}};
}

void expect_chunks(const MixerConfig& mixer) {
  const auto expect_around = [&](Index chunk, Index d) {
    for (Index tokens : {Index{1}, Index{2}, chunk - 1, chunk, chunk + 1, 3 * chunk + 5}) {
      if (tokens == 0) continue;
      const HeadDims dims{.batch = 1, .tokens = tokens, .heads = 2, .d_h = d};
      expect_chunks_equal_reference(mixer, random_tensors(mixer, dims, 41), plans_of(chunk));
    }
  };
  for (Index chunk : {1, 7, 16}) expect_around(chunk, 8);
  for (Index d : {16, 33, 64}) expect_around(16, d);
  const HeadDims longer{.batch = 2, .tokens = 200, .heads = 1, .d_h = 16};
  expect_chunks_equal_reference(mixer, random_tensors(mixer, longer, 42),
                                {{64, 0}, {64, 1}, {20, 3}, {500, 1}});
}

TEST(Chunked, Linear) { expect_chunks({.options = LinearOptions{}}); }
TEST(Chunked, Retention) { expect_chunks({.options = RetentionOptions{}}); }
TEST(Chunked, DeltaNetStandard) {
  expect_chunks({.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}});
}
TEST(Chunked, Mamba2) { expect_chunks({.options = Mamba2Options{}}); }
TEST(Chunked, GatedDeltaNet) { expect_chunks({.options = GatedDeltaNetOptions{}}); }
TEST(Chunked, Gla) { expect_chunks({.options = GlaOptions{}}); }
TEST(Chunked, Kda) { expect_chunks({.options = KdaOptions{}}); }
TEST(Chunked, PreconditionedGatedDeltaNet) {
  expect_chunks({.options = PreconditionedGatedDeltaNetOptions{}});
}
TEST(Chunked, Mesa) { expect_chunks({.options = MesaOptions{}}); }
TEST(Chunked, DeltaNetOfThePaperIsRefusedForItsValueGates) {
  const MixerConfig paper{.options = DeltaNetOptions{.variant = DeltaNetVariant::paper}};
  EXPECT_THROW(chunked_core(paper, 8, {}, {}), BadInput);
}

// Key channels that keep from 1e-4 of themselves a token to nearly all: over a chunk their decays
// lie below the smallest double, and no quotient of them exists.
TEST(Chunked, KeyChannelsMayFadeAtOnce) {
  const MixerConfig mixer{.options = KdaOptions::of_given()};
  const HeadDims dims{.batch = 1, .tokens = 150, .heads = 2, .d_h = 12};
  CoreTensors tensors = random_tensors(mixer, dims, 50);
  for (double& key : tensors.k) key *= 0.25;
  std::ranges::fill(tensors.more[0], 0.5);
  std::vector<double>& log_decay = tensors.more[1];
  for (std::size_t i = 0; i < log_decay.size(); ++i) {
    log_decay[i] = static_cast<float>(-std::log(1e4) * static_cast<double>(i * 7 % 12) / 11.0);
  }
  expect_chunks_equal_reference(mixer, tensors, {{16, 0}, {16, 1}, {64, 0}, {150, 0}});
}

struct Variant {
  std::string name;
  VlaOptions options;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

/// Raw writes get a lambda_0 with which S does not grow.
std::vector<Variant> variants() {
  using Write = WriteDirection;
  std::vector<Variant> all;
  for (Penalty penalty : {Penalty::learned, Penalty::key, Penalty::frozen}) {
    for (Write write : {Write::unit, Write::raw}) {
      for (Residual residual : {Residual::key, Residual::write}) {
        for (Normaliser normaliser : {Normaliser::zq, Normaliser::none}) {
          VlaOptions options;
          options.penalty = penalty;
          options.write = write;
          options.residual = residual;
          options.normaliser = normaliser;
          options.per_eps = 0.01;
          options.period = 5;
          if (write == Write::raw) options.lambda_0 = 2.0;
          const char* const penalties[] = {"learned", "key", "frozen"};
          all.push_back({std::string(penalties[static_cast<int>(penalty)]) +
                             (write == Write::unit ? "_unit" : "_raw") +
                             (residual == Residual::key ? "_key" : "_write") +
                             (normaliser == Normaliser::zq ? "_zq" : "_none"),
                         options});
        }
      }
    }
  }
  return all;
}

class ChunkedVla : public ::testing::TestWithParam<Variant> {};
TEST_P(ChunkedVla, EqualsTheReference) { expect_chunks({.options = GetParam().options}); }
INSTANTIATE_TEST_SUITE_P(All, ChunkedVla, ::testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

// No nudges, one after every token, and periods shorter than, equal to and longer than a chunk.
TEST(Chunked, NudgesFallAnywhereInAChunk) {
  for (Penalty penalty : {Penalty::learned, Penalty::key}) {
    for (Index period : {0, 1, 3, 16, 20, 48, 1000}) {
      VlaOptions options;
      options.penalty = penalty;
      options.per_eps = 0.05;
      options.period = period;
      const MixerConfig mixer{.options = options};
      SCOPED_TRACE("period " + std::to_string(period));
      for (Index tokens : {16, 53, 100}) {
        const HeadDims dims{.batch = 1, .tokens = tokens, .heads = 2, .d_h = 12};
        expect_chunks_equal_reference(mixer, random_tensors(mixer, dims, 43), plans_of(16));
      }
    }
  }
}

// eval.hold_penalty_after: in a chunk, at its edge, from the start's second token on.
TEST(Chunked, HeldTokensLeaveA) {
  for (Penalty penalty : {Penalty::learned, Penalty::key}) {
    for (Index hold_after : {1, 8, 13}) {
      VlaOptions options;
      options.penalty = penalty;
      options.per_eps = 0.05;
      options.period = 4;
      options.hold_after = hold_after;
      const MixerConfig mixer{.options = options};
      const HeadDims dims{.batch = 1, .tokens = 29, .heads = 2, .d_h = 8};
      expect_chunks_equal_reference(mixer, random_tensors(mixer, dims, 44), plans_of(8));
    }
  }
}

TEST(Chunked, ChunksOfAAndOfSMayDifferInLength) {
  const MixerConfig mixer{.options = VlaOptions{}};
  const HeadDims dims{.batch = 1, .tokens = 60, .heads = 1, .d_h = 16};
  const CoreTensors tensors = random_tensors(mixer, dims, 45);
  const CoreRun expected = run_core<double>(*reference_core(mixer, 16), tensors);
  expect_same_run(run_core<double>(*chunked_core(mixer, 16, {32, 1}, {9, 2}), tensors), expected,
                  kTolerance, "S in 32, A in 9");
  const auto token_by_token = mixers::make_recurrent_reference(
      make_chunked_reference_rule(mixer.get<VlaOptions>(), 16, {9, 2}));
  expect_same_run(run_core<double>(*token_by_token, tensors), expected, kTolerance,
                  "only A in chunks");
}

// Recursive least squares on directions that repeat or are nearly equal: A falls from 1 / lambda_0
// to 1 along them, the hardest case for its definiteness. Errors grow with 1 / lambda_0.
TEST(Chunked, AlikeKeysKeepAPositiveDefinite) {
  VlaOptions options;
  options.penalty = Penalty::key;
  options.u_scale = 1.0;
  options.lambda_0 = 1e-3;
  const MixerConfig mixer{.options = options};
  const HeadDims dims{.batch = 1, .tokens = 80, .heads = 1, .d_h = 16};
  for (double spread : {0.0, 0.01}) {
    CoreTensors tensors = random_tensors(mixer, dims, 46);
    for (std::size_t i = 16; i < tensors.k.size(); ++i) {
      tensors.k[i] = static_cast<float>(tensors.k[i % 16] + spread * tensors.k[i]);
    }
    expect_chunks_equal_reference(mixer, tensors, plans_of(16));
  }
}

// A floor above 1 is met on some tokens and not on others (vla_test, ClampsPassNoGradient).
TEST(Chunked, FlooredPivotsAreExactInChunksAndRefusedInSegments) {
  VlaOptions options;
  options.lambda_0 = 0.5;
  options.period = 3;
  for (Penalty penalty : {Penalty::learned, Penalty::key}) {
    for (double stab_eps : {1.1, 1.22, 1.3, 20.0}) {
      options.penalty = penalty;
      options.stab_eps = stab_eps;
      const MixerConfig mixer{.options = options};
      for (Index tokens : {9, 37}) {
        const HeadDims dims{.batch = 2, .tokens = tokens, .heads = 2, .d_h = 5};
        expect_chunks_equal_reference(mixer, random_tensors(mixer, dims, 47), {{4, 0}, {16, 0}});
      }
    }
  }
  EXPECT_THROW(make_chunked_reference_rule(options, 5, {16, 1}), BadInput);
  options.stab_eps = 1.0;
  EXPECT_NO_THROW(make_chunked_reference_rule(options, 5, {16, 1}));
}

// With A_0 = 1e17 I rounding leaves errors of about 10 in A: directions that come again meet them.
TEST(Chunked, LostDefinitenessIsCounted) {
  VlaOptions options;
  options.penalty = Penalty::key;
  options.u_scale = 1.0;
  options.lambda_0 = 1e-17;
  const MixerConfig mixer{.options = options};
  const HeadDims dims{.batch = 1, .tokens = 64, .heads = 1, .d_h = 8};
  Index low_pivots = 0;
  const auto core = chunked_core(mixer, 8, {16}, {16}, &low_pivots);
  run_core<double>(*core, random_tensors(mixer, dims, 48), 1, false);
  EXPECT_GT(low_pivots, 0);
}

// A segment's element in any split and order of composition, against the memory's A.
TEST(Chunked, ElementsOfSegmentsCompose) {
  using mixers::vla::PenaltyElement;
  constexpr Index d = 12, tokens = 70;
  VlaOptions options;
  options.per_eps = 0.05;
  options.period = 7;
  Rng rng(49, RngStream::benchmark, 0, 0);
  const Eigen::MatrixXd u = Eigen::MatrixXd::NullaryExpr(d, tokens, [&] { return rng.normal(); });
  const auto memory = reference_core({.options = options}, d)->memory();
  const std::vector<double> key(d, 0.25), value(d, 1.0);
  for (Index t = 0; t < tokens; ++t) {
    as_penalty_memory(*memory)->set_direction(u.col(t).data());
    memory->write(key.data(), value.data());
  }
  const std::vector<double> A = as_penalty_memory(*memory)->penalty_matrix();
  const Eigen::Map<const Eigen::MatrixXd> expected(A.data(), d, d);

  const auto part = [&](Index first, Index last) {
    return mixers::vla::penalty_element(options, first, u.middleCols(first, last - first), 8);
  };
  // The second part has fewer tokens than A has rows: its J is singular.
  const PenaltyElement one = part(0, 25), two = part(25, 30), three = part(30, tokens);
  const Eigen::MatrixXd start = Eigen::MatrixXd::Identity(d, d) / options.lambda_0;
  const auto error = [&](const PenaltyElement& element) {
    return (mixers::vla::apply(element, start).A - expected).norm() / expected.norm();
  };
  EXPECT_LT(error(part(0, tokens)), 1e-13);
  EXPECT_LT(error(compose(compose(one, two), three)), 1e-13);
  EXPECT_LT(error(compose(one, compose(two, three))), 1e-13);
}

}  // namespace
}  // namespace vla_bench::testing
