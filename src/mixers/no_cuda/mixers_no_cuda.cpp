#include <fmt/format.h>

#include "core/error.h"
#include "mixers/cuda_mixers.h"

namespace vla_bench::mixers {

Support cuda_mixer_support(const MixerConfig& config, Index /*d_h*/,
                           Implementation /*implementation*/) {
  return {.ok = false,
          .reason = fmt::format("cuda: mixer {} is not part of this build", config.name())};
}

template <class T>
std::unique_ptr<MixerCore<T>> make_cuda_core(const MixerConfig& config, Index d_h,
                                             Implementation implementation) {
  throw RunError(cuda_mixer_support(config, d_h, implementation).reason);
}

template std::unique_ptr<MixerCore<float>> make_cuda_core<float>(const MixerConfig&, Index,
                                                                 Implementation);
template std::unique_ptr<MixerCore<double>> make_cuda_core<double>(const MixerConfig&, Index,
                                                                   Implementation);

}  // namespace vla_bench::mixers
