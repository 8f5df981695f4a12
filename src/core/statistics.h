// Summaries of repeated measurements.
#pragma once

#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/array.h"

namespace vla_bench {

struct Statistics {
  Index count = 0;
  double mean = 0.0;
  double standard_deviation = 0.0;  // sample (n - 1); 0 for one value
  double ci95 = 0.0;                // half width; 0 for one value
};
Statistics statistics(std::span<const double> values);

/// A closed interval.
struct Interval {
  double low = 0.0, high = 0.0;
};
inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();
inline constexpr Interval kFractions{0.0, 1.0};
inline constexpr Interval kCosines{-1.0, 1.0};
inline constexpr Interval kNotNegative{0.0, kUnbounded};

/// Two-sided 95% interval of the mean of `count` observations, cut to `range`, in which they lie:
///   mean -+ t sqrt(v / count),  t = student_t_quantile_975(count - 1),
///   v = max(sample variance, least_variance).
/// `least_variance` is the least variance of one observation (fraction_variance, or its rounding),
/// so that observations that agree by chance do not give an interval of zero width. Fewer than two
/// observations have no interval.
std::optional<Interval> mean_interval_95(const Statistics& observations, double least_variance,
                                         Interval range);

/// Variance of the fraction of successes among `draws` > 0 when `fraction` was observed:
/// p (1 - p) / draws with Laplace's p = (fraction draws + 1) / (draws + 2), which is inside (0, 1)
/// even where all draws ended alike.
double fraction_variance(double fraction, double draws);

/// 97.5% quantile of the standard normal distribution.
inline constexpr double kNormalQuantile975 = 1.959963984540054;
/// 97.5% quantile of Student's t distribution with `degrees` >= 1 degrees of freedom.
/// Inverts Abramowitz and Stegun 26.7.3 and 26.7.4; above 1,000 degrees 26.7.5.
double student_t_quantile_975(Index degrees);

/// Quantile q in [0, 1] by linear interpolation between order statistics (type 7 of Hyndman and Fan
/// 1996, the default of R and numpy). Throws std::invalid_argument without values.
double quantile(std::vector<double> values, double q);

/// 95% confidence interval of the median from order statistics (binomial, no distribution assumed).
/// Fewer than 6 values have no interval.
std::optional<std::pair<double, double>> median_interval_95(std::vector<double> values);

/// y = scale * x^exponent by least squares on logarithms.
struct PowerLaw {
  double scale = 0.0, exponent = 0.0;
};
/// Throws std::invalid_argument unless there are two different x and everything is positive.
PowerLaw fit_power_law(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace vla_bench
