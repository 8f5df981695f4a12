// Compares claims with finished runs.
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

/// A claim compared with the cells of its configs only, so that a run with other settings in the
/// same folder never counts. It is complete when every cell is sealed, with any status. All its
/// cells are on one device: the GPU if it has all of them, else the CPU if it has, else the one
/// with more.
struct Assessment {
  const Claim* claim = nullptr;
  Verdict verdict = Verdict::no_run;
  std::vector<Judgement> criteria;   // parallel to the claim's; open until all cells are finished
  std::vector<Judgement> condition;  // likewise
  Index cells = 0;                   // of the claim's configs
  Index finished = 0;
  std::string device;                 // "" where none is finished
  std::vector<std::string> machines;  // processors or GPUs, by their provenance
  std::vector<std::string> runs;      // folders and packs of the cells
};
Assessment assess(const Claim& claim, const CellIndex& cells);

/// claim, title, published, measured, low, high, cells, verdict, condition, criteria_met, not_ok,
/// finished, device, machine, command, run: one row per claim. `measured`, its 95% interval and
/// `cells` ("4 of 5") are those of the first criterion, `not_ok` names the diverged and failed
/// cells behind all. `condition` is set when the verdict is "not as stated"; `finished` counts the
/// cells of the claim's configs; `run` is their folder or pack.
Table ledger_table(std::span<const Assessment> assessments);

/// claim, part, what, measured, low, high, cells, accept_low, accept_high, met, not_ok, note, why:
/// one row per criterion. `part` is "claim" or "condition", `met` yes, no, undecided or "no run".
Table criteria_table(std::span<const Assessment> assessments);

}  // namespace vla_bench
