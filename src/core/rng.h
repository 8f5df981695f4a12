// Counter-based random numbers (Random123, Philox4x32-10; Salmon et al. 2011). A draw depends on
// (seed, stream, index, lane, position) alone, never on thread count or order, so batches are the
// same on every device and a resumed run sees the data it would have seen.
#pragma once

#include "core/host_device.h"
// Random123 takes CUDA for code of the device alone.
#define R123_CUDA_DEVICE VLA_HOST_DEVICE
#include <Random123/philox.h>

#include <cmath>
#include <cstdint>

namespace vla_bench {

/// One independent sequence per purpose. Values are part of the results' identity: never renumber.
enum class RngStream : std::uint32_t {
  parameters = 1,    // index: parameter's position in the table, lane: 0
  train_batch = 2,   // index: step, lane: row of the batch
  eval_batch = 3,    // index: batch, lane: row
  probe_tokens = 4,  // index: 0, lane: row
  recall = 5,        // index: trial, lane: 0 keys, 1 codebook, 2 value ids
  gaussian = 6,      // index: token, lane: head
  benchmark = 7,     // inputs of timings and tests
};

/// A uniform 32-bit value as one of 0 .. n-1 by multiply-shift; the bias is below n / 2^32.
VLA_HOST_DEVICE inline std::uint32_t scale_below(std::uint32_t value, std::uint32_t n) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(value) * n) >> 32);
}

/// A sequence of draws. 2^32 lanes and indices, 2^34 positions each.
class Rng {
 public:
  VLA_HOST_DEVICE Rng(std::uint64_t seed, RngStream stream, std::uint32_t index, std::uint32_t lane)
      : key_{{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}},
        counter_{{0, lane, index, static_cast<std::uint32_t>(stream)}} {}

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

  /// Draws 4 block .. 4 block + 3 of the sequence, wherever it stands: for threads that share it.
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
