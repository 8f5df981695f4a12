#include "core/statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <stdexcept>

namespace vla_bench {
namespace {

/// P(|X| <= t) of Student's t distribution. Abramowitz and Stegun 26.7.3 (odd degrees), 26.7.4.
double student_t_two_sided(double t, Index degrees) {
  const double angle = std::atan(t / std::sqrt(static_cast<double>(degrees)));
  const double cosine_squared = std::pow(std::cos(angle), 2);
  const bool odd = degrees % 2 == 1;
  // sum = 1 + (1/2) cos^2 + (1 3)/(2 4) cos^4 + ... for even degrees,
  // cos (1 + (2/3) cos^2 + (2 4)/(3 5) cos^4 + ...) for odd ones; up to cos^(degrees - 2).
  double term = odd ? std::cos(angle) : 1.0;
  double sum = 0.0;
  for (Index power = odd ? 1 : 0; power <= degrees - 2; power += 2) {
    sum += term;
    const double next = static_cast<double>(power);
    term *= cosine_squared * (next + 1.0) / (next + 2.0);
  }
  const double product = std::sin(angle) * sum;
  return odd ? (angle + product) * 2.0 / std::numbers::pi : product;
}

double solve_quantile_975(Index degrees) {
  const double n = static_cast<double>(degrees);
  if (degrees > 1000) {
    // Next term: below 1 / n^4 = 1e-12.
    const double x = kNormalQuantile975;
    const double g1 = (std::pow(x, 3) + x) / 4;
    const double g2 = (5 * std::pow(x, 5) + 16 * std::pow(x, 3) + 3 * x) / 96;
    const double g3 =
        (3 * std::pow(x, 7) + 19 * std::pow(x, 5) + 17 * std::pow(x, 3) - 15 * x) / 384;
    return x + g1 / n + g2 / (n * n) + g3 / (n * n * n);
  }
  double low = kNormalQuantile975;  // the limit of infinite degrees
  double high = 13.0;               // above the 12.706 of one degree
  while (true) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return middle;  // neighbouring doubles
    (student_t_two_sided(middle, degrees) < 0.95 ? low : high) = middle;
  }
}

}  // namespace

double student_t_quantile_975(Index degrees) {
  if (degrees < 1) throw std::invalid_argument("student_t_quantile_975: no degrees of freedom");
  // Summaries ask for a few small numbers of degrees many times.
  constexpr Index kKept = 64;
  static const std::vector<double> kept = [] {
    std::vector<double> quantiles;
    for (Index i = 1; i <= kKept; ++i) quantiles.push_back(solve_quantile_975(i));
    return quantiles;
  }();
  return degrees <= kKept ? kept[static_cast<std::size_t>(degrees - 1)]
                          : solve_quantile_975(degrees);
}

Statistics statistics(std::span<const double> values) {
  Statistics result;
  result.count = static_cast<Index>(values.size());
  if (values.empty()) return result;
  const double count = static_cast<double>(values.size());
  // Divides once, so that the mean of equal values is that value and the deviation is zero.
  for (const double value : values) result.mean += value;
  result.mean /= count;
  if (values.size() == 1) return result;
  double squares = 0.0;
  for (const double value : values) squares += std::pow(value - result.mean, 2);
  result.standard_deviation = std::sqrt(squares / (count - 1));
  result.ci95 =
      student_t_quantile_975(result.count - 1) * result.standard_deviation / std::sqrt(count);
  return result;
}

std::optional<Interval> mean_interval_95(const Statistics& observations, double least_variance,
                                         Interval range) {
  if (observations.count < 2) return std::nullopt;
  const double variance =
      std::max(observations.standard_deviation * observations.standard_deviation, least_variance);
  const double half = student_t_quantile_975(observations.count - 1) *
                      std::sqrt(variance / static_cast<double>(observations.count));
  const double mean = observations.mean;
  return Interval{std::max(mean - half, range.low), std::min(mean + half, range.high)};
}

double fraction_variance(double fraction, double draws) {
  const double p = (fraction * draws + 1.0) / (draws + 2.0);
  return p * (1.0 - p) / draws;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) throw std::invalid_argument("quantile: no values");
  std::sort(values.begin(), values.end());
  const double position = std::clamp(q, 0.0, 1.0) * static_cast<double>(values.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  const double fraction = position - static_cast<double>(below);
  return values[below] + fraction * (values[above] - values[below]);
}

std::optional<std::pair<double, double>> median_interval_95(std::vector<double> values) {
  // The k-th smallest of n is above the median with probability P(Binomial(n, 1/2) < k): take the
  // largest k (and its mirror image) for which that stays within 2.5%.
  const double count = static_cast<double>(values.size());
  const double log_scale = std::lgamma(count + 1) - count * std::numbers::ln2;
  double below = 0.0;
  std::size_t k = 0;
  while (k < values.size() / 2) {
    const double successes = static_cast<double>(k);
    below += std::exp(log_scale - std::lgamma(successes + 1) - std::lgamma(count - successes + 1));
    if (below > 0.025) break;
    ++k;
  }
  if (k == 0) return std::nullopt;
  std::sort(values.begin(), values.end());
  return std::pair(values[k - 1], values[values.size() - k]);
}

PowerLaw fit_power_law(const std::vector<double>& x, const std::vector<double>& y) {
  const auto positive = [](double value) { return value > 0.0 && std::isfinite(value); };
  if (x.size() != y.size() || !std::all_of(x.begin(), x.end(), positive) ||
      !std::all_of(y.begin(), y.end(), positive) ||
      std::adjacent_find(x.begin(), x.end(), std::not_equal_to<>()) == x.end()) {
    throw std::invalid_argument("fit_power_law: needs positive pairs with two different x");
  }
  const double count = static_cast<double>(x.size());
  double mean_x = 0.0;
  double mean_y = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    mean_x += std::log(x[i]) / count;
    mean_y += std::log(y[i]) / count;
  }
  double covariance = 0.0;
  double variance = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = std::log(x[i]) - mean_x;
    covariance += difference * (std::log(y[i]) - mean_y);
    variance += difference * difference;
  }
  const double exponent = covariance / variance;
  return {.scale = std::exp(mean_y - exponent * mean_x), .exponent = exponent};
}

}  // namespace vla_bench
