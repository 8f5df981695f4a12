#include "core/cuda/check.h"

namespace vla_bench::cuda {
namespace {

__global__ void nothing() {}

}  // namespace

cudaError_t find_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, nothing);
}

}  // namespace vla_bench::cuda
