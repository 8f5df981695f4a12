// Means of learning curves over seeds.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "report/record.h"
#include "report/table.h"

namespace vla_bench {

/// Makes "history_curve": the mean learning curve of each group of trainings over its cells that
/// are ok, one row per step and, with task.train_segments, per size of the rows: n_pairs and
/// seq_len are those of the step's batch. Diverged cells are left out, since their end would look
/// like progress of the others. An accuracy is over the draws of one training batch.
///
/// The curves are added one by one, in any order, and only their numbers are kept: 24 bytes per row
/// of a history, 150 MB for 10^5 cells of 60 rows. Sums are in the order of seeds, so the order of
/// adding does not change a digit.
class CurveSummary {
 public:
  /// Groups all `records` of the report, ignoring those that are not trainings; they must outlive
  /// this object. Does not read their histories.
  explicit CurveSummary(std::span<const CellRecord> records);
  ~CurveSummary();
  CurveSummary(const CurveSummary&) = delete;
  CurveSummary& operator=(const CurveSummary&) = delete;

  /// Adds the learning curve of one of those records.
  void add(const CellRecord& record, const Table& history);

  /// The rows of all groups.
  Table table() const;
  /// The same group by group, for sweeps whose table does not fit into memory.
  void each_group(const std::function<void(const Table&)>& take) const;

 private:
  struct Group;

  std::vector<Group> groups_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> places_;  // hash -> group, cell of it
};

}  // namespace vla_bench
