// Runs the subcommand of the command line and returns its exit code.
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "core/error.h"

namespace {

using namespace vla_bench;

/// Restarts the program with OMP_WAIT_POLICY=passive unless the user has set a policy: OpenMP's
/// threads spin by default, and when anything else runs on the machine a training step waits for
/// spinning threads to be scheduled out (six times slower, measured); on an idle machine passive
/// waiting has no measurable cost. The restart is necessary because the runtime reads the variable
/// when it is loaded, before main. Does nothing when the program cannot be restarted.
void wait_passively(char** argv) {
  constexpr const char* kPolicy = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr || setenv(kPolicy, "passive", 0) != 0) return;
  execv("/proc/self/exe", argv);
}

int dispatch(int argc, char** argv) {
  cli::configure_log(cli::Verbosity::normal);
  cli::CommandLine command_line(
      "vla-bench measures the memories of linear attention: a JSON config goes in, tables of\n"
      "accuracy, state norm, Jacobian and latency come out.",
      "Example: vla-bench run configs/quick.json\n"
      "Exit codes: 0 done, 1 failed run, 2 bad input.",
      VLA_BENCH_VERSION);
  cli::add_run(command_line);
  cli::add_merge(command_line);
  cli::add_pack(command_line);
  cli::add_plan(command_line);
  cli::add_report(command_line);
  cli::add_claims(command_line);
  cli::add_status(command_line);
  cli::add_verify(command_line);
  cli::add_sample(command_line);
  cli::add_schema(command_line);
  cli::add_info(command_line);
  const cli::Action action = command_line.parse(argc, argv);
  return action ? action() : kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  wait_passively(argv);
  try {
    return dispatch(argc, argv);
  } catch (const BadInput& error) {
    cli::log_error(error.what());
    return kExitBadInput;
  } catch (const std::bad_alloc&) {
    cli::log_error("out of memory");
    return kExitFailedRun;
  } catch (const std::exception& error) {
    cli::log_error(error.what());
    return kExitFailedRun;
  }
}
