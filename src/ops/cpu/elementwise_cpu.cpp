// GELU, gates and zeroing over flat buffers.
#include <cmath>
#include <numbers>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench::ops::cpu {
namespace {

/// Calls body(first, last) for every block of 0 .. count-1.
template <class Body>
void for_each_block(const Context& context, Index count, const Body& body) {
  const Blocks blocks{count, kElementBlock};
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    body(blocks.first(block), blocks.first(block) + blocks.length(block));
  }
}

/// Phi(x), the standard normal distribution function.
template <class T>
inline T normal_cdf(T x) {
  return T(0.5) * (1 + erf(x * static_cast<T>(1 / std::numbers::sqrt2)));
}

}  // namespace

template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count) {
  for_each_block(context, count, [=](Index first, Index last) {
#pragma omp simd
    for (Index i = first; i < last; ++i) y[i] = x[i] * normal_cdf(x[i]);
  });
}

template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count) {
  constexpr T kInverseSqrtTwoPi = static_cast<T>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
  for_each_block(context, count, [=](Index first, Index last) {
#pragma omp simd
    for (Index i = first; i < last; ++i) {
      const T density = kInverseSqrtTwoPi * exp(T(-0.5) * x[i] * x[i]);
      dx[i] = dy[i] * (normal_cdf(x[i]) + x[i] * density);
    }
  });
}

template <class T>
void gated_sum_forward(const Context& context, const GatedSum<T>& args) {
  for_each_block(context, args.count, [=](Index first, Index last) {
#pragma omp simd
    for (Index i = first; i < last; ++i) {
      args.y[i] = args.residual[i] + args.x[i] + args.value[i] * args.gate[i];
    }
  });
}

template <class T>
void gated_sum_backward(const Context& context, const GatedSumBackward<T>& args) {
  for_each_block(context, args.count, [=](Index first, Index last) {
#pragma omp simd
    for (Index i = first; i < last; ++i) {
      args.dvalue[i] = args.dy[i] * args.gate[i];
      args.dgate[i] = args.dy[i] * args.value[i];
    }
  });
}

template <class T>
void fill_zero(const Context& context, T* data, Index count) {
  for_each_block(context, count,
                 [=](Index first, Index last) { std::fill(data + first, data + last, T(0)); });
}

template void gelu_forward(const Context&, const float*, float*, Index);
template void gelu_forward(const Context&, const double*, double*, Index);
template void gelu_backward(const Context&, const float*, const float*, float*, Index);
template void gelu_backward(const Context&, const double*, const double*, double*, Index);
template void gated_sum_forward(const Context&, const GatedSum<float>&);
template void gated_sum_forward(const Context&, const GatedSum<double>&);
template void gated_sum_backward(const Context&, const GatedSumBackward<float>&);
template void gated_sum_backward(const Context&, const GatedSumBackward<double>&);
template void fill_zero(const Context&, float*, Index);
template void fill_zero(const Context&, double*, Index);

}  // namespace vla_bench::ops::cpu
