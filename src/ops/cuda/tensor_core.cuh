// Products of TF32 numbers on tensor cores, by one warp (PTX ISA, "Matrix Fragments for
// mma.m16n8k8").
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace vla_bench::ops::cuda {

/// Rounds to the nearest TF32 number (10 bits of mantissa), ties away from zero. The instruction
/// below cuts an operand's other bits off.
__device__ inline std::uint32_t round_to_tf32(float x) {
  std::uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
  return word;
}

/// Both rounded to the nearest bfloat16, ties to even; `low` in the lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// C (16, 8) += A (16, 8) B (8, 8). With g = l / 4 and t = l % 4, thread l of the warp holds
///   A: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);   B: (t, g), (t + 4, g);
///   C: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
__device__ inline void multiply_add_tf32(float (&c)[4], const std::uint32_t (&a)[4],
                                         std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// C = A B alike; C's registers need no zeros first.
__device__ inline void multiply_tf32(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                     std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0F));
}

/// Four (8, 4) matrices of 32-bit words in shared memory, whose rows of 16 bytes are aligned:
/// thread l names row l % 8 of matrix l / 8, and gets word l % 4 of row l / 4 of each.
__device__ inline void load_matrix_x4(std::uint32_t (&words)[4], const float* row) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

}  // namespace vla_bench::ops::cuda
