// The list of mixers, the only one. Config, schema, registry, benchmarks, tests and figures loop
// over it, in this order.
#pragma once

#include <string_view>
#include <variant>

#include "core/type_list.h"
#include "mixers/based/based.h"
#include "mixers/deltanet/deltanet.h"
#include "mixers/gated_deltanet/gated_deltanet.h"
#include "mixers/gla/gla.h"
#include "mixers/kda/kda.h"
#include "mixers/linear/linear.h"
#include "mixers/mamba2/mamba2.h"
#include "mixers/mesa/mesa.h"
#include "mixers/preconditioned_gated_deltanet/preconditioned_gated_deltanet.h"
#include "mixers/retention/retention.h"
#include "mixers/softmax/softmax.h"
#include "mixers/vla/kalman.h"
#include "mixers/vla/vla.h"

namespace vla_bench {

/// A mixer is identified by the type of its options, a struct with
///   name          as a config spells it
///   title         as figures spell it
///   colour        of its lines in figures: one of the palette of scripts/plotting/style.py
///   most_step_ms  what a training step of the published model may take on an H200
///                 (train/training_step_cuda_benchmark.cpp), in ms
///   its keys in a config, with the defaults of its paper, and their visit (config/config.h)
/// and, where these exist,
///   feature_map            phi of its keys and queries, a key of the config or a constant
///   direction_length(d_h)  length of the penalty direction that the recall probe gives a write
using Mixers = TypeList<SoftmaxOptions,                      //
                        LinearOptions,                       //
                        DeltaNetOptions,                     //
                        VlaOptions,                          //
                        RetentionOptions,                    //
                        GatedDeltaNetOptions,                //
                        Mamba2Options,                       //
                        KdaOptions,                          //
                        GlaOptions,                          //
                        BasedOptions,                        //
                        MesaOptions,                         //
                        PreconditionedGatedDeltaNetOptions,  //
                        KalmanOptions>;
using MixerOptions = Mixers::Variant;

/// The mixers with which latencies and norms of states are compared.
using LatencyBaseline = SoftmaxOptions;
using StateNormBaseline = LinearOptions;

constexpr std::string_view mixer_name(const MixerOptions& options) {
  return std::visit([](const auto& own) { return own.name; }, options);
}

/// Why a mixer's values must be as wide as its keys; empty where they can be any multiple: in every
/// rule of the recurrence whose rows of S share all but their values (recurrence/recurrence.h).
inline std::string_view why_values_are_as_wide_as_keys(const MixerOptions& mixer) {
  return std::visit(
      []<class Options>(const Options& options) -> std::string_view {
        constexpr Index kAnySize = 16;
        if constexpr (requires { with_rule(options, kAnySize, [](const auto&) {}); }) {
          bool by_rows = false;
          with_rule(options, kAnySize,
                    [&](const auto& rule) { by_rows = rule.form().decay == mixers::Decay::rows; });
          return by_rows ? "its gate has a number for each of them" : "";
        } else {
          return "it is no rule of the recurrence";
        }
      },
      mixer);
}

}  // namespace vla_bench
