#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/column_sums.h"

namespace vla_bench::ops::cuda {
namespace {

struct PlainTerms {
  static constexpr int kSums = 1;
  const float* x;  // (M, N)
  Index stride;
  float* sums;  // (N), accumulates

  __device__ void add(int, Index first, Index last, int column, double* partial) const {
#pragma unroll 4
    for (Index row = first; row < last; ++row) {
      *partial += static_cast<double>(x[row * stride + column]);
    }
  }
  __device__ void store(int, int column, const double* total) const {
    sums[column] += static_cast<float>(*total);
  }
};

}  // namespace

void add_column_sums(cudaStream_t stream, Matrix<const float> x, float* sums) {
  sum_columns(stream, PlainTerms{.x = x.data, .stride = x.stride, .sums = sums}, x.rows, x.cols);
}

}  // namespace vla_bench::ops::cuda
