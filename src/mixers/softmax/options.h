// Options of softmax attention: none beyond those of all mixers.
#pragma once

#include <array>
#include <string_view>

#include "config/enums.h"

namespace vla_bench {

struct SoftmaxOptions {
  static constexpr std::string_view name = "softmax";
  static constexpr std::string_view title = "softmax";
  static constexpr std::string_view colour = "#000000";
  static constexpr std::array more_implementations = {Implementation::unfused,
                                                      Implementation::cudnn};
  /// On a GPU products are computed in the config's precision.
  static constexpr bool follows_precision = true;
  static constexpr double most_step_ms = 0.5;

  template <class V>
  void visit(V&) {}
};

}  // namespace vla_bench
