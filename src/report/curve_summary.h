// Learning curves over seeds.
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

/// Makes "history_curve": the mean learning curve of each group of trainings over its cells that are
/// ok, a row a step: one that diverged would count up to there, and its leaving would look like
/// progress of the others. An accuracy is over the draws of one training batch.
///
/// The curves come one after the other, in any order, and only their numbers are kept: 24 bytes a
/// row of a history, 150 MB for 10^5 cells of 60 rows. They are added up in the order of seeds, so
/// that order does not change a digit.
class CurveSummary {
 public:
  /// `records`, all that the report is about (others than trainings are passed over), make the
  /// groups; they must outlive this. Their histories are not looked at.
  explicit CurveSummary(std::span<const CellRecord> records);
  ~CurveSummary();
  CurveSummary(const CurveSummary&) = delete;
  CurveSummary& operator=(const CurveSummary&) = delete;

  /// The learning curve of one of those records.
  void add(const CellRecord& record, const Table& history);

  /// The rows of all groups.
  Table table() const;
  /// The same group after group, for sweeps whose table memory would not hold.
  void each_group(const std::function<void(const Table&)>& take) const;

 private:
  struct Group;

  std::vector<Group> groups_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> places_;  // hash -> group, cell of it
};

}  // namespace vla_bench
