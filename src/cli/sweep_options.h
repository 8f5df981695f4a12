// The options that determine the cells, the same for every subcommand that has cells.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "config/read.h"

namespace vla_bench::cli {

struct SweepOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::string out = "results/runs";
  std::string device;  // empty: the config's
  std::optional<Index> seed;
};

void declare_sweep_options(Subcommand& command, SweepOptions& options);

/// Flags are overrides of their config keys (`more` of them, "key=JSON"): read, checked and
/// recorded the same way. Throws BadInput.
RunConfig read_sweep(const SweepOptions& options, const std::vector<std::string>& more = {});

}  // namespace vla_bench::cli
