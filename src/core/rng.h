// Counter-based random numbers (Random123, Philox4x32-10; Salmon et al. 2011). A draw depends on
// only (seed, stream, index, substream, position), never on thread count or order, so batches are
// the same on every device and a resumed run sees the data it would have seen.
#pragma once

#include "core/host_device.h"
// Under CUDA Random123 would mark its functions __device__ only.
#define R123_CUDA_DEVICE VLA_HOST_DEVICE
#include <Random123/philox.h>

#include <cmath>
#include <cstdint>

namespace vla_bench {

/// One independent sequence per purpose. Values are part of the results' identity; never renumber.
enum class RngStream : std::uint32_t {
  parameters = 1,    // index: parameter's position in the table, substream: 0
  train_batch = 2,   // index: step, substream: row of the batch
  eval_batch = 3,    // index: batch, counted over all slices, substream: row
  probe_tokens = 4,  // index: 0, substream: row
  recall = 5,        // index: trial, substream: 0 keys, 1 codebook, 2 value ids,
                     // 3 keys and 4 value ids of the stream
  gaussian = 6,      // index: token, substream: head
  benchmark = 7,     // inputs of timings and tests
  segments = 8,      // index: cycle, substream: 0
  stop_batch = 9,    // index: batch, substream: row
  codes = 10,        // index: token of the vocabulary, substream: head
};

/// Maps a uniform 32-bit value to 0 .. n-1 by multiply-shift; the bias is below n / 2^32.
VLA_HOST_DEVICE inline std::uint32_t scale_below(std::uint32_t value, std::uint32_t n) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(value) * n) >> 32);
}

/// A sequence of draws. There are 2^32 substreams and indices, with 2^34 positions each.
class Rng {
 public:
  VLA_HOST_DEVICE Rng(std::uint64_t seed, RngStream stream, std::uint32_t index,
                      std::uint32_t substream)
      : key_{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}},
        counter_{{0, substream, index, static_cast<std::uint32_t>(stream)}} {}

  /// Uniform over all 32-bit values.
  VLA_HOST_DEVICE std::uint32_t next() {
    if (used_ == 4) {
      block_ = r123::Philox4x32()(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  /// Uniform over 0 .. n-1.
  VLA_HOST_DEVICE std::uint32_t below(std::uint32_t n) { return scale_below(next(), n); }

  /// Writes draws 4 block .. 4 block + 3 of the sequence, whatever its current position: for
  /// threads that share it.
  VLA_HOST_DEVICE void draw_block(std::uint32_t block, std::uint32_t* draws) const {
    r123::Philox4x32::ctr_type counter = counter_;
    counter[0] = block;
    const r123::Philox4x32::ctr_type drawn = r123::Philox4x32()(counter, key_);
    for (int i = 0; i < 4; ++i) draws[i] = drawn[i];
  }

  /// Uniform in (0, 1), 32 bits, never 0 and never 1.
  VLA_HOST_DEVICE double uniform() { return (next() + 0.5) * 0x1p-32; }

  /// Standard normal by Box-Muller; the second of each pair is kept for the next call.
  VLA_HOST_DEVICE double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    const double angle = 6.283185307179586476925 * uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  r123::Philox4x32::key_type key_;
  r123::Philox4x32::ctr_type counter_;
  r123::Philox4x32::ctr_type block_{};
  int used_ = 4;
  bool has_spare_ = false;
  double spare_ = 0.0;
};

}  // namespace vla_bench
