// What a config can say about DeltaNet.
#pragma once

#include <array>
#include <string_view>

#include "config/enums.h"
#include "config/field.h"

namespace vla_bench {

struct DeltaNetOptions {
  static constexpr std::string_view name = "deltanet";
  static constexpr std::string_view title = "DeltaNet";
  static constexpr std::string_view colour = "#009E73";
  static constexpr double most_step_ms = 0.7;

  DeltaNetVariant variant = DeltaNetVariant::paper;
  bool as_given = false;  // not a key: inputs as golden files hold them (gates.h), standard only

  /// Golden files of the rule: these inputs beside q, k and v.
  static constexpr std::array<std::string_view, 1> given = {"beta"};
  static DeltaNetOptions of_given() {
    return {.variant = DeltaNetVariant::standard, .as_given = true};
  }

  template <class V>
  void visit(V& v) {
    v.field("variant", variant, {.help = "deltanet: paper (gated) or standard (arXiv:2406.06484)"});
  }
};

}  // namespace vla_bench
