#include "runs/worker_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

/// A limit, since a mistyped number might request more threads than a system has.
constexpr Index kMostJobs = 1024;

Index automatic_jobs(const Workload& workload) {
  if (workload.device == Device::cpu) return 1;
  return workload.gpus *
         with_experiment(workload.experiment, []<class E>() { return E::cells_per_gpu; });
}

/// Distributes items and keeps the first exception.
class Dispatcher {
 public:
  Dispatcher(Index workers, Index count, const std::atomic<bool>& stop, const WorkerBody& body)
      : working_(workers), count_(count), stop_(stop), body_(body) {}

  void work(const Slot& slot) {
    for (;;) {
      if (stop_.load() || failed_.load()) return;
      const Index item = next_.fetch_add(1);
      if (item >= count_) return;
      try {
        if (!body_(slot, item) && may_leave()) return;
      } catch (...) {
        remember(item, std::current_exception());
        return;
      }
    }
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  /// Whether other workers remain to take over the work of one that gives up.
  bool may_leave() {
    Index working = working_.load();
    while (working > 1 && !working_.compare_exchange_weak(working, working - 1)) {
    }
    return working > 1;
  }

  void remember(Index item, std::exception_ptr error) {
    const std::scoped_lock lock(mutex_);
    failed_.store(true);
    if (error_ && failed_item_ < item) return;
    error_ = std::move(error);
    failed_item_ = item;
  }

  std::atomic<Index> next_{0};
  std::atomic<Index> working_;  // workers that have not given up
  std::atomic<bool> failed_{false};
  const Index count_;
  const std::atomic<bool>& stop_;
  const WorkerBody& body_;
  std::mutex mutex_;
  Index failed_item_ = 0;
  std::exception_ptr error_;
};

}  // namespace

std::vector<Slot> assign_slots(const Workload& workload) {
  if (workload.jobs < 0 || workload.jobs > kMostJobs) {
    throw BadInput(fmt::format("--jobs: expected 0 .. {}, got {}", kMostJobs, workload.jobs));
  }
  const bool on_gpus = workload.device == Device::cuda;
  const Index devices = on_gpus ? workload.gpus : 1;
  if (is_timed(workload.experiment) && workload.jobs > devices) {
    throw BadInput(
        fmt::format("--jobs: {} is timed by one worker a device: at most {} here, got {}",
                    enum_name(workload.experiment), devices, workload.jobs));
  }
  const Index asked = workload.jobs > 0 ? workload.jobs : automatic_jobs(workload);
  const Index workers = std::max<Index>(1, std::min(asked, workload.items));
  std::vector<Slot> slots;
  for (Index worker = 0; worker < workers; ++worker) {
    slots.push_back({.worker = static_cast<int>(worker),
                     .gpu = on_gpus ? static_cast<int>(worker % devices) : -1});
  }
  return slots;
}

int threads_per_worker(int threads, std::size_t workers) {
  return std::max(1, threads / static_cast<int>(workers));
}

void run_workers(const std::vector<Slot>& slots, Index count, const std::atomic<bool>& stop,
                 const WorkerBody& body) {
  Dispatcher dispatcher(static_cast<Index>(slots.size()), count, stop, body);
  if (slots.size() == 1) {
    dispatcher.work(slots.front());
  } else {
    std::vector<std::jthread> threads;
    threads.reserve(slots.size());
    for (const Slot& slot : slots) {
      threads.emplace_back([&dispatcher, &slot] { dispatcher.work(slot); });
    }
  }
  dispatcher.rethrow();
}

}  // namespace vla_bench
