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
// Multiply-adds a token and head, tiles of triangles counted as they are computed: chunks 2 d^2 +
// 2 d C + C^2 / 2, step 4 in its first form d^2 + 1.3 d C more; elements 2 d^2 + d C and what
// chunks have without step 4; join 6.5 d^3 a segment. Bytes a token and head: 12 d read (u twice,
// k), 4 d written (8 d and 8 with what the backward needs).
//
// Floor, d = 64, C = 64, one lane's chunk on one multiprocessor: 3.2 products of 64^3 in 3xTF32 at
// 0.7 us (tensor cores at the 62% of their peak that mma reaches) and, in a chain of their own, 64
// pivots of 25 ns: 4 us. Off that chain and under its pivots lie step 4 and an element's E and J.
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers::cuda {

struct PenaltyChunks {
  Grade grade = Grade::float32;  // of step 4's products
  float u_scale = 0.0F;  // penalty key: u = u_scale k, and step 4 in its cheaper form; 0: any u
  int segments = 0;      // 1 where stab_eps is above 1; 0: as many as run fastest
  float* workspace = nullptr;  // penalty_workspace_size floats, aligned to 16 bytes
  int* low_pivots = nullptr;   // the number of pivots below kLeastPivot is added; null: not counted
};

/// Segments that a lane is cut into: `wanted`, or as many as run fastest on this device.
int penalty_segments(const HeadDims& dims, const PenaltySettings& settings, int wanted);
/// Floats for that many.
Index penalty_workspace_size(const HeadDims& dims, int segments);

/// What penalty_forward computes, with the same arguments.
void penalty_forward_chunked(cudaStream_t stream, const PenaltyForward& args,
                             const PenaltyChunks& chunks);

}  // namespace vla_bench::mixers::cuda
