// Asynchronous copies from global to shared memory (PTX cp.async), in groups: a group ends with
// close_group, and what it copied is seen by other threads after wait_for_groups and a barrier.
#pragma once

#include <cuda_runtime.h>

namespace vla_bench::ops::cuda {

/// Starts a copy of 4 bytes, or of zeros where `valid` is false; `from` is not read then, but must
/// be a valid address. Both addresses are aligned to the size.
__device__ inline void copy_async_4(float* to, const float* from, bool valid) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 4 : 0;  // the rest of the 4 is filled with zeros
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from), "r"(bytes)
               : "memory");
}
/// The same for 16 bytes.
__device__ inline void copy_async_16(void* to, const void* from, bool valid) {
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes)
               : "memory");
}
/// Closes a group of this thread's copies.
__device__ inline void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Returns when at most kOpen of this thread's latest groups are under way.
template <int kOpen>
__device__ inline void wait_for_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

}  // namespace vla_bench::ops::cuda
