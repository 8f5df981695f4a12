// How idle threads wait between parallel loops (OMP_WAIT_POLICY).
#pragma once

namespace vla_bench::cli {

/// Restarts the program with OMP_WAIT_POLICY=passive unless the user has set a policy: OpenMP's
/// threads spin by default, and when anything else runs on the machine a training step waits for
/// spinning threads to be scheduled out (six times slower, measured); on an idle machine passive
/// waiting has no measurable cost. The restart is necessary because the runtime reads the variable
/// when it is loaded, before main. Does nothing when the program cannot be restarted.
void wait_passively(char** argv);

}  // namespace vla_bench::cli
