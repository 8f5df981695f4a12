#include "report/latency_law.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace vla_bench {
namespace {

constexpr double kFitFrom = 512;  // tokens, as in the published fit
constexpr std::size_t kFitLengths = 3;
// A larger crossover has no meaning (and no exact double).
constexpr double kLongestSequence = 1e15;
// A larger half width does not distinguish T from T^1.5.
constexpr double kWidestHalf = 0.25;

/// The larger known one.
std::optional<double> larger(std::optional<double> a, std::optional<double> b) {
  if (!a || !b) return a ? a : b;
  return std::max(*a, *b);
}

/// ln (mixer / softmax) at a length of both.
struct LogRatio {
  double x = 0.0;
  double ratio = 0.0;
  std::optional<double> half{};  // half width of its 95% interval
};

std::vector<LogRatio> log_ratios(const LatencyLine& mixer, const LatencyLine& softmax) {
  std::map<double, const LatencyPoint*> baseline;
  for (const LatencyPoint& point : softmax.points) baseline.emplace(point.tokens, &point);
  std::vector<LogRatio> ratios;
  for (const LatencyPoint& point : mixer.points) {
    const auto same = baseline.find(point.tokens);
    if (same == baseline.end()) continue;
    const LatencyPoint& other = *same->second;
    LogRatio& one = ratios.emplace_back(
        LogRatio{.x = std::log(point.tokens), .ratio = std::log(point.seconds / other.seconds)});
    if (point.error && other.error) {
      one.half = kNormalQuantile975 * std::hypot(*point.error, *other.error);
    }
  }
  return ratios;
}

/// The last zero of ratio + sign * half.
struct Zero {
  enum class Kind { below_first, inside, beyond_last } kind;
  double x = 0.0;  // that of the first or last length when the zero is not inside
};
Zero last_zero(const std::vector<LogRatio>& ratios, double sign) {
  const auto value = [&](const LogRatio& one) { return one.ratio + sign * one.half.value_or(0.0); };
  if (value(ratios.back()) >= 0.0) return {Zero::Kind::beyond_last, ratios.back().x};
  const auto after = std::find_if(ratios.rbegin(), ratios.rend(),
                                  [&](const LogRatio& one) { return value(one) >= 0.0; });
  if (after == ratios.rend()) return {Zero::Kind::below_first, ratios.front().x};
  const LogRatio& dear = *after;
  const LogRatio& cheap = *std::prev(after);
  const double fraction = value(dear) / (value(dear) - value(cheap));
  return {Zero::Kind::inside, dear.x + fraction * (cheap.x - dear.x)};
}

double tokens_at(double x) { return std::round(std::exp(x)); }

Crossover unknown(std::string note) { return {.basis = "unknown", .note = std::move(note)}; }

/// The crossover when the mixer is cheaper at the longest common length.
Crossover measured_crossover(const std::vector<LogRatio>& ratios) {
  if (std::any_of(ratios.begin(), ratios.end(),
                  [](const LogRatio& one) { return !one.half.has_value(); })) {
    return unknown("timings of one repeat have no error");
  }
  const Zero high = last_zero(ratios, 1.0);
  if (high.kind == Zero::Kind::beyond_last) {
    return unknown(
        fmt::format("at {:.0f} tokens, the longest, the times differ by less than their "
                    "errors",
                    tokens_at(high.x)));
  }
  const Zero point = last_zero(ratios, 0.0);
  const Zero low = last_zero(ratios, -1.0);
  Crossover crossover{.basis = "measured", .seq_len = tokens_at(point.x)};
  crossover.high = tokens_at(high.x);
  if (low.kind == Zero::Kind::inside) crossover.low = tokens_at(low.x);
  if (point.kind == Zero::Kind::below_first) crossover.note = "cheaper at every measured length";
  return crossover;
}

/// ln seconds at one token.
double level(const LatencyLaw& law) { return std::log(law.power_law().scale); }

/// The intersection of the laws, x, with its interval.
Crossover meeting_point(const LatencyLaw& mixer, const LatencyLaw& softmax, double x, double gain,
                        double longest) {
  Crossover crossover{.basis = "extrapolated", .seq_len = tokens_at(x)};
  if (std::exp(x) < longest) {
    crossover.seq_len = longest;
    crossover.low = longest;
    crossover.note = fmt::format(
        "later than this: softmax is cheaper here, though the fits meet at {:.0f}", std::exp(x));
    return crossover;
  }
  const double half = std::hypot(*mixer.half_at(x), *softmax.half_at(x)) / gain;
  crossover.low = std::max(tokens_at(x - half), longest);  // softmax is still cheaper there
  if (std::exp(x + half) <= kLongestSequence) crossover.high = tokens_at(x + half);
  return crossover;
}

/// The crossover when softmax is cheaper at the longest common length.
Crossover extrapolated_crossover(const LatencyLine& mixer, const LatencyLine& softmax,
                                 double longest) {
  if (!mixer.law || !softmax.law) return unknown("fewer than 2 lengths");
  const double gain = softmax.law->power_law().exponent - mixer.law->power_law().exponent;
  const auto mixer_half = mixer.law->exponent_half();
  const auto softmax_half = softmax.law->exponent_half();
  if (!mixer_half || !softmax_half) return unknown("nothing is known of the exponents' errors");
  const double half = std::hypot(*mixer_half, *softmax_half);
  if (std::abs(gain) <= half) {
    return unknown(
        fmt::format("softmax's exponent is larger by {:.2g} +- {:.2g}: it may be overtaken or not",
                    gain, half));
  }
  if (gain < 0.0) return {.basis = "never", .note = "grows no slower than softmax"};
  const double x = (level(*mixer.law) - level(*softmax.law)) / gain;
  if (!(std::exp(x) <= kLongestSequence)) {
    return {.basis = "never", .note = "the fits meet beyond 1e15 tokens"};
  }
  return meeting_point(*mixer.law, *softmax.law, x, gain, longest);
}

}  // namespace

std::optional<double> timing_error(std::optional<double> relative_error, double median_s,
                                   std::optional<double> p10_s, std::optional<double> p90_s,
                                   double repeats) {
  // For a normal distribution: the ratio of the standard errors of median and mean, and the
  // distance of the deciles in standard deviations.
  constexpr double kMedianOverMean = 1.2533;
  constexpr double kDeciles = 2.5631;
  if (relative_error) return *relative_error / kNormalQuantile975;
  if (!p10_s || !p90_s || !(repeats > 1.0)) return std::nullopt;
  return kMedianOverMean * (*p90_s - *p10_s) / kDeciles / std::sqrt(repeats) / median_s;
}

LatencyLaw::LatencyLaw(const std::vector<LatencyPoint>& points) {
  std::vector<double> tokens;
  std::vector<double> seconds;
  for (const LatencyPoint& point : points) {
    tokens.push_back(point.tokens);
    seconds.push_back(point.seconds);
    x_.push_back(std::log(point.tokens));
    errors_.push_back(point.error);
  }
  law_ = fit_power_law(tokens, seconds);
  const double count = static_cast<double>(x_.size());
  for (const double x : x_) mean_x_ += x / count;
  double squares = 0.0;
  for (std::size_t i = 0; i < x_.size(); ++i) {
    sxx_ += (x_[i] - mean_x_) * (x_[i] - mean_x_);
    const double residual = std::log(seconds[i]) - std::log(law_.scale) - law_.exponent * x_[i];
    squares += residual * residual;
  }
  if (x_.size() > 2) residual_ = std::sqrt(squares / (count - 2.0));
}

std::optional<double> LatencyLaw::exponent_half() const {
  std::optional<double> from_residuals, from_errors;
  if (residual_) {
    from_residuals =
        student_t_quantile_975(static_cast<Index>(x_.size()) - 2) * *residual_ / std::sqrt(sxx_);
  }
  double variance = 0.0;
  bool known = true;
  for (std::size_t i = 0; i < x_.size(); ++i) {
    known = known && errors_[i];
    if (known) variance += std::pow((x_[i] - mean_x_) / sxx_ * *errors_[i], 2);
  }
  if (known) from_errors = kNormalQuantile975 * std::sqrt(variance);
  return larger(from_residuals, from_errors);
}

std::optional<double> LatencyLaw::half_at(double x) const {
  const double count = static_cast<double>(x_.size());
  std::optional<double> from_residuals, from_errors;
  if (residual_) {
    from_residuals = student_t_quantile_975(static_cast<Index>(x_.size()) - 2) * *residual_ *
                     std::sqrt(1.0 / count + (x - mean_x_) * (x - mean_x_) / sxx_);
  }
  double variance = 0.0;
  bool known = true;
  for (std::size_t i = 0; i < x_.size(); ++i) {
    known = known && errors_[i];
    const double weight = 1.0 / count + (x - mean_x_) * (x_[i] - mean_x_) / sxx_;
    if (known) variance += std::pow(weight * *errors_[i], 2);
  }
  if (known) from_errors = kNormalQuantile975 * std::sqrt(variance);
  return larger(from_residuals, from_errors);
}

LatencyLine fit_latency(std::vector<LatencyPoint> points) {
  LatencyLine line{.points = std::move(points)};
  std::sort(line.points.begin(), line.points.end(),
            [](const LatencyPoint& a, const LatencyPoint& b) { return a.tokens < b.tokens; });
  auto begin = std::find_if(line.points.begin(), line.points.end(),
                            [](const LatencyPoint& point) { return point.tokens >= kFitFrom; });
  if (static_cast<std::size_t>(line.points.end() - begin) < kFitLengths) {
    begin = line.points.begin();
  }
  const std::vector<LatencyPoint> fitted(begin, line.points.end());
  line.fitted = static_cast<std::int64_t>(fitted.size());
  if (fitted.empty()) return line;
  line.first = fitted.front().tokens;
  line.last = fitted.back().tokens;
  if (line.first < line.last) line.law.emplace(fitted);
  return line;
}

Exponent exponent_of(const LatencyLine& line) {
  if (!line.law) return {.value = {}, .note = "unknown: fewer than 2 lengths"};
  const std::optional<double> half = line.law->exponent_half();
  if (!half) return {.value = {}, .note = "unknown: timings of one repeat have no error"};
  const double value = line.law->power_law().exponent;
  const Interval interval{value - *half, value + *half};
  if (*half > kWidestHalf) {
    return {.value = {},
            .interval = interval,
            .note = fmt::format("unknown: between {:.2g} and {:.2g}", interval.low, interval.high)};
  }
  return {.value = value, .interval = interval};
}

Crossover find_crossover(const LatencyLine& mixer, const LatencyLine& softmax) {
  const std::vector<LogRatio> ratios = log_ratios(mixer, softmax);
  if (!ratios.empty() && ratios.back().ratio < 0.0) return measured_crossover(ratios);
  const double longest = ratios.empty() ? 0.0 : tokens_at(ratios.back().x);
  if (!ratios.empty()) {
    const LogRatio& last = ratios.back();
    if (!last.half) return unknown("timings of one repeat have no error");
    if (last.ratio - *last.half < 0.0) {
      return unknown(fmt::format(
          "at {:.0f} tokens, the longest, the times differ by less than their errors", longest));
    }
  }
  return extrapolated_crossover(mixer, softmax, longest);
}

}  // namespace vla_bench
