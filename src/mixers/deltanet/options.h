// What a config can say about DeltaNet.
#pragma once

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

  template <class V>
  void visit(V& v) {
    v.field("variant", variant, {.help = "deltanet: paper (gated) or standard (arXiv:2406.06484)"});
  }
};

}  // namespace vla_bench
