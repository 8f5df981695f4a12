// One number of the summary tables, with its interval and cells.
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
  std::string cells{};                  // "4 of 5": the number behind the value
  Index without_number = 0;             // matching rows without a number
};

/// The selection's number in `rows`, of which there must be at least one.
///   row        the only row; several are BadInput naming the columns in which they differ
///   min, max   of the rows with a number; the others are counted
/// Interval and cells are those of the row: <quantity>_low and _high; for median_s from
/// relative_error. `place` names the criterion in messages; an unknown column is BadInput.
Measurement measure(const SelectedRows& rows, const Selection& selection, const std::string& place);

/// a / b, empty when b is 0. The interval is by propagation of independent errors on logarithms,
/// separately for each end:
///   high = a / b exp(hypot(ln(a.high / a), ln(b / b.low))),  low likewise
/// so it lies in [0, inf), and has no upper end (infinity) where b may be 0. None unless a and b
/// are positive and both have one.
Measurement ratio(const Measurement& a, const Measurement& b);

}  // namespace vla_bench
