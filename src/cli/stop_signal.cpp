#include "cli/stop_signal.h"

#include <csignal>
#include <cstdint>
#include <ctime>

namespace vla_bench::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr int kExitTemporaryFailure = 75;

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr std::int64_t kOneRequest = kNanosecondsPerSecond;  // signals this close are one request

// A signal handler may only use lock-free atomics.
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free &&
              std::atomic<std::int64_t>::is_always_lock_free);
std::atomic<bool> stop{false};
std::atomic<int> received{0};
std::atomic<std::int64_t> first_at{0};  // nanoseconds of the monotonic clock; 0: none yet

extern "C" void request_stop(int signal_number) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // async-signal-safe
  const std::int64_t at = now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
  std::int64_t none = 0;
  if (first_at.compare_exchange_strong(none, at)) {
    received.store(signal_number);
    stop.store(true);
  } else if (at - first_at.load() > kOneRequest) {
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
  }
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

const std::atomic<bool>& stop_requested() { return stop; }

int stop_exit_code() {
  return received.load() == SIGINT ? kExitInterrupted : kExitTemporaryFailure;
}

}  // namespace vla_bench::cli
