#include "mixers/work.h"

#include "core/count.h"

namespace vla_bench {
namespace {

/// Multiply-adds of one head over the whole sequence.
Index multiply_adds(const MixerConfig& mixer, LatencyPass pass, Index tokens, Index d) {
  const auto factor = [&](Index forward, Index backward) {
    return pass == LatencyPass::forward ? forward : backward;
  };
  if (mixer.is<SoftmaxOptions>()) {
    // tokens * (tokens + 1) is even, and halved before it can be cut off.
    return times({factor(2, 5), tokens % 2 == 0 ? tokens / 2 : tokens,
                  tokens % 2 == 0 ? tokens + 1 : tokens / 2 + 1, d});
  }
  if (mixer.is<LinearOptions>()) return times({factor(2, 6), tokens, d, d});
  if (mixer.is<DeltaNetOptions>()) return times({factor(3, 9), tokens, d, d});
  const bool frozen = mixer.get<VlaOptions>().penalty == Penalty::frozen;
  return times({frozen ? factor(3, 7) : factor(6, 16), tokens, d, d});
}

}  // namespace

Work core_work(const MixerConfig& mixer, const HeadDims& dims, LatencyPass pass,
               Index element_bytes) {
  const Index d = dims.d_h;
  const Index inputs = 3 * d + aux_width(mixer_traits(mixer), d);
  const Index numbers = pass == LatencyPass::forward ? inputs + d : 2 * inputs + 2 * d;
  return {.flop = times({2, dims.batch, dims.heads, multiply_adds(mixer, pass, dims.tokens, d)}),
          .bytes = times({dims.batch, dims.tokens, dims.heads, numbers, element_bytes})};
}

}  // namespace vla_bench
