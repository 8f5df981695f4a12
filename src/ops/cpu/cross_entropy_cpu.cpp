// Softmax cross entropy, row by row.
#include <cmath>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::ops::cpu {
namespace {

/// The largest value; unspecified with a NaN among them (the sum of exponentials then is NaN).
template <class T>
T largest(const T* x, Index count) {
  T result = x[0];
#pragma omp simd reduction(max : result)
  for (Index j = 0; j < count; ++j) result = x[j] > result ? x[j] : result;
  return result;
}

struct RowLoss {
  double loss = 0.0;
  bool correct = false;
};

/// Returns the loss of one row; writes `scale` times its gradient to `dlogits` (may be null, may be
/// `logits`).
template <class T>
RowLoss row_loss(const T* logits, Index V, Index target, T* dlogits, T scale) {
  const T maximum = largest(logits, V);
  const T target_logit = logits[target];
  const bool correct = std::find(logits, logits + V, maximum) == logits + target;
  T sum = 0;
  if (dlogits == nullptr) {
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < V; ++j) sum += exp(logits[j] - maximum);
  } else {
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < V; ++j) {
      const T exponential = exp(logits[j] - maximum);
      dlogits[j] = exponential;
      sum += exponential;
    }
    const T factor = scale / sum;
#pragma omp simd
    for (Index j = 0; j < V; ++j) dlogits[j] *= factor;
    dlogits[target] -= scale;
  }
  return {static_cast<double>(std::log(sum) + (maximum - target_logit)), correct};
}

}  // namespace

template <class T>
void cross_entropy(const Context& context, const CrossEntropy<T>& args) {
  const Index M = args.logits.rows;
  const Index V = args.logits.cols;
  const Index mean_rows = args.mean_rows > 0 ? args.mean_rows : M;
  const T scale = static_cast<T>(1.0 / static_cast<double>(mean_rows));
  RowLoss* rows = scratch<RowLoss>(M);
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index i = 0; i < M; ++i) {
    T* dlogits = args.dlogits.empty() ? nullptr : args.dlogits.row(i);
    rows[i] = row_loss(args.logits.row(i), V, Index{args.targets[i]}, dlogits, scale);
  }
  LossSums sums = args.accumulate ? *args.sums : LossSums{};
  sums.count += M;
  for (Index i = 0; i < M; ++i) {
    sums.loss += rows[i].loss;
    sums.correct += rows[i].correct;
  }
  *args.sums = sums;
}

template void cross_entropy(const Context&, const CrossEntropy<float>&);
template void cross_entropy(const Context&, const CrossEntropy<double>&);

}  // namespace vla_bench::ops::cpu
