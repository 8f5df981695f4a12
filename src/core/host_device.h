// Functions that run on the CPU and in CUDA kernels alike.
#pragma once

#if defined(__CUDACC__)
#define VLA_HOST_DEVICE __host__ __device__
#else
#define VLA_HOST_DEVICE
#endif
