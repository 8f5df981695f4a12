// Claims against finished runs.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "claims/judge.h"
#include "report/record.h"

namespace vla_bench {

/// Sealed cells, each once, by their hash.
class CellIndex {
 public:
  explicit CellIndex(std::vector<CellRecord> cells);

  /// Null when there is none.
  const CellRecord* find(const std::string& hash) const;

 private:
  std::vector<CellRecord> cells_;
  std::map<std::string, const CellRecord*> by_hash_;
};

/// A claim held against the cells of its configs, and no others: the config decides what counts as
/// the run, so that a run of other settings in the same folder never does. All its cells are on one
/// device: the GPU where it has all of them, else the CPU where that has, else the one with more.
struct Assessment {
  const Claim* claim = nullptr;
  Verdict verdict = Verdict::no_run;
  std::vector<Judgement> criteria;   // parallel to the claim's; unjudged until all cells are there
  std::vector<Judgement> condition;  // likewise
  Index cells = 0;                   // of the claim's configs
  Index finished = 0;
  std::string device;                 // "" where none is finished
  std::vector<std::string> machines;  // processors or GPUs, as provenance names them
  std::vector<std::string> runs;      // folders and packs that the cells lie in
  std::string missing;                // generated configs that are not there yet
};
Assessment assess(const Claim& claim, const CellIndex& cells);

/// claim, title, published, measured, interval, count, verdict, condition, criteria_met, cells,
/// device, machine, command, run: a row a claim. `measured`, `interval` (low to high) and `count`
/// are those of the first criterion. `condition` is set where the verdict is "not as stated".
Table ledger_table(std::span<const Assessment> assessments);

/// claim, part, what, measured, ci95, count, low, high, met, note, why: a row a criterion. `part`
/// is "claim" or "condition".
Table criteria_table(std::span<const Assessment> assessments);

}  // namespace vla_bench
