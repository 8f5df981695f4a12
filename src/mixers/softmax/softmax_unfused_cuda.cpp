// Unfused softmax attention: scores as a whole matrix, two cuBLAS products around a kernel that
// masks and normalises. Row-major (M, N) is column-major (N, M), so each product is computed
// transposed.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "mixers/softmax/softmax.h"
#include "mixers/softmax/softmax_cuda.h"
#include "mixers/softmax/softmax_cuda_launch.h"

namespace vla_bench::mixers {
namespace softmax::cuda {
namespace {

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw RunError(fmt::format("cuda: {}: {}", call, cublasGetStatusString(status)));
}
#define VLA_CUBLAS(call) check((call), #call)

/// The workspace that the library recommends for this generation of GPUs.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// A thread's handle on its GPU and stream. It has its own workspace, since the library would
/// otherwise allocate one, which is not allowed during CUDA graph capture.
class Library {
 public:
  explicit Library(const vla_bench::cuda::StreamContext& context) : device_(context.device()) {
    VLA_CUBLAS(cublasCreate(&handle_));
    VLA_CUDA(cudaMalloc(&workspace_, kWorkspaceBytes));
    VLA_CUBLAS(cublasSetStream(handle_, context.stream()));
    VLA_CUBLAS(cublasSetWorkspace(handle_, workspace_, kWorkspaceBytes));
  }
  ~Library() {
    cublasDestroy(handle_);
    cudaFree(workspace_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  int device() const { return device_; }
  cublasHandle_t handle() const { return handle_; }

 private:
  int device_;
  cublasHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
};

cublasHandle_t library() {
  thread_local std::unique_ptr<Library> library;
  const vla_bench::cuda::StreamContext& context = vla_bench::cuda::stream_context();
  if (library == nullptr || library->device() != context.device()) {
    library = std::make_unique<Library>(context);
  }
  return library->handle();
}

cublasComputeType_t compute_type(Precision precision) {
  switch (precision) {
    case Precision::tf32:
      return CUBLAS_COMPUTE_32F_FAST_TF32;
    case Precision::bf16:
      return CUBLAS_COMPUTE_32F_FAST_16BF;
    default:
      return CUBLAS_COMPUTE_32F;
  }
}

/// C (m, n) = scale op(A) op(B), column-major, one product for each batch element.
struct Product {
  cublasOperation_t op_a;
  Index m, n, k;
  float scale;
  const float* a;
  Index lda, batch_a;
  const float* b;
  Index ldb, batch_b;
  float* c;
  Index ldc, batch_c;
  Index batch;
};

void multiply(Precision precision, const Product& p) {
  const float zero = 0.0F;
  VLA_CUBLAS(cublasGemmStridedBatchedEx(
      library(), p.op_a, CUBLAS_OP_N, static_cast<int>(p.m), static_cast<int>(p.n),
      static_cast<int>(p.k), &p.scale, p.a, CUDA_R_32F, static_cast<int>(p.lda), p.batch_a, p.b,
      CUDA_R_32F, static_cast<int>(p.ldb), p.batch_b, &zero, p.c, CUDA_R_32F,
      static_cast<int>(p.ldc), p.batch_c, static_cast<int>(p.batch), compute_type(precision),
      CUBLAS_GEMM_DEFAULT));
}

class UnfusedSoftmaxCore final : public MixerCore<float> {
 public:
  explicit UnfusedSoftmaxCore(Index d_h) : d_(d_h) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    const Index T = dims.tokens;
    if (dims.rows() * dims.heads > INT32_MAX) {  // one block each
      throw RunError(fmt::format("[softmax] unfused: at most {} rows of scores, got {}", INT32_MAX,
                                 dims.rows() * dims.heads));
    }
    if (saved != nullptr) saved->resize(context.device, 0);
    scores_.resize(context.device, dims.lanes() * T * T);
    if (dims.rows() == 0) return;
    // One batched product per head: a HeadView has one stride between batch elements.
    for (Index head = 0; head < dims.heads; ++head) {
      multiply(context.precision, {.op_a = CUBLAS_OP_T,
                                   .m = T,
                                   .n = T,
                                   .k = d_,
                                   .scale = 1.0F / std::sqrt(static_cast<float>(d_)),
                                   .a = inputs.k.at(0, head),
                                   .lda = inputs.k.row_stride,
                                   .batch_a = T * inputs.k.row_stride,
                                   .b = inputs.q.at(0, head),
                                   .ldb = inputs.q.row_stride,
                                   .batch_b = T * inputs.q.row_stride,
                                   .c = scores_of(dims, head),
                                   .ldc = T,
                                   .batch_c = T * T,
                                   .batch = dims.batch});
    }
    softmax_rows(vla_bench::cuda::stream_context().stream(), scores_.data(), dims.lanes(), T);
    for (Index head = 0; head < dims.heads; ++head) {
      multiply(context.precision, {.op_a = CUBLAS_OP_N,
                                   .m = d_,
                                   .n = T,
                                   .k = T,
                                   .scale = 1.0F,
                                   .a = inputs.v.at(0, head),
                                   .lda = inputs.v.row_stride,
                                   .batch_a = T * inputs.v.row_stride,
                                   .b = scores_of(dims, head),
                                   .ldb = T,
                                   .batch_b = T * T,
                                   .c = o.at(0, head),
                                   .ldc = o.row_stride,
                                   .batch_c = T * o.row_stride,
                                   .batch = dims.batch});
    }
  }

  void backward(const Context& /*context*/, const CoreInputs<float>& /*inputs*/,
                const CoreGradients<float>& /*gradients*/, const Array<float>& /*saved*/) override {
    throw RunError("[softmax] unfused: has only a forward");
  }

  std::unique_ptr<HeadMemory<float>> memory(Index /*head*/) const override {
    return make_softmax_memory<float>(d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return 2 * dims.rows() * dims.heads * d_ * static_cast<Index>(sizeof(float));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }

 private:
  float* scores_of(const HeadDims& dims, Index head) {
    return scores_.data() + head * dims.batch * dims.tokens * dims.tokens;
  }

  Index d_;
  Array<float> scores_;  // (H, B, T, T)
};

}  // namespace
}  // namespace softmax::cuda

std::unique_ptr<MixerCore<float>> make_unfused_softmax_cuda_core(Index d_h) {
  return std::make_unique<softmax::cuda::UnfusedSoftmaxCore>(d_h);
}

}  // namespace vla_bench::mixers
