// Shared by the production cores on the CPU: one lane (batch element and head) per work item, with
// its tokens gathered into contiguous rows, a tile at a time.
#pragma once

#include <omp.h>

#include <algorithm>

#include "core/vectors.h"
#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Tokens per tile: a multiple of every kernel's unrolling, and few enough that a tile's rows stay
/// in L1 together with the state.
inline constexpr Index kTileTokens = 32;

/// Calls body(batch, head, scratch) for every lane; scratch is `scratch_size` elements that start
/// as zeros and are reused from lane to lane. One thread computes a lane, so results do not depend
/// on the number of threads.
template <class T, class Body>
void for_each_lane(const Context& context, const HeadDims& dims, Index scratch_size,
                   const Body& body) {
  const Index lanes = dims.lanes();
  const int threads = static_cast<int>(std::clamp<Index>(context.threads, 1, lanes));
  // A cache line separates the threads' parts.
  const Index part = padded<T>(scratch_size) + 64 / static_cast<Index>(sizeof(T));
  Array<T> scratch(Device::cpu, threads * part);
  T* const parts = scratch.data();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index lane = 0; lane < lanes; ++lane) {
    body(lane / dims.heads, lane % dims.heads, parts + omp_get_thread_num() * part);
  }
}

/// Allocates consecutive pieces of a lane's scratch.
template <class T>
class ScratchAllocator {
 public:
  explicit ScratchAllocator(T* base) : next_(base) {}
  T* take(Index size) {
    T* const piece = next_;
    next_ += size;
    return piece;
  }

 private:
  T* next_;
};

/// `count` tokens of one lane; token i of the tile is token first + i, or first - i when they are
/// visited against time. Rows of `batch` start at batch * tokens.
struct Tile {
  Index batch, head, tokens;  // tokens: T
  Index first, count;
  bool reversed = false;

  Index row(Index i) const { return batch * tokens + (reversed ? first - i : first + i); }
};

/// Calls `body` with the tiles of a lane in the order of time, or against it; the tiles are the
/// same.
template <class Body>
void for_each_tile(Index batch, Index head, Index tokens, bool reversed, const Body& body) {
  const Index tiles = (tokens + kTileTokens - 1) / kTileTokens;
  for (Index i = 0; i < tiles; ++i) {
    const Index begin = (reversed ? tiles - 1 - i : i) * kTileTokens;
    const Index count = std::min(kTileTokens, tokens - begin);
    body(Tile{batch, head, tokens, reversed ? begin + count - 1 : begin, count, reversed});
  }
}

/// rows[i] = token i of the tile, `width` channels; leaves the rows' tails unchanged.
template <class T>
void gather(const Tile& tile, HeadView<const T> view, Index width, T* rows, Index stride) {
  for (Index i = 0; i < tile.count; ++i) {
    std::copy_n(view.at(tile.row(i), tile.head), width, rows + i * stride);
  }
}

}  // namespace vla_bench::mixers
