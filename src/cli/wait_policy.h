// How idle threads wait between parallel loops.
#pragma once

namespace vla_bench::cli {

/// Starts the program anew with OMP_WAIT_POLICY=passive unless the user has set a policy: OpenMP's
/// threads spin by default, and when anything else runs on the machine a training step waits for
/// spinning threads to be scheduled out (six times slower, measured); on an idle machine passive
/// waiting costs nothing measurable. The runtime reads the variable when it is loaded, before main,
/// hence the new start. Does nothing where the program cannot be started again.
void wait_passively(char** argv);

}  // namespace vla_bench::cli
