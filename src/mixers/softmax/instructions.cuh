// PTX instructions without a CUDA C++ function, and dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace vla_bench::mixers::softmax::cuda {

/// 2^x within 2 ulp; 0 below the smallest normal number.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// The dynamic shared memory of the thread block, 16-byte aligned.
__device__ inline float* shared_memory() {
  extern __shared__ float4 softmax_shared_memory[];
  return reinterpret_cast<float*>(softmax_shared_memory);
}

/// Starts an asynchronous copy of kFloats floats (1 or 4, aligned to their size) to shared memory,
/// or of zeros where `inside` is false; `from` is not read then, but must be a valid address. The
/// data is there after copies_arrived.
template <int kFloats>
__device__ inline void copy_async(float* to, const float* from, bool inside) {
  static_assert(kFloats == 1 || kFloats == 4);
  constexpr int kBytes = kFloats * sizeof(float);
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = inside ? kBytes : 0;  // the rest is filled with zeros
  if constexpr (kFloats == 4) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from),
                 "r"(bytes)
                 : "memory");
  }
}
/// Closes a group of this thread's copies.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all of this thread's groups except the last kPending; a barrier must follow before
/// other threads read the data.
template <int kPending>
__device__ inline void copies_arrived() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Rounds to the nearest TF32 number (10 bits of mantissa), ties away from zero.
__device__ inline std::uint32_t round_to_tf32(float x) {
  std::uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
  return word;
}

/// Rounds both to the nearest bfloat16, ties to even; `low` is in the word's lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// C (16, 8) += A (16, 8 words) B (8 words, 8) by one warp, a word being one TF32 number or two
// bfloat16 of neighbouring inner indices. With g = l / 4 and t = l % 4, thread l of the warp holds
//   A: rows g, g + 8, g, g + 8 of words t, t, t + 4, t + 4;   B: words t, t + 4 of column g;
//   C: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// (PTX ISA, "Matrix Fragments for mma.m16n8k8" with .tf32 and "for mma.m16n8k16" with .bf16).
__device__ inline void multiply_add_tf32(float (&c)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_add_bf16(float (&c)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace vla_bench::mixers::softmax::cuda
