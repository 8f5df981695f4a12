// Runs independent items on a few workers, each bound to one device. Independent of what the items
// are, so that tests use made-up GPUs.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "config/enums.h"
#include "core/array.h"

namespace vla_bench {

/// One worker and the GPU it works on.
struct Slot {
  int worker = 0;  // from 0
  int gpu = -1;    // index for cuda_select_device; -1: the CPU
};

/// The work, and the devices for it.
struct Workload {
  ExperimentKind experiment{};
  Device device = Device::cpu;
  int gpus = 0;     // available ones; only for device cuda
  Index items = 0;  // cells to run
  Index jobs = 0;   // requested workers; 0: automatic
};

/// The workers for a workload, spread evenly over the GPUs (worker w on GPU w modulo their number),
/// never more than there are items and always at least one. Automatic is
///   CPU   one worker, which has all threads
///   GPUs  cells_per_gpu of the experiment on each; where that is 0, one worker
/// Throws BadInput when `jobs` is out of range, and for timings when workers would share a device,
/// which would distort them.
std::vector<Slot> assign_slots(const Workload& workload);

/// Threads per worker when `workers` share `threads`: at least one.
int threads_per_worker(int threads, std::size_t workers);

/// Does one item on one slot; returns false when this worker should stop (its device is lost).
using WorkerBody = std::function<bool(const Slot& slot, Index item)>;

/// Calls body for items 0 .. count - 1, each at most once, in that order as workers become free.
/// Starts no more items once `stop` is set or a body has thrown; waits for running ones and
/// rethrows the exception of the lowest item. When a worker gives up the others take its items; the
/// last one continues to the end. Each worker has its own thread; a single slot uses the calling
/// thread.
void run_workers(const std::vector<Slot>& slots, Index count, const std::atomic<bool>& stop,
                 const WorkerBody& body);

}  // namespace vla_bench
