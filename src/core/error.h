// The two kinds of failure that callers distinguish. Only main() catches them.
#pragma once

#include <stdexcept>
#include <string>

namespace vla_bench {

/// Exit codes of the program (sysexits are not used: users script on 0, 1 and 2).
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailedRun = 1;
inline constexpr int kExitBadInput = 2;

/// The user's input cannot be used: a config key, a file, a flag. The message names it and says
/// what was expected. Exit code 2; nothing has been written.
class BadInput : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A run that was well specified failed: no memory, disk full, a missing device operation.
/// Exit code 1.
class RunError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace vla_bench
