#include "mixers/work.h"

#include "core/count.h"
#include "mixers/list.h"

namespace vla_bench {
namespace {

/// Multiply-adds of one head over the whole sequence.
template <class Options>
Index multiply_adds_of(const Options& options, LatencyPass pass, const HeadDims& dims) {
  const Index tokens = dims.tokens;
  const Index d = dims.d_h;
  if constexpr (requires { multiply_adds(options, pass, tokens, d); }) {
    return multiply_adds(options, pass, tokens, d);
  } else {
    TokenCost cost;
    if constexpr (requires { token_cost(options); }) {
      cost = token_cost(options);
    } else {
      with_rule(options, d, [&](const auto& rule) { cost = token_cost(rule.form()); });
    }
    Index of_token = times(
        {pass == LatencyPass::forward ? cost.forward : cost.backward, d, dims.value_channels()});
    if constexpr (requires { chain_multiply_adds(options, pass, d); }) {
      of_token = plus({of_token, chain_multiply_adds(options, pass, d)});
    }
    return times({of_token, tokens});
  }
}

}  // namespace

Work core_work(const MixerConfig& mixer, const HeadDims& dims, LatencyPass pass,
               Index element_bytes) {
  const Index d = dims.d_h;
  const MixerLayout layout = mixer_layout(mixer, d);
  const Index d_v = dims.value_channels();
  Index inputs = 2 * layout.key_channels(d) + d_v;
  for (const Projection& projection : layout.more) inputs += projection.width;
  const Index numbers = pass == LatencyPass::forward ? inputs + d_v : 2 * inputs + 2 * d_v;
  const Index multiply_adds = std::visit(
      [&](const auto& options) { return multiply_adds_of(options, pass, dims); }, mixer.options);
  return {.flop = times({2, dims.batch, dims.heads, multiply_adds}),
          .bytes = times({dims.batch, dims.tokens, dims.heads, numbers, element_bytes})};
}

}  // namespace vla_bench
