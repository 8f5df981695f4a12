// Independent items over a few workers, each bound to one device. Knows nothing of what the items
// are, so that a list of made-up GPUs tests it.
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

/// What there is to do, and to do it on.
struct Workload {
  ExperimentKind experiment{};
  Device device = Device::cpu;
  int gpus = 0;     // that answer; device cuda alone
  Index items = 0;  // cells to run
  Index jobs = 0;   // workers asked for; 0: automatic
};

/// The workers for a workload, spread evenly over the GPUs (worker w on GPU w modulo their number),
/// never more than there are items and always at least one. Automatic is
///   CPU   one worker, which has all threads
///   GPUs  cells_per_gpu of the experiment on each; where that is 0, one worker
/// Throws BadInput when `jobs` is out of range, and for timings when workers would share a device:
/// they would time each other.
std::vector<Slot> assign_slots(const Workload& workload);

/// Threads each of `workers` gets when `threads` are shared out: at least one.
int threads_per_worker(int threads, std::size_t workers);

/// Does one item on one slot; false: this worker had better take no more (its device is gone).
using WorkerBody = std::function<bool(const Slot& slot, Index item)>;

/// Calls body for items 0 .. count - 1, each at most once, handed out in that order to whichever
/// worker is free. No more are handed out once `stop` is set or a body has thrown; what runs then
/// is finished first, and the exception of the lowest item is rethrown. A worker that gives up
/// leaves its items to the others; the last one goes on to the end. Each worker is a thread of its
/// own; with a single slot it is the calling thread.
void run_workers(const std::vector<Slot>& slots, Index count, const std::atomic<bool>& stop,
                 const WorkerBody& body);

}  // namespace vla_bench
