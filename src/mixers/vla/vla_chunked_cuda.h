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
// Measured on one H200 at 954fb71, when a root of J took half of a composition, B = 4, H = 1, d =
// 64, grade tf32, in milliseconds:
//                          T = 2,048   4,096   16,384   65,536   131,072
//   segments                       8      16       32       64        66
//   elements                    .106    .106     .170     .418      .770
//   compositions and join       .091    .196     .285     .386      .391
//   chunks                      .068    .071     .131     .346      .653
//   all                         .252    .341     .545    1.070     1.743
// A chunk of 32 tokens takes 7 us in a block that has a multiprocessor for itself and 10 us in two
// that share one: 2.2 us are the factorisation by one warp (195 cycles for two pivots: 90
// instructions and their latencies), the others products of .4 to 1.4 us a step, a tile or two a
// warp, that wait for their operands and for one another. A composition takes 65 us, a step of the
// join 13 us (68 us at d = 128): chains, too. The arithmetic alone would take .33 ms of the 1.74 at
// 62% of the tensor cores' peak (104k multiply-adds a token).
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
