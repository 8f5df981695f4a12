// Which mixers take values wider than their keys (model.d_v).
#pragma once

#include <string_view>
#include <variant>

#include "mixers/list.h"

namespace vla_bench {

/// Why a mixer's values must be as wide as its keys; empty where they can be any multiple: in every
/// rule of the recurrence whose rows of S share all but their values (recurrence/recurrence.h).
inline std::string_view why_values_are_as_wide_as_keys(const MixerOptions& mixer) {
  return std::visit(
      []<class Options>(const Options& options) -> std::string_view {
        constexpr Index kAnySize = 16;
        if constexpr (requires { make_reference_rule(options, kAnySize); }) {
          return "a matrix beside its state ties them";
        } else if constexpr (requires { with_rule(options, kAnySize, [](const auto&) {}); }) {
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
