#include "claims/ledger.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <system_error>

#include "config/read.h"
#include "report/grouping.h"
#include "report/summary.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

/// The cells of a claim's configs on one device.
struct Run {
  Index cells = 0;
  std::vector<CellRecord> finished;

  bool complete() const { return cells > 0 && static_cast<Index>(finished.size()) == cells; }
};

bool runs_on(const RunConfig& config, Device device) {
  switch (config.device) {
    case DeviceRequest::automatic:
      return true;
    case DeviceRequest::cpu:
      return device == Device::cpu;
    case DeviceRequest::cuda:
      return device == Device::cuda;
  }
  return false;
}

Run run_on(const std::vector<RunConfig>& configs, Device device, const CellIndex& cells) {
  Run run;
  std::set<std::string> seen;  // two configs may share a cell
  for (const RunConfig& config : configs) {
    for (const CellConfig& cell : expand_cells(config, device)) {
      if (!seen.insert(cell.hash).second) continue;
      ++run.cells;
      if (!runs_on(config, device)) continue;
      const CellRecord* found = cells.find(cell.hash);
      if (found == nullptr) continue;
      run.finished.push_back(*found);
      // A cell is the same under any label; criteria use the config's label.
      run.finished.back().config.mixers.front().label = cell.config.mixers.front().label;
    }
  }
  return run;
}

std::vector<RunConfig> read_configs(const Claim& claim) {
  std::vector<RunConfig> configs;
  for (const std::string& name : claim.configs) {
    configs.push_back(read_config(claim.folder / name, {}));
  }
  return configs;
}

/// The run's folder, or the pack.
std::string place_of_run(const CellRecord& cell) {
  constexpr std::string_view kPack = ".jsonl:";  // a line's number follows
  const std::size_t line = cell.place.rfind(kPack);
  if (line != std::string::npos) return cell.place.substr(0, line + kPack.size() - 1);
  return fs::path(cell.place).parent_path().string();
}

void describe_run(const Run& run, Device device, Assessment& assessment) {
  assessment.cells = run.cells;
  assessment.finished = static_cast<Index>(run.finished.size());
  if (run.finished.empty()) return;
  assessment.device = device_name(device);
  std::set<std::string> machines, folders;
  for (const CellRecord& cell : run.finished) {
    const std::string_view machine = ran_on(cell.config, cell.provenance);
    if (!machine.empty()) machines.emplace(machine);
    folders.insert(place_of_run(cell));
  }
  assessment.machines.assign(machines.begin(), machines.end());
  assessment.runs.assign(folders.begin(), folders.end());
}

std::string joined(const auto& texts, std::string_view between) {
  return fmt::format("{}", fmt::join(texts, between));
}

/// The diverged and failed cells behind all criteria.
std::set<std::string> lost_of(const Assessment& assessment) {
  std::set<std::string> lost;
  for (const auto* part : {&assessment.criteria, &assessment.condition}) {
    for (Judgement judgement : *part) lost.merge(judgement.lost);
  }
  return lost;
}

void add_criteria(Table& table, const std::string& id, const std::string& part,
                  const std::vector<Criterion>& criteria,
                  const std::vector<Judgement>& judgements) {
  for (std::size_t i = 0; i < criteria.size(); ++i) {
    const Criterion& criterion = criteria[i];
    const Judgement& judgement = judgements[i];
    const Measurement& measured = judgement.measured;
    Value accept_low, accept_high;
    if (criterion.equals) {
      accept_low = *criterion.equals;
      accept_high = *criterion.equals;
    } else {
      accept_low = value_of(criterion.accept[0]);
      accept_high = value_of(criterion.accept[1]);
    }
    table.add({id, part, criterion.what, measured.value, value_of(measured.low),
               value_of(measured.high), measured.cells, accept_low, accept_high,
               std::string(enum_name(judgement.finding)), joined(judgement.lost, "; "),
               judgement.note, criterion.why});
  }
}

}  // namespace

CellIndex::CellIndex(std::vector<CellRecord> cells) : cells_(std::move(cells)) {
  for (const CellRecord& cell : cells_) by_hash_.emplace(cell.hash, &cell);
}

const CellRecord* CellIndex::find(const std::string& hash) const {
  const auto found = by_hash_.find(hash);
  return found == by_hash_.end() ? nullptr : found->second;
}

Assessment assess(const Claim& claim, const CellIndex& cells) {
  Assessment assessment{.claim = &claim};
  const std::vector<RunConfig> configs = read_configs(claim);
  const Run on_gpu = run_on(configs, Device::cuda, cells);
  const Run on_cpu = run_on(configs, Device::cpu, cells);
  const bool gpu =
      on_gpu.complete() || (!on_cpu.complete() && on_gpu.finished.size() >= on_cpu.finished.size());
  const Run& run = gpu ? on_gpu : on_cpu;
  describe_run(run, gpu ? Device::cuda : Device::cpu, assessment);

  const bool finished = run.complete();
  std::vector<Table> tables;
  if (finished) tables = gather_tables(run.finished);
  const auto judge_all = [&](const std::vector<Criterion>& criteria) {
    std::vector<Judgement> judgements;
    for (const Criterion& criterion : criteria) {
      judgements.push_back(finished ? judge(tables, criterion)
                                    : Judgement{.note = "the run is not finished"});
    }
    return judgements;
  };
  assessment.criteria = judge_all(claim.criteria);
  if (claim.condition) assessment.condition = judge_all(claim.condition->criteria);
  assessment.verdict = verdict_of(assessment.criteria, assessment.condition);
  return assessment;
}

Table ledger_table(std::span<const Assessment> assessments) {
  Table table;
  table.name = "ledger";
  table.columns = {"claim",  "title",   "published", "measured",     "low",    "high",
                   "cells",  "verdict", "condition", "criteria_met", "not_ok", "finished",
                   "device", "machine", "command",   "run"};
  for (const Assessment& assessment : assessments) {
    const Claim& claim = *assessment.claim;
    const Measurement& headline = assessment.criteria.front().measured;
    const auto met =
        std::count_if(assessment.criteria.begin(), assessment.criteria.end(),
                      [](const Judgement& judgement) { return judgement.finding == Finding::met; });
    const std::string finished = fmt::format("{} of {}", assessment.finished, assessment.cells);
    const bool conditional = assessment.verdict == Verdict::not_as_stated;
    table.add({claim.id, claim.title, claim.published.value, headline.value, value_of(headline.low),
               value_of(headline.high), headline.cells, std::string(enum_name(assessment.verdict)),
               conditional ? claim.condition->text : std::string(),
               fmt::format("{} of {}", met, assessment.criteria.size()),
               joined(lost_of(assessment), "; "), finished, assessment.device,
               joined(assessment.machines, ", "), claim.command, joined(assessment.runs, ", ")});
  }
  return table;
}

Table criteria_table(std::span<const Assessment> assessments) {
  Table table;
  table.name = "criteria";
  table.columns = {"claim",      "part",        "what", "measured", "low",  "high", "cells",
                   "accept_low", "accept_high", "met",  "not_ok",   "note", "why"};
  for (const Assessment& assessment : assessments) {
    const Claim& claim = *assessment.claim;
    add_criteria(table, claim.id, "claim", claim.criteria, assessment.criteria);
    if (claim.condition) {
      add_criteria(table, claim.id, "condition", claim.condition->criteria, assessment.condition);
    }
  }
  return table;
}

}  // namespace vla_bench
