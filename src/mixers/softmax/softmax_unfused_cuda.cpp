// Unfused softmax attention: scores as a whole matrix, two cuBLAS products around a kernel that
// masks and normalises. Row-major (M, N) is column-major (N, M), so each product is computed
// transposed.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "core/cuda/check.h"
#include "core/cuda/loaded_library.h"
#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "mixers/softmax/softmax_core.h"
#include "mixers/softmax/softmax_cuda.h"
#include "mixers/softmax/softmax_cuda_launch.h"

namespace vla_bench::mixers {
namespace softmax::cuda {
namespace {

const vla_bench::cuda::LoadedLibrary& cublas() {
  static const vla_bench::cuda::LoadedLibrary library("cublas", CUBLAS_VER_MAJOR);
  return library;
}
// The header makes names without _v2 those with it.
VLA_LOADED(cublas, cublasCreate_v2);
VLA_LOADED(cublas, cublasDestroy_v2);
VLA_LOADED(cublas, cublasGetStatusString);
VLA_LOADED(cublas, cublasSetStream_v2);
VLA_LOADED(cublas, cublasSetWorkspace_v2);
// The header has two of this name.
using Gemm = cublasStatus_t(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n,
                            int k, const void* alpha, const void* a, cudaDataType, int lda,
                            long long a_stride, const void* b, cudaDataType, int ldb,
                            long long b_stride, const void* beta, void* c, cudaDataType, int ldc,
                            long long c_stride, int batch, cublasComputeType_t, cublasGemmAlgo_t);
VLA_LOADED_AS(Gemm, cublas, cublasGemmStridedBatchedEx);

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
  if (precision == Precision::tf32) return CUBLAS_COMPUTE_32F_FAST_TF32;
  if (precision == Precision::bf16) return CUBLAS_COMPUTE_32F_FAST_16BF;
  return CUBLAS_COMPUTE_32F;
}

/// C (m, n) = scale op(A) B, sums of k terms.
struct Product {
  cublasOperation_t op_a;
  Index m, n, k;
  float scale;
};

/// The product for every lane; the columns of a lane's matrices are the rows of its views.
void multiply(Precision precision, const HeadDims& dims, const Product& p,
              const HeadView<const float>& a, const HeadView<const float>& b,
              const HeadView<float>& c) {
  const float zero = 0.0F;
  const auto leading = [](const auto& view) { return static_cast<int>(view.row_stride); };
  const auto batch_stride = [&](const auto& view) { return dims.tokens * view.row_stride; };
  // One batched product per head, since it has one stride between matrices.
  for (Index head = 0; head < dims.heads; ++head) {
    VLA_CUBLAS(cublasGemmStridedBatchedEx(
        library(), p.op_a, CUBLAS_OP_N, static_cast<int>(p.m), static_cast<int>(p.n),
        static_cast<int>(p.k), &p.scale, a.at(0, head), CUDA_R_32F, leading(a), batch_stride(a),
        b.at(0, head), CUDA_R_32F, leading(b), batch_stride(b), &zero, c.at(0, head), CUDA_R_32F,
        leading(c), batch_stride(c), static_cast<int>(dims.batch), compute_type(precision),
        CUBLAS_GEMM_DEFAULT));
  }
}

class UnfusedSoftmaxCore final : public AttentionCore<float> {
 public:
  explicit UnfusedSoftmaxCore(Index d_h) : AttentionCore(d_h, 0) {}

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
    const HeadView<float> scores(scores_.data(), T, dims.batch * T * T);
    const float scale = 1.0F / std::sqrt(static_cast<float>(d_));
    multiply(context.precision, dims, {CUBLAS_OP_T, T, T, d_, scale}, inputs.k, inputs.q, scores);
    softmax_rows(vla_bench::cuda::stream_context().stream(), scores_.data(), dims.lanes(), T);
    multiply(context.precision, dims, {CUBLAS_OP_N, d_, T, T, 1.0F}, inputs.v, scores, o);
  }

  void backward(const Context& /*context*/, const CoreInputs<float>& /*inputs*/,
                const CoreGradients<float>& /*gradients*/, const Array<float>& /*saved*/) override {
    throw RunError("[softmax] unfused: has only a forward");
  }

 private:
  Array<float> scores_;  // (H, B, T, T)
};

}  // namespace
}  // namespace softmax::cuda

std::unique_ptr<MixerCore<float>> make_unfused_softmax_cuda_core(Index d_h) {
  return std::make_unique<softmax::cuda::UnfusedSoftmaxCore>(d_h);
}

}  // namespace vla_bench::mixers
