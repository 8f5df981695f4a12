// Tiles of softmax attention on a GPU, by name (softmax_tiles.h has their sizes).
#pragma once

namespace vla_bench::mixers {

/// Which of the compiled tiles to run, from one warp per block with 16 rows to the widest. by_shape
/// is softmax_tiles.h's choice; the others let tests run every kernel at every size. whole_lane is
/// the float32 backward in one kernel wherever it can run, and by_shape for everything else.
enum class SoftmaxTiling { by_shape, narrow, shared_keys, medium, wide, whole_lane };

}  // namespace vla_bench::mixers
