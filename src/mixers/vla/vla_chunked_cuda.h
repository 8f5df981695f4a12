// The penalty path of VLA in chunks, on tensor cores: vla_chunked.h on a GPU, in place of
// penalty_forward of vla_penalty_cuda.h. Numbers are vla_chunked.h's steps.
//
// A lane's tokens are cut into segments that run side by side, a block each, in three launches:
//   elements  12: what a segment makes of the A that enters it, every segment but the last
//   join      13: a block a lane, from segment to segment; leaves the A that enters each
//   chunks    1 to 5 from there; with one segment the only launch
// Everything that A is made of is float32 or 3xTF32; the products of step 4 are so at grade
// float32, and TF32 at grade tf32.
//
// Multiply-adds a token and head, whole tiles counted; those of A times 3 in TF32:
//   chunks    1.5 d^2 + d (C + 24) + C^2 / 3, and d^2 + d (C + 16) for the first form of 4
//   elements  the former, and 2.5 d^2 + d (C / 2 + 16)
//   join      5.6 d^3 a segment, 4.3 at d = 128
// Bytes a token and head: 12 d read (u twice, k), 4 d written, and 4 d + 8 for the backward.
//
// Floor on one H200 (1024 multiply-adds a cycle and multiprocessor in TF32, of which mma reaches
// 62%): B = 4, H = 1, d = 64, T = 131,072 has 120k a token at grade tf32, .43 ms; the chain of one
// of its 33 segments has 3,972 pivots of 20 to 25 ns, twice, .16 to .2 ms, and as long again in
// products, of which the next one needs the last; 31 joins of about 6 us, .19 ms; .54 GB, .12 ms.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {

struct PenaltyChunks {
  Grade grade = Grade::float32;  // of step 4's products
  float u_scale = 0.0F;  // penalty key: u = u_scale k, and step 4 in its cheaper form; 0: any u
  int segments = 1;      // that a lane is cut into; the last ones may turn out to be none
  float* workspace = nullptr;  // penalty_workspace_size floats, aligned to 16 bytes
  int* low_pivots = nullptr;   // the number of pivots below kLeastPivot is added; null: not counted
  float* ends = nullptr;       // A behind every segment, penalty_ends_size floats, for the backward
};

/// As many segments as run fastest; 1 where they do not help, and where stab_eps is above 1, which
/// elements cannot do.
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

}  // namespace vla_bench::mixers::cuda
