// The penalty path of VLA in chunks, on tensor cores: vla_chunked.h on a GPU, in place of
// penalty_forward of vla_penalty_cuda.h. Numbers are vla_chunked.h's steps.
//
// A lane's tokens are cut into segments that run side by side, a block each:
//   elements  12: what a segment makes of the A that enters it, every segment but the last
//   join      13: the A that enters each; neighbouring elements composed first (14), where there are
//             many, in levels of half as many each
//   chunks    1 to 5 from there; with one segment the only launch
// Everything that A is made of is float32 or 3xTF32; the products of step 4 are so at grade
// float32, and TF32 at grade tf32.
//
// Multiply-adds a token and head, whole tiles counted; those of A times 3 in TF32:
//   chunks    1.5 d^2 + d (C + 24) + C^2 / 6 + 128, and d^2 + d (C + 16) for the first form of 4
//   elements  the former, and 2.5 d^2 + d (C / 2 + 16)
//   a step of the join 5.6 d^3 (4.3 at d = 128), a composition 9.6 d^3 and a root, d^3 / 3
// Bytes a token and head: 12 d read (u twice, k), 4 d written, and 4 d + 8 for the backward.
//
// Measured on one H200 at 9132310, B = 4, H = 1, d = 64, grade tf32, in milliseconds, and in
// brackets 16 heads of 128, B = 1:
//                          T = 512   4,096         16,384         65,536   131,072
//   segments                     1      16 (8)         32 (8)         64        66
//   elements                          .087 (.376)    .151 (1.25)    .399      .751
//   compositions and join             .159 (.411)    .220 (.410)    .283      .299
//   chunks                    .105    .057 (.208)    .115 (.782)    .304      .583
//   all                       .105    .303 (.995)    .486 (2.44)    .986     1.632
// A chunk of 32 tokens takes 6.3 us in a block that has a multiprocessor for itself (9.1 with A in
// shared memory, before a598eee) and 9 us in two that share one. Of the former W takes 1,500
// cycles, the Gram matrix 1,600, the factorisation 5,600, Z 1,300 and A 1,600; beside the
// factorisation the row warps work for 5,000. All of them wait for results: tensor cores are busy a
// fifth of the time. With two blocks a multiprocessor, warps also wait a fifth of their time for
// instructions, since the kernel exceeds the instruction cache; so the factorisation's pivots are a
// loop here, which makes chunks a quarter faster there and a tenth slower in one block. Tried: four
// pivots at a time instead of two (m16n8k4), equally fast; a column of the block a thread and one
// pivot at a time (9395ab4), chunks a seventh to a third slower, since the compiler has only two of
// the broadcasts under way at once; elements with C and E^T in registers, a tenth faster up to
// 16,384 tokens and a fifth slower at 131,072, because their blocks are twice as large. A step of
// the join takes 13 us (68 at d = 128). The arithmetic alone would take .33 ms of the 1.63 at 62%
// of the tensor cores' peak (104k multiply-adds a token).
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {

struct PenaltyChunks {
  Grade grade = Grade::float32;  // of step 4's products
  float u_scale = 0.0F;     // penalty key: u = u_scale k, and step 4 in its cheaper form; 0: any u
  bool gain = false;        // kalman.h's gain a = w^ / sqrt(delta) in the place of step 4
  TokenView<Bfloat16> a{};  // in the place of penalty_forward's, unless empty
  int segments = 1;         // that a lane is cut into; the last ones may turn out to be none
  float* workspace = nullptr;  // penalty_workspace_size floats, aligned to 16 bytes
  int* low_pivots = nullptr;   // the number of pivots below kLeastPivot is added; null: not counted
  float* ends = nullptr;       // A behind every segment, penalty_ends_size floats, for the backward
};

/// As many segments as run fastest: of d = 64 and 4 lanes 8, 16, 32 and 64 at 2,048, 4,096, 16,384
/// and 65,536 tokens, up to two blocks a multiprocessor (one at d = 128). 1 where they do not help,
/// and where stab_eps is above 1, which elements cannot do.
int plan_penalty_segments(const HeadDims& dims, const PenaltySettings& settings,
                          int multiprocessors);

/// Segments of whole chunks for `wanted`, none of no tokens.
int penalty_segments(const HeadDims& dims, const PenaltySettings& settings, int wanted);
/// Floats for that many; the backward of them takes no more.
Index penalty_workspace_size(const HeadDims& dims, int segments);
Index penalty_ends_size(const HeadDims& dims, int segments);

/// What penalty_forward computes, with the same arguments.
void penalty_forward_chunked(cudaStream_t stream, const PenaltyForward& args,
                             const PenaltyChunks& chunks);

/// What penalty_backward and penalty_reads compute, from the `ends` of penalty_forward_chunked with
/// the same segments: du and dk; args.dw and args.w_share are not written.
void penalty_backward_chunked(cudaStream_t stream, const PenaltyBackward& args, const float* ends,
                              const TokenView<float>& du, const TokenView<float>& dk,
                              const PenaltyChunks& chunks);

/// Of one head size: vla_chunked_cuda.cu, vla_chunked_backward_cuda.cu and what they launch are
/// compiled once for each.
template <int D>
void penalty_forward_chunked(cudaStream_t stream, const PenaltyForward& args,
                             const PenaltyChunks& chunks);
template <int D>
void penalty_backward_chunked(cudaStream_t stream, const PenaltyBackward& args, const float* ends,
                              const TokenView<float>& du, const TokenView<float>& dk,
                              const PenaltyChunks& chunks);

}  // namespace vla_bench::mixers::cuda
