#include "cli/wait_policy.h"

#include <unistd.h>

#include <cstdlib>

namespace vla_bench::cli {

void wait_passively(char** argv) {
  constexpr const char* kPolicy = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr || setenv(kPolicy, "passive", 0) != 0) return;
  execv("/proc/self/exe", argv);
}

}  // namespace vla_bench::cli
