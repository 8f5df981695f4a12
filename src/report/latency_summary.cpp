// Summaries of timings: latency_summary, latency_fit and latency_crossover (report/latency_law.h
// has the formulas).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "config/identity.h"
#include "experiments/latency.h"
#include "report/cell_columns.h"
#include "report/grouping.h"
#include "report/latency_law.h"
#include "report/lines.h"
#include "report/summary_rows.h"

namespace vla_bench {
namespace {

using Row = std::vector<Value>;

// The columns after `line` that distinguish timings; the length of the sequence is the last.
constexpr Column kTimingKeys[] = {Columns::label,     Columns::mixer,  Columns::implementation,
                                  Columns::precision, Columns::device, Columns::processor,
                                  Columns::threads,   Columns::batch,  Columns::n_heads,
                                  Columns::d_h,       Columns::pass,   Columns::seq_len};
constexpr std::size_t kLabel = 0, kMixer = 1, kImplementation = 2, kPrecision = 3;
constexpr std::size_t kSettingFrom = 4, kLength = 11;

const Table& raw() {
  static const Table table(Latency::table());
  return table;
}
const Value& at(const Row& row, const Column& column) { return row[raw().column(column)]; }

/// One pass of one implementation at one length.
struct Timing {
  const CellGroup* group = nullptr;
  Row key{};                      // kTimingKeys
  std::vector<CellEnd> states{};  // per seed, with the status and reason of its row
  std::vector<const Row*> ok{};
  LineName name{};
  std::vector<std::string> not_reached{};  // remarks on a relative_error, one per row
};

bool is_ok(const Row& row) {
  const auto seconds = number(at(row, Columns::median_s));
  return compare(at(row, Columns::status), std::string("ok")) == 0 && seconds && *seconds > 0.0 &&
         std::isfinite(*seconds);
}

std::string text_of(const Value& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? "" : *text;
}

Value whole_number(const std::string& text) {
  std::int64_t whole = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
  if (error == std::errc() && stop == text.data() + text.size()) return whole;
  return text_value(text);
}

/// `row` is null for a cell without a row.
Row key_of(const CellGroup& group, const Row* row) {
  Row key;
  for (const Column& column : kTimingKeys) {
    const auto is = [&](const Column& other) { return column.name == other.name; };
    if (is(Columns::label)) {
      key.emplace_back(group.label);
    } else if (is(Columns::processor)) {
      key.push_back(text_value(group.processor));
    } else if (is(Columns::threads)) {
      key.push_back(whole_number(group.threads));
    } else if (row != nullptr &&
               (is(Columns::implementation) || is(Columns::precision) || is(Columns::pass))) {
      key.push_back(at(*row, column));
    } else {
      key.push_back(column_of(group.config(), column));
    }
  }
  return key;
}

/// "relative_error 0.02 not reached: 0.05 after 200 repeats"; empty when reached or unknown.
std::string not_reached(const Row& row, double asked) {
  const std::string reason = text_of(at(row, Columns::reason));
  const auto reached = number(at(row, Columns::relative_error));
  if (!reason.empty() || !reached || *reached <= asked) return reason;
  return fmt::format("relative_error {} not reached: {:.2g} after {} repeats", asked, *reached,
                     number(at(row, Columns::repeats)).value_or(0.0));
}

void add_row(Timing& timing, const CellRecord& cell, const Row& row) {
  CellEnd& state = timing.states.emplace_back(state_of(cell));
  state.status = text_of(at(row, Columns::status));
  state.reason = text_of(at(row, Columns::reason));
  if (is_ok(row)) {
    timing.ok.push_back(&row);
    std::string note = not_reached(row, cell.config.latency.relative_error);
    if (!note.empty()) timing.not_reached.push_back(std::move(note));
  } else if (state.ok()) {
    state.status = "failed";
    state.reason = "no time";
  }
}

/// The timings of a group, in the order of their keys.
std::vector<Timing> timings_of(const CellGroup& group) {
  std::map<Row, Timing, RowLess> timings;
  for (const CellRecord* cell : group.cells) {
    const Table* table = cell->table(Latency::table().name);
    if (table == nullptr || table->rows.empty()) {
      timings[key_of(group, nullptr)].states.push_back(state_of(*cell));
      continue;
    }
    for (const Row& row : table->rows) add_row(timings[key_of(group, &row)], *cell, row);
  }
  std::vector<Timing> all;
  for (auto& [key, timing] : timings) {
    timing.group = &group;
    timing.key = key;
    all.push_back(std::move(timing));
  }
  return all;
}

Row without_length(const Row& key) { return {key.begin(), key.begin() + kLength}; }

/// All timings, with the names of their lines.
std::vector<Timing> named_timings(std::span<const CellGroup> groups) {
  std::vector<NamedCells> named;
  std::vector<std::vector<Timing>> timings;
  for (const CellGroup& group : groups) {
    timings.push_back(timings_of(group));
    NamedCells& cells = named.emplace_back(
        NamedCells{.label = group.label, .hash = group.hash, .config = &group.config()});
    for (const Timing& timing : timings.back()) {
      Row point = timing.key;
      point[kMixer] = Value();  // a label of two mixers gives two lines
      cells.places.push_back(without_length(point));
      cells.points.push_back(std::move(point));
    }
  }
  const ShownKeys shown{.keys = {"experiment", "device", "mixer.mixer", "latency.batch",
                                 "model.n_heads", "model.d_h", "task.seq_len"},
                        // A line has all lengths, for any number of repeats and any other timings
                        // in the config.
                        .along = {"task.seq_len", "latency.passes", "latency.implementations",
                                  "latency.warmup", "latency.min_repeats", "latency.max_repeats",
                                  "latency.relative_error", "latency.max_seconds"}};
  const std::vector<LineName> names = name_lines(named, shown);
  std::vector<Timing> all;
  for (std::size_t i = 0; i < timings.size(); ++i) {
    for (Timing& timing : timings[i]) {
      timing.name = names[i];
      all.push_back(std::move(timing));
    }
  }
  return all;
}

std::vector<double> numbers(const Timing& timing, const Column& column) {
  std::vector<double> values;
  for (const Row* row : timing.ok) {
    if (const auto value = number(at(*row, column))) values.push_back(*value);
  }
  return values;
}

Value median(const Timing& timing, const Column& column) {
  const std::vector<double> values = numbers(timing, column);
  return values.empty() ? Value() : Value(quantile(values, 0.5));
}

/// Summarises each column over the seeds.
Value summarised(const Timing& timing, const Column& column) {
  if (timing.ok.empty()) return {};
  const std::vector<double> values = numbers(timing, column);
  if (values.empty()) return {};
  const auto is = [&](const Column& other) { return column.name == other.name; };
  if (is(Columns::p10_s)) return *std::min_element(values.begin(), values.end());
  if (is(Columns::p90_s) || is(Columns::relative_error)) {
    return *std::max_element(values.begin(), values.end());
  }
  if (is(Columns::repeats)) {
    double sum = 0.0;
    for (const double repeats : values) sum += repeats;
    return static_cast<std::int64_t>(sum);
  }
  // Counted quantities are the same for all.
  for (const Column& counted :
       {Columns::state_bytes, Columns::activation_bytes, Columns::flop, Columns::bytes}) {
    if (is(counted)) return at(*timing.ok.front(), column);
  }
  return median(timing, column);
}

constexpr Column kMeasured[] = {Columns::median_s,
                                Columns::p10_s,
                                Columns::p90_s,
                                Columns::repeats,
                                Columns::relative_error,
                                Columns::state_bytes,
                                Columns::activation_bytes,
                                Columns::flop,
                                Columns::flop_per_s,
                                Columns::bytes,
                                Columns::bytes_per_s,
                                Columns::sgemm_flop_per_s,
                                Columns::copy_bytes_per_s};

std::vector<Value> order_of(const Timing& timing) {
  std::vector<Value> order = {timing.key[kLabel]};
  order.insert(order.end(), timing.name.order.begin(), timing.name.order.end());
  order.emplace_back(timing.name.line);
  order.insert(order.end(), timing.key.begin() + 1, timing.key.end());
  order.emplace_back(timing.group->hash);
  return order;
}

Table summary_table(std::span<const Timing> timings) {
  SortedRows sorted;
  for (const Timing& timing : timings) {
    std::vector<Value> measured;
    for (const Column& column : kMeasured) measured.push_back(summarised(timing, column));
    std::vector<std::string> notes = timing.not_reached;
    notes.push_back(versions_note(timing.states));
    sorted.add(order_of(timing), {summary_row({.name = timing.name,
                                               .keys = timing.key,
                                               .cells = cells_text(timing.states),
                                               .states = timing.states,
                                               .measured = std::move(measured),
                                               .note = joined_notes(notes),
                                               .config = timing.group->hash})});
  }
  return sorted.take("latency_summary",
                     summary_columns(kTimingKeys, {std::begin(kMeasured), std::end(kMeasured)}));
}

/// The largest error of the seeds' medians; unknown when one is unknown.
std::optional<double> error_of(const Timing& timing) {
  std::optional<double> largest = 0.0;
  for (const Row* row : timing.ok) {
    const auto error = timing_error(
        number(at(*row, Columns::relative_error)), *number(at(*row, Columns::median_s)),
        number(at(*row, Columns::p10_s)), number(at(*row, Columns::p90_s)),
        number(at(*row, Columns::repeats)).value_or(0.0));
    if (!error) return std::nullopt;
    largest = std::max(*largest, *error);
  }
  return largest;
}

/// All lengths of a line.
struct NamedLine {
  std::string name;
  Row key;             // kTimingKeys without the length
  Row setting;         // reference or not, then kTimingKeys from device on
  std::string timing;  // the keys that are not the mixer's: repeats and so on
  LatencyLine line;
  std::vector<CellEnd> states;  // of the cells behind all timings
  std::string not_ok;           // "4096 tokens: seed 1: diverged: ..."
  std::string note;

  bool is_softmax() const { return compare(key[kMixer], std::string(LatencyBaseline::name)) == 0; }
};

/// The keys with which the cells were timed.
std::string timing_keys(const RunConfig& config) {
  std::string text;
  for (const IdentityKey& key : identity_keys(config)) {
    if (key.key == "seed" || key.key == "task.seq_len" || key.key.starts_with("mixer.")) continue;
    text.append(key.key).append("=").append(key.value).append("\n");
  }
  return text;
}

std::string wide_note(const std::vector<std::string>& lengths) {
  if (lengths.empty()) return "";
  return fmt::format("relative_error not reached at {} tokens", fmt::join(lengths, ", "));
}

/// `members` has one entry per length, ascending.
NamedLine line_of(std::span<const Timing* const> members) {
  std::vector<LatencyPoint> points;
  std::vector<CellEnd> states;
  std::vector<std::string> not_ok, wide;
  for (const Timing* timing : members) {
    states.insert(states.end(), timing->states.begin(), timing->states.end());
    const double tokens = *number(timing->key[kLength]);
    const std::string length = fmt::format("{}", tokens);
    const auto seconds = number(median(*timing, Columns::median_s));
    if (seconds) points.push_back({tokens, *seconds, error_of(*timing)});
    const std::string lost = not_ok_text(timing->states);
    if (!lost.empty()) not_ok.push_back(fmt::format("{} tokens: {}", length, lost));
    if (!timing->not_reached.empty()) wide.push_back(length);
  }
  const Timing& first = *members.front();
  const std::string notes[] = {wide_note(wide), versions_note(states)};
  // The double references are compared only with each other, and so are the others, of any method
  // (tiled, recurrent, cudnn) and precision, since a user can choose among them.
  const bool reference = compare(first.key[kImplementation], std::string("reference")) == 0;
  Row setting = {std::int64_t{reference}};
  setting.insert(setting.end(), first.key.begin() + kSettingFrom, first.key.begin() + kLength);
  return {.name = first.name.line,
          .key = without_length(first.key),
          .setting = std::move(setting),
          .timing = timing_keys(first.group->config()),
          .line = fit_latency(std::move(points)),
          .states = std::move(states),
          .not_ok = joined_notes(not_ok),
          .note = joined_notes(notes)};
}

/// Lines with at least one timed length, in the order of their names and keys.
std::vector<NamedLine> lines_of(std::span<const Timing> timings) {
  std::map<Row, std::map<Row, const Timing*, RowLess>, RowLess> members;
  for (const Timing& timing : timings) {
    Row order = order_of(timing);
    order.erase(order.end() - 2, order.end());  // the length and the hash
    members[std::move(order)].emplace(Row{timing.key[kLength]}, &timing);
  }
  std::vector<NamedLine> lines;
  for (const auto& [order, by_length] : members) {
    std::vector<const Timing*> own;
    for (const auto& [length, timing] : by_length) own.push_back(timing);
    NamedLine line = line_of(own);
    if (!line.line.points.empty()) lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<std::string> line_columns(std::initializer_list<std::string_view> more) {
  std::vector<std::string> columns = {std::string(Columns::line)};
  columns.insert(columns.end(), std::begin(kTimingKeys), std::begin(kTimingKeys) + kLength);
  columns.insert(columns.end(), more.begin(), more.end());
  return columns;
}

Row begin_row(const NamedLine& line) {
  Row row = {line.name};
  row.insert(row.end(), line.key.begin(), line.key.end());
  return row;
}

Value whole(std::optional<double> tokens) {
  return tokens ? Value(static_cast<std::int64_t>(*tokens)) : Value();
}

Table fit_table(std::span<const NamedLine> lines) {
  Table fits;
  fits.name = "latency_fit";
  fits.columns = line_columns({"cells", "not_ok", "first_seq_len", "last_seq_len", "points",
                               "exponent", "exponent_low", "exponent_high", "scale_s", "note"});
  for (const NamedLine& named : lines) {
    const LatencyLine& line = named.line;
    const Exponent exponent = exponent_of(line);
    std::optional<double> low, high, scale;
    if (exponent.interval) {
      low = exponent.interval->low;
      high = exponent.interval->high;
    }
    if (exponent.value) scale = line.law->power_law().scale;
    Row row = begin_row(named);
    row.insert(row.end(), {cells_text(named.states), text_value(named.not_ok), whole(line.first),
                           whole(line.last), line.fitted, value_of(exponent.value), value_of(low),
                           value_of(high), value_of(scale)});
    const std::string notes[] = {exponent.note, named.note};
    row.push_back(text_value(joined_notes(notes)));
    fits.add(std::move(row));
  }
  return fits;
}

/// The softmaxes of the mixer's setting with which it is compared, in the order of the lines.
std::vector<const NamedLine*> baselines_of(const NamedLine& mixer,
                                           std::span<const NamedLine> lines) {
  std::map<Row, const NamedLine*, RowLess> baselines;  // by implementation and precision
  const RowLess less;
  for (const NamedLine& line : lines) {
    const bool same_setting =
        !less(line.setting, mixer.setting) && !less(mixer.setting, line.setting);
    if (!line.is_softmax() || !same_setting) continue;
    const NamedLine*& best = baselines[{line.key[kImplementation], line.key[kPrecision]}];
    const bool alike = line.timing == mixer.timing;
    if (best == nullptr || (alike && best->timing != mixer.timing)) best = &line;
  }
  std::vector<const NamedLine*> found;
  for (const auto& [key, line] : baselines) found.push_back(line);
  return found;
}

Table crossover_table(std::span<const NamedLine> lines) {
  Table crossovers;
  crossovers.name = "latency_crossover";
  crossovers.columns =
      line_columns({"baseline", "baseline_implementation", "baseline_precision", "cells", "not_ok",
                    "seq_len", "seq_len_low", "seq_len_high", "basis", "note"});
  for (const NamedLine& mixer : lines) {
    if (mixer.is_softmax()) continue;
    for (const NamedLine* baseline : baselines_of(mixer, lines)) {
      const Crossover crossover = find_crossover(mixer.line, baseline->line);
      std::vector<CellEnd> states = mixer.states;
      states.insert(states.end(), baseline->states.begin(), baseline->states.end());
      std::string of_baseline = baseline->not_ok;
      if (!of_baseline.empty()) of_baseline = fmt::format("{} at {}", baseline->name, of_baseline);
      const std::string not_ok[] = {mixer.not_ok, of_baseline};
      Row row = begin_row(mixer);
      row.insert(row.end(),
                 {baseline->name, baseline->key[kImplementation], baseline->key[kPrecision],
                  cells_text(states), text_value(joined_notes(not_ok)), whole(crossover.seq_len),
                  whole(crossover.low), whole(crossover.high), crossover.basis,
                  text_value(crossover.note)});
      crossovers.add(std::move(row));
    }
  }
  return crossovers;
}

}  // namespace

std::vector<Table> Latency::summarise(std::span<const CellGroup> groups) {
  const std::vector<Timing> timings = named_timings(groups);
  const std::vector<NamedLine> lines = lines_of(timings);
  return {summary_table(timings), fit_table(lines), crossover_table(lines)};
}

}  // namespace vla_bench
