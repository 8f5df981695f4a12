// Embedding tables, gather and scatter of rows; one warp per row.
//
// At the published size (M = 4,672, D = 128, 1,536 rows with a target) the embedding writes 2.4 MB
// from tables in L2, gather moves 1.6 MB, scatter 3.2 MB: floors below 1 us; 2 us expected each,
// and one more for scatter's zeroing.
#include <cuda_runtime.h>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "ops/backends.h"
#include "ops/cuda/positions.cuh"
#include "ops/cuda/vectors.cuh"
#include "ops/cuda/warp_row.cuh"

namespace vla_bench::ops::cuda {
namespace {

/// The row of the calling thread of kBlock.
__device__ inline Index row_of_thread() {
  return static_cast<Index>(blockIdx.x) * kRowsOfBlock + threadIdx.y;
}

const dim3 kBlock(kWarp, kRowsOfBlock);

/// A matrix in units of Value: float, or float4 where rows and addresses allow it.
template <class Value>
struct Rows {
  Value* data;
  Index stride;
};
template <class Value>
Rows<Value> rows_of(Matrix<float> matrix) {
  constexpr Index kWidth = sizeof(Value) / sizeof(float);
  return {reinterpret_cast<Value*>(matrix.data), matrix.stride / kWidth};
}
template <class Value>
Rows<const Value> rows_of(Matrix<const float> matrix) {
  constexpr Index kWidth = sizeof(Value) / sizeof(float);
  return {reinterpret_cast<const Value*>(matrix.data), matrix.stride / kWidth};
}

/// Calls run.template operator()<Value>(columns in units of Value).
template <class Run, class... Matrices>
void dispatch_value(Index columns, const Run& run, const Matrices&... matrices) {
  const bool vectors = columns % kVector == 0 && ((matrices.stride % kVector == 0) && ...) &&
                       aligned_for_vectors(matrices.data...);
  if (vectors) {
    run.template operator()<float4>(static_cast<int>(columns / kVector));
  } else {
    run.template operator()<float>(static_cast<int>(columns));
  }
}

__device__ inline float sum_of(float a, float b) { return a + b; }
__device__ inline float4 sum_of(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

template <class Value>
__global__ void embedding_forward_kernel(const std::int32_t* tokens, Index tokens_per_row,
                                         Rows<const Value> token_table,
                                         Rows<const Value> position_table, Rows<Value> h,
                                         Index rows, int columns) {
  const Index row = row_of_thread();
  if (row >= rows) return;
  const Value* token = token_table.data + tokens[row] * token_table.stride;
  const Value* position =
      position_table.data + token_of_row(row, tokens_per_row) * position_table.stride;
  Value* out = h.data + row * h.stride;
  for (int column = static_cast<int>(threadIdx.x); column < columns; column += kWarp) {
    out[column] = sum_of(token[column], position[column]);
  }
}

/// Row from_rows[i] of `from` becomes row to_rows[i] of `to`; a null list stands for i itself.
template <class Value>
__global__ void move_rows_kernel(Rows<const Value> from, const std::int32_t* from_rows,
                                 Rows<Value> to, const std::int32_t* to_rows, Index rows,
                                 int columns) {
  const Index row = row_of_thread();
  if (row >= rows) return;
  const Index from_row = from_rows != nullptr ? Index{from_rows[row]} : row;
  const Index to_row = to_rows != nullptr ? Index{to_rows[row]} : row;
  const Value* source = from.data + from_row * from.stride;
  Value* target = to.data + to_row * to.stride;
  for (int column = static_cast<int>(threadIdx.x); column < columns; column += kWarp) {
    target[column] = source[column];
  }
}

void move_rows(Matrix<const float> from, const std::int32_t* from_rows, Matrix<float> to,
               const std::int32_t* to_rows, Index rows, const char* operation) {
  if (rows == 0) return;
  dispatch_value(
      to.cols,
      [&]<class Value>(int columns) {
        move_rows_kernel<Value>
            <<<row_blocks(rows), kBlock, 0, vla_bench::cuda::stream_context().stream()>>>(
                rows_of<Value>(from), from_rows, rows_of<Value>(to), to_rows, rows, columns);
      },
      from, to);
  VLA_CUDA_LAUNCHED(operation);
}

}  // namespace

void embedding_forward(const Context&, const EmbeddingForward<float>& args) {
  if (args.h.rows == 0) return;
  if (args.position_table.empty()) {
    return move_rows(args.token_table, args.tokens, args.h, nullptr, args.h.rows,
                     "embedding_forward");
  }
  dispatch_value(
      args.h.cols,
      [&]<class Value>(int columns) {
        embedding_forward_kernel<Value>
            <<<row_blocks(args.h.rows), kBlock, 0, vla_bench::cuda::stream_context().stream()>>>(
                args.tokens, args.tokens_per_row, rows_of<Value>(args.token_table),
                rows_of<Value>(args.position_table), rows_of<Value>(args.h), args.h.rows, columns);
      },
      args.token_table, args.position_table, args.h);
  VLA_CUDA_LAUNCHED("embedding_forward");
}

void gather_rows(const Context&, Matrix<const float> in, const std::int32_t* rows,
                 Matrix<float> out) {
  move_rows(in, rows, out, nullptr, out.rows, "gather_rows");
}

void scatter_rows(const Context&, Matrix<const float> in, const std::int32_t* rows,
                  Matrix<float> out) {
  if (out.rows == 0) return;
  const auto row_bytes = static_cast<std::size_t>(out.cols) * sizeof(float);
  VLA_CUDA(cudaMemset2DAsync(out.data, static_cast<std::size_t>(out.stride) * sizeof(float), 0,
                             row_bytes, static_cast<std::size_t>(out.rows),
                             vla_bench::cuda::stream_context().stream()));
  move_rows(in, nullptr, out, rows, in.rows, "scatter_rows");
}

}  // namespace vla_bench::ops::cuda
