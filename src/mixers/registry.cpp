#include "mixers/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "core/error.h"
#include "mixers/cuda_mixers.h"
#include "mixers/list.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/rules_cpu.h"

namespace vla_bench {
namespace {

/// Whether the mixer is a rule of the recurrence.
template <class Options>
concept Recurrent = requires(const Options& options) {
  with_rule(options, Index{}, [](const auto&) {});
};

/// The mixer's rule on the CPU; mixers with further state beside S make their own.
template <class T, Recurrent Options>
std::unique_ptr<mixers::RecurrentRule<T>> make_rule(const Options& options, Index d_h,
                                                    bool is_reference) {
  if constexpr (requires { make_reference_rule(options, d_h); }) {
    if constexpr (std::is_same_v<T, double>) {
      if (is_reference) return make_reference_rule(options, d_h);
    }
    return make_chain_rule<T>(options, d_h);
  } else {
    return mixers::make_cpu_rule<T>(options, d_h);
  }
}

template <class Options>
std::unique_ptr<MixerCore<double>> make_reference(const Options& options, Index d_h) {
  if constexpr (Recurrent<Options>) {
    return mixers::make_recurrent_reference(make_rule<double>(options, d_h, true));
  } else {
    return make_attention_reference(options, d_h);
  }
}

/// Of a mixer that is no rule, but whose core on a GPU consists of recurrences.
template <class Options>
concept HasBlocks = requires(const Options& options) {
  block_form(options);
};
template <HasBlocks Options>
mixers::RecurrenceForm form_of(const Options& options, Index /*d_h*/) {
  return block_form(options);
}
template <Recurrent Options>
mixers::RecurrenceForm form_of(const Options& options, Index d_h) {
  mixers::RecurrenceForm form;
  with_rule(options, d_h, [&](const auto& rule) { form = rule.form(); });
  return form;
}
/// Whether a matrix beside S has a recurrence of its own.
template <class Options>
bool has_chain(const Options& options, Index d_h) {
  bool has = false;
  if constexpr (requires { make_reference_rule(options, d_h); }) {
    with_rule(options, d_h, [&](const auto& rule) { has = rule.own_state_size(d_h) > 0; });
  }
  return has;
}

template <class T, class Options>
std::unique_ptr<MixerCore<T>> make_cpu_core(const Options& options, Index d_h,
                                            Implementation implementation) {
  if constexpr (Recurrent<Options>) {
    if constexpr (requires { make_sequential_core<T>(options, d_h); }) {
      if (implementation == Implementation::sequential) {
        return make_sequential_core<T>(options, d_h);
      }
    }
    return mixers::make_recurrent_core<T>(make_rule<T>(options, d_h, false));
  } else {
    return make_attention_core<T>(options, d_h);
  }
}

template <class Options>
constexpr bool has_implementation(Implementation implementation) {
  if (implementation == Implementation::production || implementation == Implementation::reference) {
    return true;
  }
  const bool is_of_recurrence =
      implementation == Implementation::recurrent || implementation == Implementation::chunked;
  if (Recurrent<Options> && is_of_recurrence) return true;
  if constexpr (requires { Options::more_implementations; }) {
    return std::ranges::find(Options::more_implementations, implementation) !=
           Options::more_implementations.end();
  }
  return false;
}

/// The first mixer that has the implementation.
std::string_view mixer_with(Implementation implementation) {
  std::string_view name;
  Mixers::for_each([&]<class Options>() {
    if (name.empty() && has_implementation<Options>(implementation)) name = Options::name;
  });
  return name;
}

bool chunks_store_bf16(const MixerConfig& config) {
  return std::visit(
      []<class Options>(const Options& options) {
        constexpr Index kAnySize = 64;
        if constexpr (Recurrent<Options>) {
          return mixers::chunks_store_bf16(form_of(options, kAnySize));
        } else {
          return false;
        }
      },
      config.options);
}

/// cuDNN, the unfused kernels and chunks have no counterpart on a CPU.
bool needs_gpu(Implementation implementation) {
  return implementation == Implementation::unfused || implementation == Implementation::cudnn ||
         implementation == Implementation::chunked;
}

}  // namespace

MixerLayout mixer_layout(const MixerConfig& config, Index d_h) {
  MixerLayout made =
      std::visit([&](const auto& options) { return layout(options, d_h); }, config.options);
  made.output_norm = config.output_norm.value_or(made.output_norm);
  made.output_norm_kind = config.output_norm_kind;
  return made;
}

Support mixer_support(const MixerConfig& config, Index d_h, Device device,
                      Implementation implementation) {
  const bool exists = std::visit(
      [&]<class Options>(const Options&) { return has_implementation<Options>(implementation); },
      config.options);
  const std::string_view name = enum_name(implementation);
  if (!exists)
    return {.ok = false, .reason = fmt::format("{} is {}", name, mixer_with(implementation))};
  if (device == Device::cpu) {
    if (!needs_gpu(implementation)) return {};
    return {.ok = false, .reason = fmt::format("{} runs only on a GPU", name)};
  }
  if (implementation == Implementation::reference) {
    return {.ok = false, .reason = "the reference runs only on the CPU"};
  }
  return mixers::cuda_mixer_support(config, d_h, implementation);
}

Implementation resolved(Implementation implementation, const MixerConfig& config,
                        const HeadDims& dims, Device device) {
  if (implementation != Implementation::production) return implementation;
  const auto of_mixer = [&]<class Options>(const Options& options) {
    if constexpr (Recurrent<Options> || HasBlocks<Options>) {
      const bool faster =
          has_chain(options, dims.d_h)
              ? mixers::chain_chunks_are_faster(dims)
              : mixers::chunks_are_faster(form_of(options, dims.d_h), dims.by_groups());
      const bool chunked = device == Device::cuda && faster;
      return chunked ? Implementation::chunked : Implementation::recurrent;
    } else {
      return Implementation::production;
    }
  };
  return std::visit(of_mixer, config.options);
}

Support pass_support(Implementation implementation, LatencyPass pass) {
  const bool forward_only =
      implementation == Implementation::unfused || implementation == Implementation::sequential;
  if (!forward_only || pass == LatencyPass::forward) return {};
  return {.ok = false,
          .reason = fmt::format("{} has only a forward pass", enum_name(implementation))};
}

Precision implementation_precision(const MixerConfig& config, Device device,
                                   Implementation implementation, LatencyPass pass,
                                   Precision asked) {
  if (implementation == Implementation::cudnn) return Precision::bf16;
  if (implementation == Implementation::chunked && device == Device::cuda) {
    if (asked != Precision::bf16) return asked;
    return pass == LatencyPass::forward && chunks_store_bf16(config) ? Precision::bf16
                                                                     : Precision::tf32;
  }
  const bool follows = std::visit(
      []<class Options>(const Options&) {
        return requires { Options::follows_precision; };
      },
      config.options);
  return device == Device::cuda && follows ? asked : Precision::float32;
}

template <class T>
std::unique_ptr<MixerCore<T>> make_mixer_core(const MixerConfig& config, Index d_h, Device device,
                                              Implementation implementation) {
  const Support support = mixer_support(config, d_h, device, implementation);
  if (!support.ok) throw RunError(support.reason);
  if (device == Device::cuda) return mixers::make_cuda_core<T>(config, d_h, implementation);
  return std::visit(
      [&](const auto& options) -> std::unique_ptr<MixerCore<T>> {
        if (implementation != Implementation::reference) {
          return make_cpu_core<T>(options, d_h, implementation);
        }
        if constexpr (std::is_same_v<T, double>) {
          return make_reference(options, d_h);
        } else {
          throw RunError(fmt::format("[{}] the reference exists only in float64", config.name()));
        }
      },
      config.options);
}

template std::unique_ptr<MixerCore<float>> make_mixer_core<float>(const MixerConfig&, Index, Device,
                                                                  Implementation);
template std::unique_ptr<MixerCore<double>> make_mixer_core<double>(const MixerConfig&, Index,
                                                                    Device, Implementation);

std::string_view implementation_label(const MixerConfig& config, Implementation implementation) {
  if (implementation != Implementation::production) return enum_name(implementation);
  return std::visit(
      []<class Options>(const Options&) {
        return has_implementation<Options>(Implementation::recurrent) ? "recurrent" : "tiled";
      },
      config.options);
}

}  // namespace vla_bench
