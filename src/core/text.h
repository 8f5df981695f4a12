// Numbers as people read them.
#pragma once

#include <cmath>
#include <limits>

namespace vla_bench {

/// The sign of a NaN means nothing, but formatters print it ("-nan"): this one has none.
inline double without_nan_sign(double value) {
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}

}  // namespace vla_bench
