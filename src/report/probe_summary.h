// State norms and Jacobians over seeds: at the last token, and along the sequence.
#pragma once

#include <span>
#include <vector>

#include "report/grouping.h"
#include "report/table.h"

namespace vla_bench {

/// "state_norm_summary" and "state_norm_curve". The summary is over the cells that are ok, at the
/// last t; linear_over_label: how many times larger the mean state of linear attention is there,
/// under the same keys but the mixer's (the first label of several), empty without it. The curve
/// has a row for each t, over the same cells.
std::vector<Table> summarise_state_norm(std::span<const CellGroup> groups);

/// "jacobian_summary" and "jacobian_curve", likewise. sigma_max and cosine of the summary are over
/// the seeds' means along the sequence, product_norm over its last values. sigma_max_max is the
/// largest, closed_form_gap the largest |sigma_max - sigma_closed_form| of all that was measured,
/// by cells that diverged later too.
std::vector<Table> summarise_jacobian(std::span<const CellGroup> groups);

}  // namespace vla_bench
