// The functions of cuDNN that this program and cuDNN's front end call, loaded from the library at
// their first call: a program linked with libcudnn would not start without it.
#include <cudnn.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "core/error.h"
#include "mixers/softmax/softmax_cudnn.h"

namespace vla_bench::mixers {
namespace {

struct LoadedLibrary {
  void* handle = nullptr;
  std::string error;
};

/// Loaded once and never closed, since its objects may live as long as the program.
const LoadedLibrary& library() {
  static const LoadedLibrary loaded = [] {
    const std::string name = fmt::format("libcudnn.so.{}", CUDNN_MAJOR);
    LoadedLibrary result{.handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)};
    if (result.handle == nullptr) result.error = dlerror();
    return result;
  }();
  return loaded;
}

template <class Function>
Function* find(const char* name) {
  if (const std::string reason = cudnn_missing(); !reason.empty()) throw RunError(reason);
  void* const symbol = dlsym(library().handle, name);
  if (symbol == nullptr) throw RunError(fmt::format("cudnn: the library has no {}", name));
  return reinterpret_cast<Function*>(symbol);
}

}  // namespace

std::string cudnn_missing() {
  if (library().handle != nullptr) return {};
  return fmt::format("cudnn: {}", library().error);
}

}  // namespace vla_bench::mixers

#define VLA_CUDNN_FUNCTION(result, name, parameters, arguments)                   \
  result name parameters {                                                        \
    static auto* const function = vla_bench::mixers::find<decltype(name)>(#name); \
    return function arguments;                                                    \
  }

extern "C" {

VLA_CUDNN_FUNCTION(std::size_t, cudnnGetVersion, (), ())
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
