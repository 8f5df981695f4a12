// Elementary functions that GCC vectorises inside `#pragma omp simd` loops: branch-free, inline, no
// calls in single precision (inlined always: a call would keep a loop from being vectorised). NaN
// stays NaN. The double overloads forward to the standard library: double serves verification, not
// speed.
//
// The polynomials are weighted minimax fits (Lawson's iteration in extended precision, coefficients
// rounded to float one after another); errors are those of the fit, relative to the result.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace vla_bench::ops::cpu {

/// e^x within 1.5 ulp over all floats, subnormal results and overflow to infinity included.
/// Cody-Waite reduction x = n ln2 + r, |r| <= ln2 / 2, and e^r = 1 + r + r^2 P(r), error 2^-28.
[[gnu::always_inline]] inline float exp(float x) {
  // Past these bounds the result is 0 or infinity whatever x is; comparisons let NaN through.
  float clamped = x < -104.0f ? -104.0f : x;
  clamped = clamped > 89.0f ? 89.0f : clamped;

  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum.
  constexpr float kRounder = 12582912.0f;
  const float shifted = clamped * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  // ln2 in two parts; the first has 9 significant bits, so n times it is exact.
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;

  float p = 0.00138206896f;
  p = p * r + 0.0083686756f;
  p = p * r + 0.0416682661f;
  p = p * r + 0.166665211f;
  p = p * r + 0.49999994f;
  const float exponential = (p * r) * r + r + 1.0f;

  // 2^n in two factors: n spans -150 .. 128, one more than a float's exponent on either side.
  const std::int32_t power = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) -
                                                       std::bit_cast<std::uint32_t>(kRounder));
  const std::int32_t half = power >> 1;
  const auto power_of_two = [](std::int32_t exponent) {
    return std::bit_cast<float>((static_cast<std::uint32_t>(exponent) + 127u) << 23);
  };
  return exponential * power_of_two(half) * power_of_two(power - half);
}
inline double exp(double x) { return std::exp(x); }

/// The error function within 2 ulp. |x| < 1: x + x P(x^2), error 2^-29; else 1 - e^Q(|x|) with
/// Q = log erfc on [1, 4], error 2^-29; from 4 on the nearest float is 1.
[[gnu::always_inline]] inline float erf(float x) {
  const float s = x * x;
  float p = 7.80690316e-05f;
  p = p * s + -0.00079978531f;
  p = p * s + 0.0051871622f;
  p = p * s + -0.0268533472f;
  p = p * s + 0.112835787f;
  p = p * s + -0.37612626f;
  p = p * s + 0.128379166f;
  const float small = p * x + x;

  const float magnitude = std::fabs(x);
  const float t = magnitude > 4.0f ? 4.0f : magnitude;
  float q = 0.000186367499f;
  q = q * t + -0.00294757448f;
  q = q * t + 0.0218378324f;
  q = q * t + -0.103106447f;
  q = q * t + -0.63814503f;
  q = q * t + -1.12708914f;
  q = q * t + -0.000341522158f;
  const float large = std::copysign(1.0f - exp(q), x);

  return magnitude < 1.0f ? small : large;
}
inline double erf(double x) { return std::erf(x); }

}  // namespace vla_bench::ops::cpu
