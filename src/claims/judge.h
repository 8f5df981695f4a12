// From tables to verdicts.
#pragma once

#include <array>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "claims/expected.h"
#include "claims/measure.h"
#include "report/table.h"

namespace vla_bench {

enum class Finding { open, met, not_met, undecided };  // open: there is no row
template <>
inline constexpr std::array enum_names<Finding> = {
    std::pair{Finding::open, std::string_view("no run")},
    std::pair{Finding::met, std::string_view("yes")},
    std::pair{Finding::not_met, std::string_view("no")},
    std::pair{Finding::undecided, std::string_view("undecided")}};

struct Judgement {
  Measurement measured{};
  Finding finding = Finding::open;
  std::set<std::string> lost{};  // diverged and failed cells behind it (claims/selection.h)
  std::string note{};            // the reason, if it is not the number
};
/// The measured value decides; its interval is information. These cases precede it, in this order:
///   - a criterion about memory one of whose groups has not learned (unlearned_groups): undecided;
///   - a diverged or failed cell behind any row that the criterion selects, or anywhere where it
///     finds no row: not met, for a verdict never rests on survivors, unless the criterion is about
///     divergence;
///   - a row without a value (a crossover that never comes): not met. Among several rows it leaves
///     their extreme unknown, which is not met either.
Judgement judge(std::span<const Table> tables, const Criterion& criterion);

enum class Verdict { reproduced, in_part, not_reproduced, not_as_stated, undecided, no_run };
template <>
inline constexpr std::array enum_names<Verdict> = {
    std::pair{Verdict::reproduced, std::string_view("reproduced")},
    std::pair{Verdict::in_part, std::string_view("reproduced in part")},
    std::pair{Verdict::not_reproduced, std::string_view("not reproduced")},
    std::pair{Verdict::not_as_stated, std::string_view("not as stated")},
    std::pair{Verdict::undecided, std::string_view("undecided")},
    std::pair{Verdict::no_run, std::string_view("no run")}};

/// One criterion open: no run. Else one undecided: undecided. Else all met: reproduced. Else all of
/// the condition's met: not as stated (an open or undecided one counts as above). Else some met: in
/// part; none: not reproduced.
Verdict verdict_of(std::span<const Judgement> criteria, std::span<const Judgement> condition);

}  // namespace vla_bench
