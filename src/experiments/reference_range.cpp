#include "experiments/reference_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "experiments/core_buffers.h"
#include "experiments/latency_verification.h"
#include "mixers/penalty_memory.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

constexpr double kLargestFloat = std::numeric_limits<float>::max();
// Kernels compute products and norms of states, which may overflow in float32 above this root.
constexpr double kLargestState = 0x1p64;

bool is_finite(double value) { return std::isfinite(value); }
bool in_float32(double value) { return std::abs(value) <= kLargestFloat; }

bool in_range(const HeadMemory<double>& memory, const std::vector<double>& out) {
  const PenaltyMemory<double>* penalised = as_penalty_memory(memory);
  return memory.state_norm() <= kLargestState &&
         (penalised == nullptr || penalised->penalty_norm() <= kLargestState) &&
         std::all_of(out.begin(), out.end(),
                     [](double value) { return std::abs(value) <= kLargestState; });
}

void keep_first(std::optional<Index>& first, const std::optional<Index>& token) {
  if (token && (!first || *token < *first)) first = token;
}

/// Of all lanes.
BeyondFloat32 first_beyond(const MixerConfig& mixer, const CoreBuffers<double>& buffers) {
  BeyondFloat32 first;
  const HeadDims& dims = buffers.dims;
  for (Index lane = 0; lane < dims.lanes(); ++lane) {
    const BeyondFloat32 found =
        beyond_float32(mixer, buffers, {lane / dims.heads, lane % dims.heads}, dims.tokens);
    keep_first(first.overflow, found.overflow);
    keep_first(first.excess, found.excess);
  }
  return first;
}

}  // namespace

template <class T>
BeyondFloat32 beyond_float32(const MixerConfig& mixer, const CoreBuffers<T>& buffers,
                             const Lane& lane, Index last, const std::atomic<bool>* stop) {
  LaneMemory<float> single(mixer, buffers.dims, lane.head);
  LaneMemory<double> exact(mixer, buffers.dims, lane.head);
  BeyondFloat32 beyond;
  if (exact.keeps_tokens()) return beyond;
  LaneTokens<T> tokens(buffers, lane);
  for (Index t = 1; t <= std::min(last, buffers.dims.tokens); ++t) {
    if (stop != nullptr && stop->load()) break;
    const LaneToken token = tokens.at(t - 1);
    const std::vector<float>& out = single.step(token);
    if (!std::all_of(out.begin(), out.end(), is_finite)) {
      beyond.overflow = t;
      break;
    }
    if (beyond.excess) continue;
    const std::vector<double>& exact_out = exact.step(token);
    if (!in_range(exact.memory(), exact_out)) beyond.excess = t;
  }
  return beyond;
}
template BeyondFloat32 beyond_float32(const MixerConfig&, const CoreBuffers<float>&, const Lane&,
                                      Index, const std::atomic<bool>*);
template BeyondFloat32 beyond_float32(const MixerConfig&, const CoreBuffers<double>&, const Lane&,
                                      Index, const std::atomic<bool>*);

std::string beyond_float32(const RunConfig& config, const Context& context) {
  const MixerConfig& mixer = config.mixers.front();
  const Context cpu{.device = Device::cpu, .threads = context.threads};
  const HeadDims dims = verified_dims(config);
  CoreBuffers<double> buffers(mixer, dims, cpu, static_cast<std::uint64_t>(config.seeds.front()));
  if (const BeyondFloat32 beyond = first_beyond(mixer, buffers); beyond.any()) {
    return fmt::format("the state leaves the range of float32 at token {}", beyond.token());
  }
  const auto core =
      make_mixer_core<double>(mixer, dims.d_h, Device::cpu, Implementation::reference);
  core->forward(cpu, buffers.inputs(), buffers.output(), &buffers.saved);
  core->backward(cpu, buffers.inputs(), buffers.gradients(), buffers.saved);
  bool fits = std::all_of(buffers.d_projections.begin(), buffers.d_projections.end(), in_float32);
  for (const auto* both : {&buffers.more, &buffers.parameters}) {
    for (const auto& input : *both) {
      fits = fits && std::all_of(input.gradients.begin(), input.gradients.end(), in_float32);
    }
  }
  if (!fits)
    return fmt::format("gradients leave the range of float32 within {} tokens", dims.tokens);
  return {};
}

}  // namespace vla_bench
