// The registry of GPU cores.
#include "mixers/cuda_mixers.h"

#include <fmt/format.h>

#include <string>
#include <type_traits>

#include "core/error.h"
#include "mixers/list.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/rule_cuda.h"
#include "mixers/registry.h"

namespace vla_bench::mixers {
namespace {

Chunks chunks_of(Implementation implementation) {
  if (implementation == Implementation::chunked) return Chunks::always;
  return implementation == Implementation::recurrent ? Chunks::never : Chunks::by_rule;
}

template <class Options>
std::unique_ptr<cuda::CudaRule> make_rule(const Options& options, Index d_h, Chunks chunks) {
  if constexpr (requires { make_cuda_chain_rule(options, d_h, chunks); }) {
    return make_cuda_chain_rule(options, d_h, chunks);
  } else {
    return cuda::make_cuda_rule(options, d_h);
  }
}

template <class Options>
std::unique_ptr<MixerCore<float>> make_core(const Options& options, const MixerConfig& config,
                                            Index d_h, Implementation implementation) {
  if constexpr (requires { make_attention_cuda_core(options, d_h, implementation); }) {
    return make_attention_cuda_core(options, d_h, implementation);
  } else {
    if constexpr (requires { make_sequential_cuda_core(options, d_h); }) {
      if (implementation == Implementation::sequential) {
        return make_sequential_cuda_core(options, d_h);
      }
    }
    const Chunks chunks = chunks_of(implementation);
    return cuda::make_recurrent_cuda_core(
        make_rule(options, d_h, chunks),
        make_mixer_core<float>(config, d_h, Device::cpu, Implementation::production), chunks);
  }
}

/// Of a rule of the recurrence.
template <class Options>
Support rule_size_support(const Options& options, Index d_h, Implementation implementation) {
  if constexpr (requires { make_cuda_chain_rule(options, d_h, Chunks::never); }) {
    return head_size_support(d_h);
  }
  const Support support = head_size_support(d_h, cuda::kLargestHead);
  if (!support.ok || implementation != Implementation::chunked || d_h <= kLargestChunkedHead) {
    return support;
  }
  return {.ok = false,
          .reason =
              fmt::format("cuda: chunks exist for d_h up to {}, not {}", kLargestChunkedHead, d_h)};
}

}  // namespace

Support head_size_support(Index d_h) { return head_size_support(d_h, cuda::kLargestInAll); }

Support head_size_support(Index d_h, Index largest) {
  if (cuda::is_head_size(d_h, largest)) return {};
  std::string sizes = "8";
  for (Index size = 16; size < largest; size *= 2) sizes += fmt::format(", {}", size);
  return {.ok = false,
          .reason =
              fmt::format("cuda: kernels exist for d_h of {} or {}, not {}", sizes, largest, d_h)};
}

Support cuda_mixer_support(const MixerConfig& config, Index d_h, Implementation implementation) {
  const auto of_mixer = [&](const auto& options) -> Support {
    if constexpr (requires { attention_cuda_support(options, d_h, implementation); }) {
      return attention_cuda_support(options, d_h, implementation);
    } else {
      const Support support = rule_size_support(options, d_h, implementation);
      if (!support.ok || implementation != Implementation::chunked) return support;
      const RecurrenceForm form = cuda::make_cuda_rule(options, d_h)->form();
      if (chunks_exist(form)) return {};
      return {.ok = false,
              .reason = "cuda: no chunks for a state whose channels of values decay apart"};
    }
  };
  return std::visit(of_mixer, config.options);
}

template <class T>
std::unique_ptr<MixerCore<T>> make_cuda_core(const MixerConfig& config, Index d_h,
                                             Implementation implementation) {
  const Support support = cuda_mixer_support(config, d_h, implementation);
  if (!support.ok) throw RunError(support.reason);
  if constexpr (std::is_same_v<T, float>) {
    return std::visit(
        [&](const auto& options) { return make_core(options, config, d_h, implementation); },
        config.options);
  } else {
    throw RunError(fmt::format("cuda: mixer {} runs only in float32", config.name()));
  }
}

template std::unique_ptr<MixerCore<float>> make_cuda_core<float>(const MixerConfig&, Index,
                                                                 Implementation);
template std::unique_ptr<MixerCore<double>> make_cuda_core<double>(const MixerConfig&, Index,
                                                                   Implementation);

}  // namespace vla_bench::mixers
