// From tables to verdicts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "claims/expected.h"
#include "report/table.h"

namespace vla_bench {

struct Measurement {
  Value value;                 // empty: nothing was measured
  std::optional<double> ci95;  // half width of the 95% interval
  std::optional<Index> count;  // of seeds
  Index without_number = 0;    // rows that matched and hold none
  std::string not_ok{};        // diverged and failed cells of the rows that matched, by name
  std::string unlearned{};     // groups that matched and have not learned to guess among n values
};

/// The number that a selection names, or nothing where no row matches.
///   row        the only matching row; several are BadInput naming the columns that tell them apart
///   min, max   of the matching rows that hold a number; the others are counted
///   mean       of the matching rows, with Student's interval over them where the column itself is
///              no mean
/// Interval and count come from the row: <quantity>_ci95 beside <quantity>_mean, count_ok or count.
/// `place` names the criterion in messages; an unknown column is BadInput.
std::optional<Measurement> measure(std::span<const Table> tables, const Selection& selection,
                                   const std::string& place);

/// a / b. Relative half widths add in squares: the first order of error propagation, for means of
/// independent runs.
Measurement ratio(const Measurement& a, const Measurement& b);

struct Judgement {
  Measurement measured{};
  std::optional<bool> met;  // empty: no row to judge by
  bool undecided = false;   // about memory, and some group has not learned to guess
  std::string note;         // why not, where the number alone does not say
};
/// The measured value decides, its interval is for the reader. A mean rests on no survivors: where
/// a cell of a group diverged or failed, the criterion is not met, and the note names the cells. A
/// row without a value (a crossover that never comes, runs that all diverged) does not meet its
/// criterion, and among several leaves their extreme unknown: it does not meet the criterion
/// either.
Judgement judge(std::span<const Table> tables, const Criterion& criterion);

enum class Verdict { reproduced, in_part, not_reproduced, not_as_stated, undecided, no_run };
std::string_view verdict_name(Verdict verdict);

/// One of the criteria undecided: undecided. All criteria met: reproduced. Else, all of the
/// condition's met: not as stated. Else some: in part; none: not reproduced. A criterion that
/// cannot be judged (of the condition only where it is needed): no run.
Verdict verdict_of(std::span<const Judgement> criteria, std::span<const Judgement> condition);

}  // namespace vla_bench
