// One number of the summary tables, with what they say of it.
#pragma once

#include <optional>
#include <string>

#include "claims/expected.h"
#include "claims/selection.h"
#include "report/table.h"

namespace vla_bench {

struct Measurement {
  Value value{};                        // empty: nothing was measured
  std::optional<double> low{}, high{};  // 95% interval
  std::string cells{};                  // "4 of 5": how many are behind the value
  Index without_number = 0;             // rows that matched and hold none
};

/// The selection's number in `rows`, of which there has to be one at least.
///   row        the only row; several are BadInput naming the columns that tell them apart
///   min, max   of the rows that hold a number; the others are counted
/// Interval and cells are those of the row: <quantity>_low and _high; of median_s what
/// relative_error says. `place` names the criterion in messages; an unknown column is BadInput.
Measurement measure(const SelectedRows& rows, const Selection& selection, const std::string& place);

/// a / b, nothing where b is 0. The interval is by propagation of independent errors on logarithms,
/// each end with the ends that it comes from:
///   high = a / b exp(hypot(ln(a.high / a), ln(b / b.low))),  low likewise
/// so it lies in [0, inf), and has no upper end (infinity) where b may be 0. None unless a and b
/// are positive and both have one.
Measurement ratio(const Measurement& a, const Measurement& b);

}  // namespace vla_bench
