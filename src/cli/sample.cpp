// vla-bench sample: prints sequences of a task in readable form.
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/installed_files.h"
#include "cli/output.h"
#include "cli/terminal_text.h"
#include "config/read.h"
#include "core/error.h"
#include "experiments/list.h"
#include "tasks/batch.h"

namespace vla_bench::cli {
namespace {

// The limit of a training step.
constexpr Index kMostSequences = 1 << 20;

// Width of lines without a terminal: 16 positions.
constexpr std::size_t kWidthElsewhere = 104;

struct SampleOptions {
  std::string config;
  std::vector<std::string> overrides;
  Index batch = 2;
};

/// The random stream of an experiment's first tokens. Throws BadInput when it has no tokens.
RngStream token_stream(const RunConfig& config) {
  const auto stream =
      with_experiment(config.experiment, [&]<class E>() { return E::token_stream(config); });
  if (stream) return *stream;
  throw BadInput("sample: " + std::string(enum_name(config.experiment)) +
                 " works on vectors, not on token sequences; there is nothing to print");
}

int sample(const SampleOptions& options) {
  const RunConfig config = read_config(find_input(options.config), options.overrides);
  const std::vector<CellConfig> cells = expand_cells(config, Device::cpu);
  TrainSizes sizes(cells.front().config);
  const RunConfig& first = sizes.configs()[sizes.at(0)];
  const auto width = static_cast<Index>(terminal_width(STDOUT_FILENO).value_or(kWidthElsewhere));
  Batch batch;
  make_batch(first, token_stream(first), 0, options.batch, batch);
  for (Index row = 0; row < batch.batch; ++row) {
    if (row > 0) print("\n");
    print(describe_row(first, batch, row, width));
  }
  return kExitDone;
}

}  // namespace

void add_sample(CommandLine& command_line) {
  const auto options = std::make_shared<SampleOptions>();
  Subcommand command =
      command_line.add("sample", "Print a few sequences of a config's task with their targets",
                       "Example: vla-bench sample configs/mqar.json --batch 3 --set task.n_pairs=4",
                       [options] { return sample(*options); });
  command.positional(
      options->config,
      {"CONFIG", "JSON config; of a sweep, its first cell; of segments, the first step's"});
  command.option("--set", options->overrides,
                 {"key.path=JSON", "Override a key of the config (repeatable)"});
  command.option("--batch", options->batch, {"N", "Sequences to print (default 2)"},
                 {1, kMostSequences});
}

}  // namespace vla_bench::cli
