#include "report/latency_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace vla_bench {
namespace {

constexpr double kFitFrom = 512;  // tokens, as the published fit
constexpr std::size_t kFitLengths = 3;
// Beyond this a crossover has no meaning (and no exact double).
constexpr double kLongestSequence = 1e15;

// What tells lines apart, beside threads and processor; what a line is made of comes first.
const std::vector<std::string_view> kLineColumns = {
    "label", "mixer", "implementation", "precision", "device", "batch", "n_heads", "d_h", "pass"};
constexpr std::size_t kLabel = 0, kMixer = 1, kImplementation = 2, kPrecision = 3;
constexpr std::size_t kSettingFrom = 4;

struct LabelledLine {
  std::vector<Value> key;  // kLineColumns, threads, processor
  // Reference or not, device, batch, n_heads, d_h, pass, threads, processor.
  std::vector<Value> setting;
  LatencyLine line;

  bool is_softmax() const { return compare(key[kMixer], std::string("softmax")) == 0; }
};

std::vector<LabelledLine> latency_lines(const Table& latency, std::span<const SourcedRow> rows) {
  const std::size_t status = latency.column("status");
  const std::size_t seq_len = latency.column("seq_len");
  const std::size_t median = latency.column("median_s");
  std::vector<SourcedRow> timed;
  for (const SourcedRow& row : rows) {
    const auto seconds = number(row.values[median]);
    const auto tokens = number(row.values[seq_len]);
    const bool ok = compare(row.values[status], std::string("ok")) == 0;
    if (ok && tokens && seconds && *tokens > 0 && *seconds > 0 && std::isfinite(*seconds)) {
      timed.push_back(row);
    }
  }
  std::vector<LabelledLine> lines;
  for (const auto& [key, members] : group_rows(
           latency, timed, kLineColumns, {&CellFacts::threads, &CellFacts::processor}, false)) {
    std::map<double, std::vector<double>> seconds;
    for (const SourcedRow& row : members) {
      seconds[*number(row.values[seq_len])].push_back(*number(row.values[median]));
    }
    std::vector<std::pair<double, double>> points;
    for (const auto& [tokens, repeats] : seconds) {
      points.emplace_back(tokens, quantile(repeats, 0.5));
    }
    // The double references are compared with each other, and everything else likewise: whatever
    // the method (tiled, recurrent, cudnn) and the precision, it is what a user can choose from.
    const bool reference = compare(key[kImplementation], std::string("reference")) == 0;
    std::vector<Value> setting = {std::int64_t{reference}};
    setting.insert(setting.end(), key.begin() + kSettingFrom, key.end());
    lines.push_back(
        {.key = key, .setting = std::move(setting), .line = fit_latency(std::move(points))});
  }
  return lines;
}

/// (ln tokens, ln (mixer / softmax)) at the lengths both lines have.
std::vector<std::pair<double, double>> log_ratios(const LatencyLine& mixer,
                                                  const LatencyLine& softmax) {
  const std::map<double, double> baseline(softmax.points.begin(), softmax.points.end());
  std::vector<std::pair<double, double>> ratios;
  for (const auto& [tokens, seconds] : mixer.points) {
    const auto same = baseline.find(tokens);
    if (same != baseline.end()) {
      ratios.emplace_back(std::log(tokens), std::log(seconds / same->second));
    }
  }
  return ratios;
}

}  // namespace

LatencyLine fit_latency(std::vector<std::pair<double, double>> points) {
  LatencyLine line{.points = std::move(points)};
  std::sort(line.points.begin(), line.points.end());
  auto begin = std::find_if(line.points.begin(), line.points.end(),
                            [](const auto& point) { return point.first >= kFitFrom; });
  if (static_cast<std::size_t>(line.points.end() - begin) < kFitLengths) {
    begin = line.points.begin();
  }
  std::vector<double> tokens;
  std::vector<double> seconds;
  for (auto point = begin; point != line.points.end(); ++point) {
    tokens.push_back(point->first);
    seconds.push_back(point->second);
  }
  line.fitted = static_cast<std::int64_t>(tokens.size());
  if (tokens.empty()) return line;
  line.first = tokens.front();
  line.last = tokens.back();
  if (line.first < line.last) line.law = fit_power_law(tokens, seconds);
  return line;
}

Crossover find_crossover(const LatencyLine& mixer, const LatencyLine& softmax) {
  const std::vector<std::pair<double, double>> ratios = log_ratios(mixer, softmax);
  if (!ratios.empty() && ratios.back().second < 0.0) {
    const auto after = std::find_if(ratios.rbegin(), ratios.rend(),
                                    [](const auto& point) { return point.second >= 0.0; });
    if (after == ratios.rend()) {
      return {.basis = "measured",
              .seq_len = std::round(std::exp(ratios.front().first)),
              .note = "cheaper at every measured length"};
    }
    const auto& [dear_tokens, dear] = *after;
    const auto& [cheap_tokens, cheap] = *std::prev(after);
    const double fraction = dear / (dear - cheap);
    const double log_tokens = dear_tokens + fraction * (cheap_tokens - dear_tokens);
    return {.basis = "measured", .seq_len = std::round(std::exp(log_tokens)), .note = ""};
  }
  if (!mixer.law || !softmax.law) {
    return {.basis = "unknown", .seq_len = {}, .note = "fewer than 2 lengths"};
  }
  const double gain = softmax.law->exponent - mixer.law->exponent;
  if (gain <= 0.0) {
    return {.basis = "never", .seq_len = {}, .note = "grows no slower than softmax"};
  }
  const double tokens =
      std::exp((std::log(mixer.law->scale) - std::log(softmax.law->scale)) / gain);
  if (!(tokens <= kLongestSequence)) {
    return {.basis = "never", .seq_len = {}, .note = "the fits meet beyond 1e15 tokens"};
  }
  const double longest = ratios.empty() ? 0.0 : std::round(std::exp(ratios.back().first));
  if (tokens < longest) {
    return {.basis = "extrapolated",
            .seq_len = longest,
            .note = fmt::format("later than this: softmax is cheaper here, though the fits meet at "
                                "{:.0f}",
                                tokens)};
  }
  return {.basis = "extrapolated", .seq_len = std::round(tokens), .note = ""};
}

std::vector<Table> summarise_latency(const Table& latency, std::span<const SourcedRow> rows) {
  std::vector<std::string> keys(kLineColumns.begin(), kLineColumns.end());
  keys.insert(keys.end(), {"threads", "processor"});
  const std::vector<LabelledLine> lines = latency_lines(latency, rows);

  Table fits;
  fits.name = "latency_fit";
  fits.columns = keys;
  fits.columns.insert(fits.columns.end(),
                      {"first_seq_len", "last_seq_len", "points", "exponent", "scale_s"});
  for (const auto& [key, setting, line] : lines) {
    std::vector<Value> row = key;
    row.emplace_back(static_cast<std::int64_t>(line.first));
    row.emplace_back(static_cast<std::int64_t>(line.last));
    row.emplace_back(line.fitted);
    std::optional<double> exponent, scale;
    if (line.law) {
      exponent = line.law->exponent;
      scale = line.law->scale;
    }
    row.push_back(value_of(exponent));
    row.push_back(value_of(scale));
    fits.add(std::move(row));
  }

  // Every softmax of a setting is one to beat: the first label of each implementation and
  // precision.
  std::map<std::vector<Value>, std::vector<const LabelledLine*>, RowLess> softmax;
  for (const LabelledLine& line : lines) {
    if (!line.is_softmax()) continue;
    std::vector<const LabelledLine*>& baselines = softmax[line.setting];
    const auto same = [&](const LabelledLine* other) {
      return compare(other->key[kImplementation], line.key[kImplementation]) == 0 &&
             compare(other->key[kPrecision], line.key[kPrecision]) == 0;
    };
    if (std::none_of(baselines.begin(), baselines.end(), same)) baselines.push_back(&line);
  }
  Table crossovers;
  crossovers.name = "latency_crossover";
  crossovers.columns = keys;
  crossovers.columns.insert(
      crossovers.columns.end(),
      {"baseline", "baseline_implementation", "baseline_precision", "seq_len", "basis", "note"});
  for (const LabelledLine& mixer : lines) {
    if (mixer.is_softmax()) continue;
    for (const LabelledLine* baseline : softmax[mixer.setting]) {
      const Crossover crossover = find_crossover(mixer.line, baseline->line);
      std::vector<Value> row = mixer.key;
      row.push_back(baseline->key[kLabel]);
      row.push_back(baseline->key[kImplementation]);
      row.push_back(baseline->key[kPrecision]);
      Value tokens;
      if (crossover.seq_len) tokens = static_cast<std::int64_t>(*crossover.seq_len);
      row.push_back(std::move(tokens));
      row.emplace_back(crossover.basis);
      row.emplace_back(crossover.note);
      crossovers.add(std::move(row));
    }
  }
  return {std::move(fits), std::move(crossovers)};
}

}  // namespace vla_bench
