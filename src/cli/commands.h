// The subcommands of vla-bench. Each has a file in this folder that declares its options, calls
// lower folders and prints.
#pragma once

namespace vla_bench::cli {

class CommandLine;

void add_run(CommandLine& command_line);
void add_merge(CommandLine& command_line);
void add_pack(CommandLine& command_line);
void add_plan(CommandLine& command_line);
void add_report(CommandLine& command_line);
void add_claims(CommandLine& command_line);
void add_status(CommandLine& command_line);
void add_verify(CommandLine& command_line);
void add_sample(CommandLine& command_line);
void add_schema(CommandLine& command_line);
void add_info(CommandLine& command_line);

}  // namespace vla_bench::cli
