// Timing of work on a GPU by its own events, without the host.
//
// A sample is one call of the body. Before it the stream is held by a kernel that does nothing but
// wait, long enough for the host to queue everything that the body asks for: between the two events
// around the body the GPU never waits for a launch. Where the host was late all the same, the
// sample is thrown away and the stream is held for longer. One sample is in flight at a time.
//
// What two events cost with nothing between them, about 2 microseconds, is part of every sample.
//
// A build without CUDA links no_cuda/device_timer_no_cuda.cpp, whose functions throw RunError.
#pragma once

#include <functional>

#include "bench/stopwatch.h"

namespace vla_bench {

/// Times `body` on the calling thread's stream by the rule, after at least two calls (unless
/// stopped) that warm up: the first one may load code. `body` queues work and does not wait; it is
/// given the number of calls before this one, warming up included, so that it can go round buffers.
/// Throws RunError when the host cannot queue the body's work in a quarter of a second.
Timing measure_device(const TimingRule& rule, const std::function<void(Index call)>& body);

/// Of the GPU that the calling thread works on.
struct GpuMemory {
  Index l2_bytes = 0;
  Index free_bytes = 0;  // can be allocated: free, or kept by the program for its next allocations
};
GpuMemory gpu_memory();

}  // namespace vla_bench
