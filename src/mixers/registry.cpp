#include "mixers/registry.h"

#include <fmt/format.h>

#include <type_traits>

#include "core/error.h"
#include "mixers/cuda_mixers.h"
#include "mixers/deltanet/deltanet.h"
#include "mixers/linear/linear.h"
#include "mixers/softmax/softmax.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_sequential.h"

namespace vla_bench {
namespace {

template <class T>
using MakeCore = std::unique_ptr<MixerCore<T>> (*)(const MixerConfig&, Index d_h);

template <class T>
struct Entry {
  std::string_view name;
  MakeCore<T> make_core;
  MakeCore<double> make_reference;
  std::string_view label;  // of the production core
};

template <class T>
constexpr Entry<T> kMixers[] = {
    {SoftmaxOptions::name, mixers::make_softmax_core<T>, mixers::make_softmax_reference, "tiled"},
    {LinearOptions::name, mixers::make_linear_core<T>, mixers::make_linear_reference, "recurrent"},
    {DeltaNetOptions::name, mixers::make_deltanet_core<T>, mixers::make_deltanet_reference,
     "recurrent"},
    {VlaOptions::name, mixers::make_vla_core<T>, mixers::make_vla_reference, "recurrent"},
};

template <class T>
const Entry<T>& find(std::string_view name) {
  for (const Entry<T>& entry : kMixers<T>) {
    if (entry.name == name) return entry;
  }
  throw RunError(fmt::format("mixer {} is not registered", name));
}

}  // namespace

Support mixer_support(const MixerConfig& config, Index d_h, Device device,
                      Implementation implementation) {
  switch (implementation) {
    case Implementation::production:
      break;
    case Implementation::sequential:
      if (!config.is<VlaOptions>()) return {.ok = false, .reason = "sequential is vla"};
      break;
    case Implementation::unfused:
    case Implementation::cudnn:
      if (!config.is<SoftmaxOptions>()) {
        return {.ok = false, .reason = fmt::format("{} is softmax", enum_name(implementation))};
      }
      if (device == Device::cpu) {
        return {.ok = false,
                .reason = fmt::format("{} runs on a GPU alone", enum_name(implementation))};
      }
      break;
    case Implementation::reference:
      if (device == Device::cpu) return {};
      return {.ok = false, .reason = "the reference runs on the CPU alone"};
  }
  if (device == Device::cpu) return {};
  return mixers::cuda_mixer_support(config, d_h, implementation);
}

Support pass_support(Implementation implementation, LatencyPass pass) {
  const bool forward_alone =
      implementation == Implementation::unfused || implementation == Implementation::sequential;
  if (!forward_alone || pass == LatencyPass::forward) return {};
  return {.ok = false, .reason = fmt::format("{} has a forward alone", enum_name(implementation))};
}

Precision implementation_precision(const MixerConfig& config, Device device,
                                   Implementation implementation, Precision asked) {
  if (implementation == Implementation::cudnn) return Precision::bf16;
  const bool follows = device == Device::cuda && config.is<SoftmaxOptions>();
  return follows ? asked : Precision::float32;
}

template <class T>
std::unique_ptr<MixerCore<T>> make_mixer_core(const MixerConfig& config, Index d_h, Device device,
                                              Implementation implementation) {
  const Support support = mixer_support(config, d_h, device, implementation);
  if (!support.ok) throw RunError(support.reason);
  const Entry<T>& entry = find<T>(config.name());
  if (implementation == Implementation::reference) {
    if constexpr (std::is_same_v<T, double>) {
      return entry.make_reference(config, d_h);
    } else {
      throw RunError(fmt::format("[{}] the reference exists in float64 alone", config.name()));
    }
  }
  if (device == Device::cuda) return mixers::make_cuda_core<T>(config, d_h, implementation);
  if (implementation == Implementation::sequential) {
    return mixers::make_sequential_vla_core<T>(config, d_h);
  }
  return entry.make_core(config, d_h);
}

template std::unique_ptr<MixerCore<float>> make_mixer_core<float>(const MixerConfig&, Index, Device,
                                                                  Implementation);
template std::unique_ptr<MixerCore<double>> make_mixer_core<double>(const MixerConfig&, Index,
                                                                    Device, Implementation);

std::string_view implementation_label(const MixerConfig& config, Implementation implementation) {
  if (implementation != Implementation::production) return enum_name(implementation);
  return find<double>(config.name()).label;
}

}  // namespace vla_bench
