// Cross entropy of given logits, and of those of a head in chunks of rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/ops.h"
#include "testing/operands.h"

namespace vla_bench::ops {
namespace {

using vla_bench::testing::central_differences;
using vla_bench::testing::expect_same_on_any_threads;
using vla_bench::testing::kDifferenceTolerance;
using vla_bench::testing::kEpsilon;
using vla_bench::testing::largest;
using vla_bench::testing::near;
using vla_bench::testing::random_values;
using vla_bench::testing::Strided;
using vla_bench::testing::to_double;

double plain_mean_loss(const std::vector<double>& logits, Index V,
                       const std::vector<std::int32_t>& targets) {
  double sum = 0.0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const double* row = logits.data() + static_cast<Index>(i) * V;
    const double maximum = *std::max_element(row, row + V);
    double exponentials = 0.0;
    for (Index j = 0; j < V; ++j) exponentials += std::exp(row[j] - maximum);
    sum += std::log(exponentials) + maximum - row[targets[i]];
  }
  return sum / static_cast<double>(targets.size());
}

template <class T>
void check_cross_entropy(Index M, Index V) {
  const auto logits = random_values<T>(M * V, 1, 3.0);
  std::vector<std::int32_t> targets;
  for (Index i = 0; i < M; ++i) targets.push_back(static_cast<std::int32_t>((i * 5) % V));
  std::vector<double> exact = to_double(logits);
  const double expected = plain_mean_loss(exact, V, targets);
  Index correct = 0;
  for (Index i = 0; i < M; ++i) {
    const T* row = logits.data() + i * V;
    correct += std::max_element(row, row + V) - row == targets[i];
  }
  const auto run = [&](const Context& context) {
    Strided<T> in_place(M, V, 3, logits);
    LossSums sums{.loss = -1.0, .correct = -1, .count = -1};
    cross_entropy<T>(context, {.logits = in_place.view(),
                               .targets = targets.data(),
                               .dlogits = in_place.view(),
                               .sums = &sums});
    EXPECT_EQ(sums.count, M);
    EXPECT_EQ(sums.correct, correct);
    EXPECT_NEAR(sums.loss / static_cast<double>(M), expected,
                static_cast<double>(V) * kEpsilon<T> * expected);
    EXPECT_TRUE(in_place.gaps_untouched());
    auto values = in_place.values();
    values.push_back(static_cast<T>(sums.loss));
    return values;
  };
  expect_same_on_any_threads(run);

  auto gradient = run({});
  gradient.pop_back();
  if (M <= 3) {
    const auto differences =
        central_differences(exact, [&] { return plain_mean_loss(exact, V, targets); });
    // Differences carry 1e-10; exp and the sum of V terms carry V eps.
    const double tolerance = kDifferenceTolerance + static_cast<double>(V) * kEpsilon<T>;
    EXPECT_TRUE(near("dlogits", gradient, differences, tolerance));
  }
  LossSums without;
  cross_entropy<T>({}, {.logits = {logits.data(), M, V},
                        .targets = targets.data(),
                        .dlogits = {},
                        .sums = &without});
  EXPECT_NEAR(without.loss / static_cast<double>(M), expected,
              static_cast<double>(V) * kEpsilon<T> * expected);
}

TEST(CrossEntropy, EqualsPlainLoopsAndDifferences) {
  for (const auto& [M, V] : {std::pair<Index, Index>{1, 4}, {3, 33}, {257, 130}}) {
    check_cross_entropy<float>(M, V);
    check_cross_entropy<double>(M, V);
  }
}

struct HeadSize {
  Index M, V, K;
};

/// Logits x W^T and sums of magnitudes of their terms, by plain loops.
struct PlainLogits {
  std::vector<double> values;
  double most_terms = 0.0;  // the largest sum of |x| |W|
};
PlainLogits plain_logits(HeadSize s, const std::vector<double>& x, const std::vector<double>& w) {
  PlainLogits logits;
  for (Index i = 0; i < s.M; ++i) {
    for (Index j = 0; j < s.V; ++j) {
      double sum = 0.0, terms = 0.0;
      for (Index k = 0; k < s.K; ++k) {
        const double term = x[i * s.K + k] * w[j * s.K + k];
        sum += term;
        terms += std::abs(term);
      }
      logits.values.push_back(sum);
      logits.most_terms = std::max(logits.most_terms, terms);
    }
  }
  return logits;
}

/// Against plain loops over all logits, in chunks of `chunk` rows.
template <class T>
void check_linear_cross_entropy(HeadSize s, Index chunk) {
  SCOPED_TRACE(::testing::Message()
               << "M " << s.M << " V " << s.V << " K " << s.K << " chunk " << chunk);
  const auto x = random_values<T>(s.M * s.K, 1);
  const auto w = random_values<T>(s.V * s.K, 2);
  const auto dw_start = random_values<T>(s.V * s.K, 3, 0.01);
  std::vector<std::int32_t> targets;
  for (Index i = 0; i < s.M; ++i) targets.push_back(static_cast<std::int32_t>((i * 5) % s.V));

  const PlainLogits logits = plain_logits(s, to_double(x), to_double(w));
  const double expected_loss = plain_mean_loss(logits.values, s.V, targets);
  Index correct = 0;
  std::vector<double> expected_dx(x.size()), expected_dw = to_double(dw_start);
  for (Index i = 0; i < s.M; ++i) {
    const double* row = logits.values.data() + i * s.V;
    const double maximum = *std::max_element(row, row + s.V);
    correct += std::max_element(row, row + s.V) - row == targets[i];
    double sum = 0.0;
    for (Index j = 0; j < s.V; ++j) sum += std::exp(row[j] - maximum);
    for (Index j = 0; j < s.V; ++j) {
      const double d = (std::exp(row[j] - maximum) / sum - (j == targets[i] ? 1.0 : 0.0)) /
                       static_cast<double>(s.M);
      for (Index k = 0; k < s.K; ++k) {
        expected_dx[i * s.K + k] += d * static_cast<double>(w[j * s.K + k]);
        expected_dw[j * s.K + k] += d * static_cast<double>(x[i * s.K + k]);
      }
    }
  }

  // A logit is off by K eps times its terms; a row of M times the gradient, whose magnitudes sum to
  // at most 2, by twice that and by V eps of the softmax's sum, relative to each element; the
  // products add V, or M, roundings.
  const double logit_error = static_cast<double>(s.K + 1) * kEpsilon<T> * logits.most_terms;
  const double gradient_error =
      2.0 * (2.0 * logit_error + static_cast<double>(s.V + 8) * kEpsilon<T>);
  const double dx_error =
      (gradient_error + 2.0 * static_cast<double>(s.V) * kEpsilon<T>)*largest(to_double(w)) /
      static_cast<double>(s.M);
  const double dw_error =
      (gradient_error + 2.0 * static_cast<double>(s.M) * kEpsilon<T>)*largest(to_double(x)) +
      static_cast<double>(s.M) * kEpsilon<T> * largest(expected_dw);
  const double loss_error =
      2.0 * logit_error + static_cast<double>(s.V) * kEpsilon<T> * (1.0 + expected_loss);

  struct Result {
    std::vector<T> dx, dw;
    double loss;
    bool operator==(const Result&) const = default;
  };
  const auto run = [&](const Context& context) {
    Strided<T> x_view(s.M, s.K, 3, x), w_view(s.V, s.K, 1, w);
    Strided<T> dx(s.M, s.K, 2), dw(s.V, s.K, 4, dw_start), scratch(chunk, s.V, 5);
    LossSums sums{.loss = -1.0, .correct = -1, .count = -1};
    LinearCrossEntropy<T> args{.x = x_view.view(),
                               .weight = w_view.view(),
                               .targets = targets.data(),
                               .logits = scratch.view(),
                               .sums = &sums};
    linear_cross_entropy<T>(context, args);
    EXPECT_NEAR(sums.loss / static_cast<double>(s.M), expected_loss, loss_error);
    args.dx = dx.view();
    args.dweight = dw.view();
    linear_cross_entropy<T>(context, args);
    EXPECT_EQ(sums.count, s.M);
    EXPECT_EQ(sums.correct, correct);
    EXPECT_NEAR(sums.loss / static_cast<double>(s.M), expected_loss, loss_error);
    EXPECT_TRUE(dx.gaps_untouched() && dw.gaps_untouched() && scratch.gaps_untouched());
    return Result{dx.values(), dw.values(), sums.loss};
  };
  expect_same_on_any_threads(run);
  const Result result = run({});
  EXPECT_TRUE(near("dx", result.dx, expected_dx, dx_error / largest(expected_dx)));
  EXPECT_TRUE(near("dweight", result.dw, expected_dw, dw_error / largest(expected_dw)));
}

// One row; chunks of one row, that do and do not divide the rows, of all rows and of more.
TEST(LinearCrossEntropy, EqualsPlainLoopsForChunksOfAnyLength) {
  for (const HeadSize size : {HeadSize{1, 4, 1}, {1, 33, 5}, {7, 33, 5}, {257, 130, 31}}) {
    for (const Index chunk : {Index{1}, Index{3}, size.M, size.M + 2}) {
      check_linear_cross_entropy<float>(size, chunk);
      check_linear_cross_entropy<double>(size, chunk);
    }
  }
}

// Cells with their results are committed from when the head was these three operations.
TEST(LinearCrossEntropy, OneChunkGivesTheBitsOfThreeOperations) {
  constexpr Index M = 1536, V = 128, K = 32;
  ASSERT_LE(M, logit_chunk_rows(Device::cpu, V));
  const auto x = random_values<float>(M * K, 1);
  const auto w = random_values<float>(V * K, 2);
  std::vector<std::int32_t> targets;
  for (Index i = 0; i < M; ++i) targets.push_back(static_cast<std::int32_t>((i * 5) % V));
  struct Result {
    std::vector<float> dx = std::vector<float>(M * K), dw = std::vector<float>(V * K);
    std::vector<float> logits = std::vector<float>(M * V);
    LossSums sums;
  };
  const Context context{.threads = 2};
  const Matrix<const float> rows(x.data(), M, K), weight(w.data(), V, K);
  Result one;
  linear_cross_entropy<float>(context, {.x = rows,
                                        .weight = weight,
                                        .targets = targets.data(),
                                        .logits = {one.logits.data(), M, V},
                                        .dx = {one.dx.data(), M, K},
                                        .dweight = {one.dw.data(), V, K},
                                        .sums = &one.sums});
  Result three;
  const Matrix<float> logits(three.logits.data(), M, V);
  linear_forward<float>(context, {.x = rows, .weight = weight, .y = logits});
  cross_entropy<float>(
      context,
      {.logits = logits, .targets = targets.data(), .dlogits = logits, .sums = &three.sums});
  linear_backward<float>(context, {.x = rows,
                                   .weight = weight,
                                   .dy = logits,
                                   .dx = {three.dx.data(), M, K},
                                   .dweight = {three.dw.data(), V, K}});
  EXPECT_EQ(one.dx, three.dx);
  EXPECT_EQ(one.dw, three.dw);
  EXPECT_EQ(one.sums.loss, three.sums.loss);
  EXPECT_EQ(one.sums.correct, three.sums.correct);
}

TEST(LinearCrossEntropy, ChunksDependOnTheDeviceAndTheVocabularyOnly) {
  EXPECT_EQ(logit_chunk_rows(Device::cpu, 128), 32'768);
  EXPECT_EQ(logit_chunk_rows(Device::cpu, 8192), 512);  // 16 MiB in float
  EXPECT_EQ(logit_chunk_rows(Device::cpu, Index{1} << 24), 1);
  EXPECT_EQ(logit_chunk_rows(Device::cuda, 8192), 4096);
}

LossSums sums_of(const std::vector<float>& logits, const std::vector<std::int32_t>& targets) {
  const auto rows = static_cast<Index>(targets.size());
  LossSums sums;
  cross_entropy<float>({},
                       {.logits = {logits.data(), rows, static_cast<Index>(logits.size()) / rows},
                        .targets = targets.data(),
                        .dlogits = {},
                        .sums = &sums});
  return sums;
}

TEST(CrossEntropy, FirstOfEqualLogitsWins) {
  EXPECT_EQ(sums_of({0, 5, 5, 1, 0, 5, 5, 1}, {1, 2}).correct, 1);
}

TEST(CrossEntropy, NanAndInfiniteLogitsGiveNanLoss) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (Index place : {0, 2}) {
      std::vector<float> logits = {1, 2, 3};
      logits[place] = bad;
      EXPECT_TRUE(std::isnan(sums_of(logits, {1}).loss)) << bad << " at " << place;
    }
  }
}

}  // namespace
}  // namespace vla_bench::ops
