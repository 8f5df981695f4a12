#include "claims/judge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/statistics.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

using Row = std::vector<Value>;

constexpr std::string_view kMean = "_mean";

std::size_t column_of(const Table& table, const std::string& column, const std::string& place) {
  try {
    return table.column(column);
  } catch (const BadInput&) {
    throw BadInput(fmt::format("{}: table {} has no column \"{}\"; it has {}", place, table.name,
                               column, fmt::join(table.columns, ", ")));
  }
}

std::optional<std::size_t> find_column(const Table& table, std::string_view name) {
  const auto found = std::find(table.columns.begin(), table.columns.end(), name);
  if (found == table.columns.end()) return std::nullopt;
  return static_cast<std::size_t>(found - table.columns.begin());
}

std::vector<const Row*> matching_rows(const Table& table, const Filter& where,
                                      const std::string& place) {
  std::vector<const Row*> rows;
  for (const Row& row : table.rows) rows.push_back(&row);
  for (const auto& [name, wanted] : where.columns) {
    const std::size_t column = column_of(table, name, place);
    std::erase_if(rows, [&, &values = wanted](const Row* row) {
      return std::none_of(values.begin(), values.end(),
                          [&](const Value& value) { return compare(value, (*row)[column]) == 0; });
    });
  }
  return rows;
}

[[noreturn]] void refuse_several(const Table& table, const std::vector<const Row*>& rows,
                                 const std::string& place) {
  std::vector<std::string> differing;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    const bool same = std::all_of(rows.begin(), rows.end(), [&](const Row* row) {
      return compare((*row)[i], (*rows.front())[i]) == 0;
    });
    if (!same) differing.push_back(table.columns[i]);
  }
  throw BadInput(
      fmt::format("{}: {} rows of {} match; expected one, or a statistic of them. They "
                  "differ in {}",
                  place, rows.size(), table.name, fmt::join(differing, ", ")));
}

/// The diverged and failed cells behind the rows, as their summaries name them.
std::string not_ok_of(const Table& table, const std::vector<const Row*>& rows) {
  const auto text_of = [&](const Row& row, std::string_view column) -> std::string {
    const auto at = find_column(table, column);
    const auto* text = at ? std::get_if<std::string>(&row[*at]) : nullptr;
    return text == nullptr ? "" : *text;
  };
  std::vector<std::string> names;
  for (const Row* row : rows) {
    std::string name = text_of(*row, "not_ok");
    const std::string status = text_of(*row, "status");
    const bool summary = table.name.ends_with("_summary");  // raw tables have a row a cell
    if (summary && (status == "diverged" || status == "failed")) {
      name = status + ": " + text_of(*row, "reason");
    }
    if (!name.empty()) names.push_back(fmt::format("{} ({})", text_of(*row, "label"), name));
  }
  return fmt::format("{}", fmt::join(names, "; "));
}

/// The groups whose median seed does worse than guessing among the values shown.
std::string unlearned_of(const Table& table, const std::vector<const Row*>& rows) {
  constexpr double kMargin = 0.3;  // of the loss, in nats
  const auto loss = find_column(table, "loss_median");
  const auto pairs = find_column(table, "n_pairs");
  const auto label = find_column(table, "label");
  if (!loss || !pairs || !label) return {};
  std::vector<std::string> groups;
  for (const Row* row : rows) {
    const auto median = number((*row)[*loss]);
    const auto n = number((*row)[*pairs]);
    if (!median || !n || *median <= std::log(*n) + kMargin) continue;
    const auto* name = std::get_if<std::string>(&(*row)[*label]);
    groups.push_back(fmt::format("{} at n = {} (loss {:.2f}, ln n = {:.2f})",
                                 name == nullptr ? "" : *name, *n, *median, std::log(*n)));
  }
  return fmt::format("{}", fmt::join(groups, ", "));
}

/// A value with what its own row says of it.
Measurement of_row(const Table& table, const Row& row, std::size_t column) {
  Measurement measured{.value = row[column]};
  const std::string& name = table.columns[column];
  if (name.ends_with(kMean)) {
    const std::string quantity = name.substr(0, name.size() - kMean.size());
    if (const auto interval = find_column(table, quantity + "_ci95")) {
      measured.ci95 = number(row[*interval]);
    }
  } else if (const auto interval = find_column(table, "ci95"); interval && name == "accuracy") {
    measured.ci95 = number(row[*interval]);  // recall over trials
  }
  for (const char* count : {"count_ok", "count"}) {
    const auto at = find_column(table, count);
    if (at && std::holds_alternative<std::int64_t>(row[*at])) {
      measured.count = std::get<std::int64_t>(row[*at]);
    }
  }
  return measured;
}

/// Mean of the values; those that are missing leave it undefined, for a mean of the rest would be
/// another quantity.
Measurement mean_of(const Table& table, const std::vector<const Row*>& rows, std::size_t column) {
  std::vector<double> values;
  for (const Row* row : rows) {
    const auto value = number((*row)[column]);
    if (!value) return {};
    values.push_back(*value);
  }
  const Statistics spread = statistics(values);
  Measurement measured{
      .value = spread.mean, .ci95 = {}, .count = spread.count, .without_number = 0};
  const bool of_means = table.columns[column].ends_with(kMean);
  if (spread.count > 1 && !of_means) measured.ci95 = spread.ci95;
  if (of_means) measured.count = of_row(table, *rows.front(), column).count;
  return measured;
}

Measurement extreme_of(const Table& table, const std::vector<const Row*>& rows, std::size_t column,
                       bool largest) {
  const Row* best = nullptr;
  Index without_number = 0;
  for (const Row* row : rows) {
    const auto value = number((*row)[column]);
    if (!value || std::isnan(*value)) {
      ++without_number;
      continue;
    }
    const int order = best == nullptr ? 0 : compare((*row)[column], (*best)[column]);
    if (best == nullptr || (largest ? order > 0 : order < 0)) best = row;
  }
  Measurement measured = best == nullptr ? Measurement{} : of_row(table, *best, column);
  measured.without_number = without_number;
  return measured;
}

}  // namespace

namespace {

std::string joined(const std::string& a, const std::string& b) {
  return a.empty() || b.empty() ? a + b : a + "; " + b;
}

}  // namespace

std::optional<Measurement> measure(std::span<const Table> tables, const Selection& selection,
                                   const std::string& place) {
  const auto table = std::find_if(tables.begin(), tables.end(), [&](const Table& candidate) {
    return candidate.name == selection.table;
  });
  if (table == tables.end()) return std::nullopt;
  const std::size_t column = column_of(*table, selection.column, place);
  const std::vector<const Row*> rows = matching_rows(*table, selection.where, place);
  if (rows.empty()) return std::nullopt;
  Measurement measured;
  switch (selection.statistic) {
    case Reduction::row:
      if (rows.size() > 1) refuse_several(*table, rows, place);
      measured = of_row(*table, *rows.front(), column);
      break;
    case Reduction::mean:
      measured = mean_of(*table, rows, column);
      break;
    case Reduction::min:
    case Reduction::max:
      measured = extreme_of(*table, rows, column, selection.statistic == Reduction::max);
      break;
  }
  measured.not_ok = not_ok_of(*table, rows);
  measured.unlearned = unlearned_of(*table, rows);
  return measured;
}

Measurement ratio(const Measurement& a, const Measurement& b) {
  const auto above = number(a.value);
  const auto below = number(b.value);
  Measurement quotient{.value = {},
                       .ci95 = {},
                       .count = {},
                       .without_number = a.without_number + b.without_number,
                       .not_ok = joined(a.not_ok, b.not_ok),
                       .unlearned = joined(a.unlearned, b.unlearned)};
  if (!above || !below || *below == 0.0) return quotient;
  quotient.value = *above / *below;
  if (a.ci95 && b.ci95 && *above != 0.0) {
    quotient.ci95 = std::abs(*above / *below) * std::hypot(*a.ci95 / *above, *b.ci95 / *below);
  }
  if (a.count && b.count) quotient.count = std::min(*a.count, *b.count);
  return quotient;
}

Judgement judge(std::span<const Table> tables, const Criterion& criterion) {
  const auto missing = [](const Selection& selection) {
    return Judgement{.met = {}, .note = fmt::format("no such row of {}", selection.table)};
  };
  auto measured = measure(tables, criterion.of, criterion.place);
  if (!measured) return missing(criterion.of);
  if (criterion.over) {
    const auto over = measure(tables, *criterion.over, criterion.place + "/over");
    if (!over) return missing(*criterion.over);
    measured = ratio(*measured, *over);
  }
  Judgement judgement{.measured = *measured, .met = false, .note = ""};
  if (criterion.about == Subject::memory && !measured->unlearned.empty()) {
    judgement.undecided = true;
    judgement.note = "has not learned to guess among the values shown: " + measured->unlearned;
    return judgement;
  }
  if (criterion.about != Subject::divergence && !measured->not_ok.empty()) {
    judgement.note = "not all of its cells are ok: " + measured->not_ok;
    return judgement;
  }
  if (criterion.equals) {
    judgement.met = compare(measured->value, *criterion.equals) == 0;
    return judgement;
  }
  const auto value = number(measured->value);
  if (!value) {
    judgement.note = "the row holds no number";
    return judgement;
  }
  if (measured->without_number > 0) {
    judgement.note = fmt::format("{} of its rows hold{} no number", measured->without_number,
                                 measured->without_number == 1 ? "s" : "");
    return judgement;
  }
  const auto& low = criterion.accept[0];
  const auto& high = criterion.accept[1];
  // Written so that NaN is outside.
  judgement.met = (!low || *value >= *low) && (!high || *value <= *high) && !std::isnan(*value);
  if (measured->ci95) {
    const auto inside = [&](double x) { return (!low || x >= *low) && (!high || x <= *high); };
    const bool crosses = inside(*value - *measured->ci95) != *judgement.met ||
                         inside(*value + *measured->ci95) != *judgement.met;
    if (crosses) judgement.note = "the interval reaches across a bound";
  }
  return judgement;
}

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::reproduced:
      return "reproduced";
    case Verdict::undecided:
      return "undecided";
    case Verdict::in_part:
      return "reproduced in part";
    case Verdict::not_reproduced:
      return "not reproduced";
    case Verdict::not_as_stated:
      return "not as stated";
    case Verdict::no_run:
      return "no run";
  }
  return "?";
}

Verdict verdict_of(std::span<const Judgement> criteria, std::span<const Judgement> condition) {
  const auto open = [](const Judgement& judgement) { return !judgement.met.has_value(); };
  const auto met = [](const Judgement& judgement) { return judgement.met.value_or(false); };
  if (criteria.empty() || std::any_of(criteria.begin(), criteria.end(), open)) {
    return Verdict::no_run;
  }
  if (std::any_of(criteria.begin(), criteria.end(),
                  [](const Judgement& judgement) { return judgement.undecided; })) {
    return Verdict::undecided;
  }
  if (std::all_of(criteria.begin(), criteria.end(), met)) return Verdict::reproduced;
  if (!condition.empty()) {
    if (std::any_of(condition.begin(), condition.end(), open)) return Verdict::no_run;
    if (std::all_of(condition.begin(), condition.end(), met)) return Verdict::not_as_stated;
  }
  return std::any_of(criteria.begin(), criteria.end(), met) ? Verdict::in_part
                                                            : Verdict::not_reproduced;
}

}  // namespace vla_bench
