// The head's products and loss, chunk of rows by chunk of rows, on any device.
#include <algorithm>

#include "ops/ops.h"

namespace vla_bench::ops {
namespace {

template <class M>
M rows_of(const M& matrix, Index first, Index count) {
  return {matrix.row(first), count, matrix.cols, matrix.stride};
}

}  // namespace

Index logit_chunk_rows(Device device, Index V) {
  const Index logits = Index{1} << (device == Device::cuda ? 25 : 22);
  return std::max<Index>(1, logits / V);
}

template <class T>
void linear_cross_entropy(const Context& context, const LinearCrossEntropy<T>& args) {
  const Index M = args.x.rows;
  const bool gradients = !args.dx.empty();
  for (Index first = 0; first < M; first += args.logits.rows) {
    const Index count = std::min(args.logits.rows, M - first);
    const Matrix<const T> x = rows_of(args.x, first, count);
    const Matrix<T> logits = rows_of(args.logits, 0, count);
    // dW of the chunk before still reads its logits.
    if (gradients && first > 0) join_side_streams(context);
    linear_forward<T>(context, {.x = x, .weight = args.weight, .y = logits});
    cross_entropy<T>(context, {.logits = logits,
                               .targets = args.targets + first,
                               .dlogits = gradients ? logits : Matrix<T>(),
                               .sums = args.sums,
                               .mean_rows = M,
                               .accumulate = first > 0});
    if (!gradients) continue;
    linear_backward<T>(context, {.x = x,
                                 .weight = args.weight,
                                 .dy = logits,
                                 .dx = rows_of(args.dx, first, count),
                                 .dweight = args.dweight,
                                 .on_side_stream = true});
  }
}

template void linear_cross_entropy(const Context&, const LinearCrossEntropy<float>&);
template void linear_cross_entropy(const Context&, const LinearCrossEntropy<double>&);

}  // namespace vla_bench::ops
