// vla-bench schema: the JSON Schema of a config.
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "config/read.h"
#include "core/error.h"

namespace vla_bench::cli {

void add_schema(CommandLine& command_line) {
  command_line.add("schema",
                   "Print the JSON Schema of a config: every key, its default, range and meaning",
                   "Example: vla-bench schema > configs/schema.json", [] {
                     print(config_schema());
                     return kExitDone;
                   });
}

}  // namespace vla_bench::cli
