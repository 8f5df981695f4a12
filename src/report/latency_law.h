// The growth of latency with the sequence length, the length from which a mixer is cheaper than
// softmax, and the errors of both. x = ln tokens, y = ln seconds.
//
// Error of a timing. e is the standard error of y: relative_error / 1.96 where the row has one
// (half the width of the median's 95% interval from order statistics, over the median), else that
// of the median of a normal sample of the same deciles,
//   e = 1.2533 (p90 - p10) / 2.5631 / sqrt(repeats) / median.
// One repeat has no error.
//
// Exponent. b = sum w_i y_i, w_i = (x_i - mean x) / Sxx, Sxx = sum (x_i - mean x)^2. Half of its
// 95% interval is the larger of
//   t s / sqrt(Sxx), s^2 = sum residual^2 / (n - 2), t of n - 2 degrees   (from 3 lengths on)
//   1.96 sqrt(sum w_i^2 e_i^2)                                          (where every e_i is known)
// The exponent is unknown when that is wider than 0.25 or neither exists. Likewise for the law's
// value at any x, with 1 / n + (x - mean x)^2 / Sxx for 1 / Sxx and 1 / n + (x - mean x) w_i for
// w_i.
//
// Crossing between measured lengths. r(x) = y_mixer - y_softmax, at the lengths both have; the
// crossing is the last zero of r, by linear interpolation. Its interval reaches from that zero of
// r - 1.96 e to that of r + 1.96 e, e^2 = e_mixer^2 + e_softmax^2.
//
// Crossing beyond them. x* = (ln a_mixer - ln a_softmax) / D, D = b_softmax - b_mixer; by the delta
// method half of its interval is h(x*) / D, where h^2 is the sum of the squared half widths of both
// laws at x*. Only where D is larger than half of its own interval.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/statistics.h"

namespace vla_bench {

/// The timing of one length.
struct LatencyPoint {
  double tokens = 0.0;
  double seconds = 0.0;
  std::optional<double> error{};  // standard error of ln seconds
};

/// The error of a timing by the formulas above; empty with one repeat or without a percentile.
std::optional<double> timing_error(std::optional<double> relative_error, double median_s,
                                   std::optional<double> p10_s, std::optional<double> p90_s,
                                   double repeats);

/// A straight line through points (x, y).
class LatencyLaw {
 public:
  /// At least two different lengths.
  explicit LatencyLaw(const std::vector<LatencyPoint>& points);

  const PowerLaw& power_law() const { return law_; }
  /// Half widths of the 95% intervals of the exponent, and of ln seconds at x.
  std::optional<double> exponent_half() const;
  std::optional<double> half_at(double x) const;

 private:
  std::vector<double> x_;
  std::vector<std::optional<double>> errors_;
  PowerLaw law_;
  double mean_x_ = 0.0, sxx_ = 0.0;
  std::optional<double> residual_;  // s; from 3 points on
};

/// One line of a latency figure.
struct LatencyLine {
  std::vector<LatencyPoint> points;  // tokens ascending
  // Fitted to the lengths from 512 tokens on when there are at least 3 of them, else to all: below,
  // fixed costs hide the growth. Empty with fewer than 2 lengths.
  std::optional<LatencyLaw> law;
  double first = 0.0, last = 0.0;  // fitted range, tokens
  std::int64_t fitted = 0;         // lengths in it
};
LatencyLine fit_latency(std::vector<LatencyPoint> points);

/// An exponent for a table.
struct Exponent {
  std::optional<double> value;         // empty: unknown
  std::optional<Interval> interval{};  // 95%
  std::string note{};                  // "unknown: between 0.31 and 2.9"
};
Exponent exponent_of(const LatencyLine& line);

/// The length from which a mixer is cheaper than softmax.
struct Crossover {
  // "measured": between two measured lengths, interpolated on logarithms.
  // "extrapolated": softmax is cheaper at every length both were measured at, up to the longest;
  // the fitted laws meet beyond. "never": the mixer's law grows faster than softmax's.
  // "unknown": the errors do not determine the side of the crossing; `note` says why.
  std::string basis;
  std::optional<double> seq_len{};
  std::optional<double> low{}, high{};  // 95%; empty: no bound
  std::string note{};
};
Crossover find_crossover(const LatencyLine& mixer, const LatencyLine& softmax);

}  // namespace vla_bench
