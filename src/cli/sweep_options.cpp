#include "cli/sweep_options.h"

#include <fmt/format.h>

#include "cli/installed_files.h"

namespace vla_bench::cli {

void declare_sweep_options(Subcommand& command, SweepOptions& options) {
  command.positional(
      options.config,
      {"CONFIG", "JSON config (see vla-bench schema), or the name of an installed one"});
  command.option("--set", options.overrides,
                 {"key.path=JSON",
                  "Override a key of the config (repeatable). A swept key is swept no more; a key "
                  "below a swept one goes into every point that does not give it another value"});
  command.option("--out", options.out, {"DIR", "Root of the results (default results/runs)"});
  command.choice("--device", options.device, {"auto", "cpu", "cuda"},
                 "Where to run (default: the config's)");
  command.option("--seed", options.seed, {"N", "Run this seed instead of the config's seeds"});
}

RunConfig read_sweep(const SweepOptions& options, const std::vector<std::string>& more) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.device.empty()) overrides.push_back(fmt::format("device=\"{}\"", options.device));
  overrides.insert(overrides.end(), more.begin(), more.end());
  if (options.seed) overrides.push_back(fmt::format("seeds=[{}]", *options.seed));
  return read_config(find_input(options.config), overrides);
}

}  // namespace vla_bench::cli
