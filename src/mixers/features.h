// Feature maps, gates, unit() and their gradients, written once for the CPU and CUDA.
//
// A rule sees one token and head at a time through a `Token`: on the CPU it has all d channels
// (recurrence/cpu_token.h), on a GPU the four channels of a thread, whose neighbours have the
// others (recurrence/cuda_token.cuh). A Token has
//   Scalar, Channels         a number; this thread's channels of the token, x[i]
//   each(f)                  calls f(i) for each of them
//   dot(x, y)                over all channels of the token
//   exp(x), sqrt(x), log1p(x), log(x)
#pragma once

#include "config/enums.h"
#include "core/host_device.h"

namespace vla_bench::mixers {

/// unit(x) = x / max(|x|, kUnitFloor); no gradient through the norm when it is below the floor.
inline constexpr double kUnitFloor = 1e-12;

/// max(x, least), but NaN stays NaN.
template <class T>
VLA_HOST_DEVICE T at_least(T x, T least) {
  return x < least ? least : x;
}

/// 1 / (1 + e^-x); its derivative is s (1 - s).
template <class Token>
VLA_HOST_DEVICE typename Token::Scalar sigmoid(const Token& token, typename Token::Scalar x) {
  return 1 / (1 + token.exp(-x));
}

/// log(1 + e^x); its derivative is sigmoid(x).
template <class Token>
VLA_HOST_DEVICE typename Token::Scalar softplus(const Token& token, typename Token::Scalar x) {
  using T = typename Token::Scalar;
  return at_least(x, T(0)) + token.log1p(token.exp(x < 0 ? x : -x));
}

/// x <- phi(x): elu1 x + 1 for x > 0, else exp x; identity; relu; silu x sigmoid(x).
template <class Token>
VLA_HOST_DEVICE void apply_feature_map(const Token& token, FeatureMap map,
                                       typename Token::Channels& x) {
  using T = typename Token::Scalar;
  switch (map) {
    case FeatureMap::elu1:
      return token.each([&](auto i) {
        const T exponential = token.exp(x[i] > 0 ? T(0) : x[i]);
        x[i] = x[i] > 0 ? x[i] + 1 : exponential;
      });
    case FeatureMap::identity:
      return;
    case FeatureMap::relu:  // written so that NaN passes through
      return token.each([&](auto i) { x[i] = x[i] <= 0 ? T(0) : x[i]; });
    case FeatureMap::silu:
      return token.each([&](auto i) { x[i] = x[i] / (1 + token.exp(-x[i])); });
  }
}

/// dy <- dy phi'(x)
template <class Token>
VLA_HOST_DEVICE void feature_map_backward(const Token& token, FeatureMap map,
                                          const typename Token::Channels& x,
                                          typename Token::Channels& dy) {
  using T = typename Token::Scalar;
  switch (map) {
    case FeatureMap::elu1:
      return token.each([&](auto i) {
        const T exponential = token.exp(x[i] > 0 ? T(0) : x[i]);
        dy[i] = dy[i] * (x[i] > 0 ? T(1) : exponential);
      });
    case FeatureMap::identity:
      return;
    case FeatureMap::relu:
      return token.each([&](auto i) { dy[i] = x[i] > 0 ? dy[i] : T(0); });
    case FeatureMap::silu:  // sigma (1 + x (1 - sigma))
      return token.each([&](auto i) {
        const T sigma = 1 / (1 + token.exp(-x[i]));
        dy[i] = dy[i] * sigma * (1 + x[i] * (1 - sigma));
      });
  }
}

/// x <- unit(x); returns |x| from before.
template <class Token>
VLA_HOST_DEVICE typename Token::Scalar make_unit(const Token& token, typename Token::Channels& x) {
  using T = typename Token::Scalar;
  const T length = token.sqrt(token.dot(x, x));
  const T scale = 1 / at_least(length, static_cast<T>(kUnitFloor));
  token.each([&](auto i) { x[i] *= scale; });
  return length;
}

/// dy <- (dy - y (y . dy)) / length for y = unit(x), length = |x|; below the floor, dy / floor.
template <class Token>
VLA_HOST_DEVICE void unit_backward(const Token& token, const typename Token::Channels& y,
                                   typename Token::Scalar length, typename Token::Channels& dy) {
  using T = typename Token::Scalar;
  constexpr T floor = static_cast<T>(kUnitFloor);
  T along = token.dot(y, dy);  // unconditional, since on a GPU all threads of a warp must take part
  if (length < floor) along = 0;
  const T scale = 1 / at_least(length, floor);
  token.each([&](auto i) { dy[i] = (dy[i] - y[i] * along) * scale; });
}

}  // namespace vla_bench::mixers
