// The functions of cuDNN that this program and cuDNN's front end call, found in the library at
// their first call.
#include <cudnn.h>

#include "core/cuda/loaded_library.h"
#include "mixers/softmax/softmax_cudnn.h"

namespace vla_bench::mixers {
namespace {

const vla_bench::cuda::LoadedLibrary& cudnn() {
  static const vla_bench::cuda::LoadedLibrary library("cudnn", CUDNN_MAJOR);
  return library;
}

}  // namespace

std::string cudnn_missing() { return cudnn().missing(); }

}  // namespace vla_bench::mixers

#define VLA_CUDNN_FUNCTION(result, name, parameters, arguments)                           \
  result name parameters {                                                                \
    static auto* const function = vla_bench::mixers::cudnn().find<decltype(name)>(#name); \
    return function arguments;                                                            \
  }

extern "C" {

/// As library_versions in core reads it.
std::size_t cudnnGetVersion() {
  const vla_bench::cuda::LoadedLibrary& library = vla_bench::mixers::cudnn();
  if (!library.missing().empty()) return 0;
  return library.find<decltype(cudnnGetVersion)>("cudnnGetVersion")();
}
VLA_CUDNN_FUNCTION(const char*, cudnnGetErrorString, (cudnnStatus_t status), (status))
VLA_CUDNN_FUNCTION(void, cudnnGetLastErrorString, (char* message, std::size_t size),
                   (message, size))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnCreate, (cudnnHandle_t * handle), (handle))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnDestroy, (cudnnHandle_t handle), (handle))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnSetStream, (cudnnHandle_t handle, cudaStream_t stream),
                   (handle, stream))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnGetStream, (cudnnHandle_t handle, cudaStream_t* stream),
                   (handle, stream))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendCreateDescriptor,
                   (cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor),
                   (type, descriptor))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendDestroyDescriptor,
                   (cudnnBackendDescriptor_t descriptor), (descriptor))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendFinalize, (cudnnBackendDescriptor_t descriptor),
                   (descriptor))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendSetAttribute,
                   (cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                    cudnnBackendAttributeType_t type, int64_t count, const void* elements),
                   (descriptor, name, type, count, elements))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendGetAttribute,
                   (const cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                    cudnnBackendAttributeType_t type, int64_t wanted, int64_t* count,
                    void* elements),
                   (descriptor, name, type, wanted, count, elements))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnBackendExecute,
                   (cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                    cudnnBackendDescriptor_t tensors),
                   (handle, plan, tensors))

// Attention does not use these, but an unoptimised build of the front end refers to them.
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnCreateFilterDescriptor, (cudnnFilterDescriptor_t * filter),
                   (filter))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnDestroyFilterDescriptor, (cudnnFilterDescriptor_t filter),
                   (filter))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnSetFilterNdDescriptor,
                   (cudnnFilterDescriptor_t filter, cudnnDataType_t type,
                    cudnnTensorFormat_t format, int dimensions, const int sizes[]),
                   (filter, type, format, dimensions, sizes))
VLA_CUDNN_FUNCTION(cudnnStatus_t, cudnnReorderFilterAndBias,
                   (cudnnHandle_t handle, const cudnnFilterDescriptor_t filter,
                    cudnnReorderType_t type, const void* filter_data, void* reordered_filter,
                    int reorder_bias, const void* bias_data, void* reordered_bias),
                   (handle, filter, type, filter_data, reordered_filter, reorder_bias, bias_data,
                    reordered_bias))

}  // extern "C"
