// Recall without training, over seeds.
#pragma once

#include <span>

#include "report/grouping.h"
#include "report/table.h"

namespace vla_bench {

/// "recall_summary": mean, deviation and interval over the seeds that are ok, a seed being
/// trials n_pairs draws. With one seed the interval is that of its trials; interval_over says
/// which.
Table summarise_recall(std::span<const CellGroup> groups);

}  // namespace vla_bench
