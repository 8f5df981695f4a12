// Timing of work on a GPU by CUDA events, without the host.
//
// A sample is one call of the body. A kernel that only waits holds the stream first, long enough
// for the host to queue everything that the body launches: between the two events around the body
// the GPU never waits for a launch. If the host was late nevertheless, the sample is discarded and
// the stream is held for longer. One sample is in flight at a time.
//
// Every sample includes the cost of two events, about 2 microseconds.
//
// A build without CUDA links no_cuda/device_timer_no_cuda.cpp, whose functions throw RunError.
#pragma once

#include <functional>

#include "bench/stopwatch.h"

namespace vla_bench {

/// Times `body` on the calling thread's stream by the rule, after at least two warm-up calls
/// (unless stopped), since the first may load code. `body` queues work and does not wait; its
/// argument is the number of calls before it, warm-up included, so that it can cycle through
/// buffers. Throws RunError when the host cannot queue the body's work in a quarter of a second.
Timing measure_device(const TimingRule& rule, const std::function<void(Index call)>& body);

/// Memory of the calling thread's GPU.
struct GpuMemory {
  Index l2_bytes = 0;
  Index free_bytes = 0;  // can be allocated: free, or kept by the program for its next allocations
};
GpuMemory gpu_memory();

}  // namespace vla_bench
