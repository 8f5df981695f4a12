// The GPU side of the registry.
#include "mixers/cuda_mixers.h"

#include <fmt/format.h>

#include <type_traits>

#include "core/error.h"
#include "mixers/recurrence/token_view.h"
#include "mixers/deltanet/deltanet_cuda.h"
#include "mixers/linear/linear_cuda.h"
#include "mixers/softmax/softmax_cuda.h"
#include "mixers/softmax/softmax_cudnn.h"
#include "mixers/vla/vla_cuda.h"
#include "mixers/vla/vla_sequential.h"

namespace vla_bench::mixers {
namespace {

std::unique_ptr<MixerCore<float>> make_core(const MixerConfig& config, Index d_h,
                                            Implementation implementation) {
  if (implementation == Implementation::cudnn) return make_cudnn_softmax_core(config, d_h);
  if (implementation == Implementation::unfused) {
    return make_unfused_softmax_cuda_core(config, d_h);
  }
  if (implementation == Implementation::sequential) {
    return make_sequential_vla_cuda_core(config, d_h);
  }
  if (config.is<SoftmaxOptions>()) return make_softmax_cuda_core(config, d_h);
  if (config.is<LinearOptions>()) return make_linear_cuda_core(config, d_h);
  if (config.is<DeltaNetOptions>()) return make_deltanet_cuda_core(config, d_h);
  return make_vla_cuda_core(config, d_h);
}

}  // namespace

Support cuda_mixer_support(const MixerConfig& /*config*/, Index d_h,
                           Implementation implementation) {
  if (implementation == Implementation::cudnn) return cudnn_softmax_support(d_h);
  if (implementation == Implementation::unfused || cuda::is_head_size(d_h)) return {};
  return {
      .ok = false,
      .reason = fmt::format("cuda: kernels exist for d_h of {}, not {}", cuda::kHeadSizes, d_h)};
}

template <class T>
std::unique_ptr<MixerCore<T>> make_cuda_core(const MixerConfig& config, Index d_h,
                                             Implementation implementation) {
  const Support support = cuda_mixer_support(config, d_h, implementation);
  if (!support.ok) throw RunError(support.reason);
  if constexpr (std::is_same_v<T, float>) {
    return make_core(config, d_h, implementation);
  } else {
    throw RunError(fmt::format("cuda: mixer {} runs in float32 alone", config.name()));
  }
}

template std::unique_ptr<MixerCore<float>> make_cuda_core<float>(const MixerConfig&, Index,
                                                                 Implementation);
template std::unique_ptr<MixerCore<double>> make_cuda_core<double>(const MixerConfig&, Index,
                                                                   Implementation);

}  // namespace vla_bench::mixers
