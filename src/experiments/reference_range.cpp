#include "experiments/reference_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "experiments/core_buffers.h"
#include "experiments/latency.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

bool holds(double value) {
  return std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max());
}

}  // namespace

std::string beyond_float32(const RunConfig& config, const Context& context) {
  const MixerConfig& mixer = config.mixers.front();
  const Context cpu{.device = Device::cpu, .threads = context.threads};
  const HeadDims dims = verified_dims(config);
  CoreBuffers<double> buffers(mixer, dims, cpu, static_cast<std::uint64_t>(config.seeds.front()));
  const auto core =
      make_mixer_core<double>(mixer, dims.d_h, Device::cpu, Implementation::reference);
  core->forward(cpu, buffers.inputs(), buffers.output(), &buffers.saved);
  core->backward(cpu, buffers.inputs(), buffers.gradients(), buffers.saved);
  for (const Array<double>* results : {&buffers.o, &buffers.d_projections, &buffers.d_aux}) {
    if (!std::all_of(results->begin(), results->end(), holds)) {
      return fmt::format("state leaves the range of float32 within {} tokens", dims.tokens);
    }
  }
  return {};
}

}  // namespace vla_bench
