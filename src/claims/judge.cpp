#include "claims/judge.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "report/grouping.h"

namespace vla_bench {
namespace {

/// Compares the value with the bounds or the text.
void judge_value(Judgement& judgement, const Criterion& criterion) {
  const Measurement& measured = judgement.measured;
  judgement.finding = Finding::not_met;
  if (criterion.equals) {
    if (compare(measured.value, *criterion.equals) == 0) judgement.finding = Finding::met;
    return;
  }
  const auto value = number(measured.value);
  if (!value) {
    judgement.note = "the row holds no number";
    return;
  }
  if (measured.without_number > 0) {
    judgement.note = fmt::format("{} of its rows hold{} no number", measured.without_number,
                                 measured.without_number == 1 ? "s" : "");
    return;
  }
  const auto& low = criterion.accept[0];
  const auto& high = criterion.accept[1];
  const auto inside = [&](double x) {
    return (!low || x >= *low) && (!high || x <= *high) && !std::isnan(x);
  };
  const bool met = inside(*value);
  if (met) judgement.finding = Finding::met;
  const bool crosses = (measured.low && inside(*measured.low) != met) ||
                       (measured.high && inside(*measured.high) != met);
  if (crosses) judgement.note = "the interval reaches across a bound";
}

Judgement without_row(std::span<const Table> tables, const Criterion& criterion,
                      const Selection& selection) {
  Judgement judgement{.note = fmt::format("no such row of {}", selection.table)};
  if (criterion.about == Subject::divergence) return judgement;
  judgement.lost = lost_cells(tables);
  if (!judgement.lost.empty()) judgement.finding = Finding::not_met;
  return judgement;
}

}  // namespace

Judgement judge(std::span<const Table> tables, const Criterion& criterion) {
  const SelectedRows of = select_rows(tables, criterion.of, criterion.place);
  if (of.rows.empty()) return without_row(tables, criterion, criterion.of);
  Judgement judgement{.measured = measure(of, criterion.of, criterion.place),
                      .lost = lost_cells(of)};
  std::vector<std::string> unlearned = unlearned_groups(of);
  if (criterion.over) {
    const std::string place = criterion.place + "/over";
    const SelectedRows over = select_rows(tables, *criterion.over, place);
    if (over.rows.empty()) return without_row(tables, criterion, *criterion.over);
    judgement.measured = ratio(judgement.measured, measure(over, *criterion.over, place));
    judgement.lost.merge(lost_cells(over));
    for (std::string& group : unlearned_groups(over)) unlearned.push_back(std::move(group));
  }
  if (criterion.about == Subject::memory && !unlearned.empty()) {
    judgement.finding = Finding::undecided;
    judgement.note = fmt::format("has not learned to guess among the values shown: {}",
                                 fmt::join(unlearned, ", "));
  } else if (criterion.about != Subject::divergence && !judgement.lost.empty()) {
    judgement.finding = Finding::not_met;
    judgement.note = "not all of its cells are ok";
  } else {
    judge_value(judgement, criterion);
  }
  return judgement;
}

Verdict verdict_of(std::span<const Judgement> criteria, std::span<const Judgement> condition) {
  const auto any = [](std::span<const Judgement> judgements, Finding finding) {
    return std::any_of(judgements.begin(), judgements.end(),
                       [&](const Judgement& judgement) { return judgement.finding == finding; });
  };
  const auto all_met = [](std::span<const Judgement> judgements) {
    return std::all_of(judgements.begin(), judgements.end(), [](const Judgement& judgement) {
      return judgement.finding == Finding::met;
    });
  };
  if (criteria.empty() || any(criteria, Finding::open)) return Verdict::no_run;
  if (any(criteria, Finding::undecided)) return Verdict::undecided;
  if (all_met(criteria)) return Verdict::reproduced;
  if (any(condition, Finding::open)) return Verdict::no_run;
  if (any(condition, Finding::undecided)) return Verdict::undecided;
  if (!condition.empty() && all_met(condition)) return Verdict::not_as_stated;
  return any(criteria, Finding::met) ? Verdict::in_part : Verdict::not_reproduced;
}

}  // namespace vla_bench
