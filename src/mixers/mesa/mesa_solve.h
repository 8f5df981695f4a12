// The solves of step 4 of mesa.h on a GPU, C tokens side by side.
//
// With H before the chunk and Gamma(s, t) = gamma_{s+1} ... gamma_t,
//   H_t p = Gamma(0, t) H p + sum over s <= t of Gamma(s, t) (k_s . p) a_s,   a = beta k,
// so H_t is never written: a step of conjugate gradients for all tokens of a chunk is three
// products of matrices on tensor cores. A warp owns 16 tokens and keeps x, the residual, p and H p
// of each in registers, the accumulators of one product being the left operand of the next; it
// meets no barrier, and stops when its tokens have converged.
//
// Three kernels: what each chunk adds to H and the product of its gamma; H before each chunk, one
// after the other, an element a thread; the solves.
//
// Multiply-adds per token and head: the first d^2, the second d^2 / C, a step d^2 + d (C + 16),
// where 3xTF32 does each three times. Steps grow with the root of the condition number: some 10
// for keys that fade over a few tokens. Bytes: d^2 / C read twice and written twice, 4 d of rows.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/chunked_cuda.h"

namespace vla_bench::mixers::cuda {

/// C, tokens of a chunk.
constexpr int solve_tokens(Index d) { return d <= 64 ? 64 : 32; }
inline Index solve_chunks(const HeadDims& dims) {
  return (dims.tokens + solve_tokens(dims.d_h) - 1) / solve_tokens(dims.d_h);
}

/// The tokens' rows, and H before every chunk with the product of the chunk's gamma.
struct ChunkRows {
  int tokens, heads, channels, chunks;
  TokenView<const float> k, a, gamma;  // (B, T, H, d), gamma (B, T, H, 1)
  float* h;                            // (B, H, chunks, D, D)
  float* decay;                        // (B, H, chunks)
};

struct SolveArgs {
  ChunkRows rows;
  TokenView<const float> rhs;  // (B, T, H, d)
  TokenView<float> x;          // (B, T, H, d)
  float factor;                // of x
  const float* ridge;          // (H, d): l of mesa.h
  bool as_given;
};

/// H before every chunk; then the solves, at Grade float32 or tf32. Of one head size: mesa_solve.cu
/// is compiled once for each.
template <int D>
void find_entries(cudaStream_t stream, const HeadDims& dims, const ChunkRows& rows);
template <int D>
void solve(cudaStream_t stream, Grade grade, const HeadDims& dims, const SolveArgs& args);

}  // namespace vla_bench::mixers::cuda
