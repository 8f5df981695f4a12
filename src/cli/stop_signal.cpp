#include "cli/stop_signal.h"

#include <csignal>

namespace vla_bench::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr int kExitTemporaryFailure = 75;

// A signal handler may touch lock-free atomics only.
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);
std::atomic<bool> stop{false};
std::atomic<int> received{0};

extern "C" void request_stop(int signal_number) {
  received.store(signal_number);
  stop.store(true);
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

const std::atomic<bool>& stop_requested() { return stop; }

int stop_exit_code() {
  return received.load() == SIGINT ? kExitInterrupted : kExitTemporaryFailure;
}

}  // namespace vla_bench::cli
