// What a config can say about linear attention: nothing beyond what all mixers have.
#pragma once

#include <string_view>

namespace vla_bench {

struct LinearOptions {
  static constexpr std::string_view name = "linear";
  static constexpr std::string_view title = "linear";
  static constexpr std::string_view colour = "#E69F00";
  static constexpr double most_step_ms = 0.65;

  template <class V>
  void visit(V&) {}
};

}  // namespace vla_bench
