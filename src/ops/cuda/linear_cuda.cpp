// Matrix products of the affine maps, by cuBLASLt. Row-major (M, N) is column-major (N, M), so each
// product is computed transposed.
//
// A product's algorithm is the first that the library's heuristic returns for its shape, never one
// chosen by timing: the same shape gives the same bits in every run. Split sums are added up in
// order (no in-place reduction).
#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "core/cuda/check.h"
#include "core/cuda/loaded_library.h"
#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "ops/backends.h"
#include "ops/cuda/column_sums.h"

namespace vla_bench::ops::cuda {
namespace {

using vla_bench::cuda::stream_context;
using vla_bench::cuda::StreamContext;

const vla_bench::cuda::LoadedLibrary& cublas_lt() {
  static const vla_bench::cuda::LoadedLibrary library("cublasLt", CUBLAS_VER_MAJOR);
  return library;
}
VLA_LOADED(cublas_lt, cublasLtCreate);
VLA_LOADED(cublas_lt, cublasLtDestroy);
VLA_LOADED(cublas_lt, cublasLtGetStatusString);
VLA_LOADED(cublas_lt, cublasLtMatmul);
VLA_LOADED(cublas_lt, cublasLtMatmulAlgoGetHeuristic);
VLA_LOADED(cublas_lt, cublasLtMatmulDescCreate);
VLA_LOADED(cublas_lt, cublasLtMatmulDescDestroy);
VLA_LOADED(cublas_lt, cublasLtMatmulDescSetAttribute);
VLA_LOADED(cublas_lt, cublasLtMatmulPreferenceCreate);
VLA_LOADED(cublas_lt, cublasLtMatmulPreferenceDestroy);
VLA_LOADED(cublas_lt, cublasLtMatmulPreferenceSetAttribute);
VLA_LOADED(cublas_lt, cublasLtMatrixLayoutCreate);
VLA_LOADED(cublas_lt, cublasLtMatrixLayoutDestroy);

void check(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw RunError(fmt::format("cuda: {}: {}", call, cublasLtGetStatusString(status)));
}
#define VLA_CUBLAS(call) check((call), #call)

/// The workspace limit given to the library's heuristics.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// Fewest terms of a sum that may be split over thread blocks. The gradients of weights need it
/// (thousands of rows, few results). A sum of 384 that the library split (dx of qkv at the
/// published size) took two kernels, 19 and 8 us in a profile on an H100; unsplit, timed by itself,
/// 22 us.
constexpr Index kLeastSplitSum = 1024;

/// D (m, n) = op(A) op(B) + beta C [+ bias along m], all column-major.
struct Product {
  const float* a = nullptr;
  const float* b = nullptr;
  const float* c = nullptr;
  float* d = nullptr;
  const float* bias = nullptr;
  bool transpose_a = false, transpose_b = false;
  Index m = 0, n = 0, k = 0;
  Index lda = 0, ldb = 0, ldc = 0, ldd = 0;
  float beta = 0.0F;
  Precision precision = Precision::float32;
};

/// Largest power of two up to 16 that divides an address, in bytes; limits the library's vector
/// loads.
std::uint32_t alignment(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  for (const std::uint32_t bytes : {16U, 8U}) {
    if (address % bytes == 0) return bytes;
  }
  return 4;
}

/// Everything about a product except its operands' addresses.
using Key = std::array<Index, 15>;

Key key_of(const Product& p) {
  return {p.m,
          p.n,
          p.k,
          p.lda,
          p.ldb,
          p.ldc,
          p.ldd,
          p.transpose_a,
          p.transpose_b,
          p.bias != nullptr,
          p.beta != 0.0F,
          static_cast<Index>(p.precision),
          alignment(p.a) | alignment(p.b) << 8 | alignment(p.d) << 16,
          alignment(p.c),
          alignment(p.bias)};
}

/// Descriptors and algorithm of one Key.
class Plan {
 public:
  Plan(cublasLtHandle_t handle, const Product& p) {
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    if (p.precision == Precision::tf32) compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    if (p.precision == Precision::bf16) compute = CUBLAS_COMPUTE_32F_FAST_16BF;
    VLA_CUBLAS(cublasLtMatmulDescCreate(&product_, compute, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    a_ = layout(p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    b_ = layout(p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
    c_ = layout(p.m, p.n, p.ldc);
    d_ = layout(p.m, p.n, p.ldd);
    choose(handle, p);
  }
  ~Plan() {
    for (cublasLtMatrixLayout_t matrix : {a_, b_, c_, d_}) cublasLtMatrixLayoutDestroy(matrix);
    cublasLtMatmulDescDestroy(product_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run(cublasLtHandle_t handle, const Product& p, void* workspace, cudaStream_t stream) {
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    const float one = 1.0F;
    VLA_CUBLAS(cublasLtMatmul(handle, product_, &one, p.a, a_, p.b, b_, &p.beta, p.c, c_, p.d, d_,
                              &algorithm_, workspace, kWorkspaceBytes, stream));
  }

 private:
  template <class V>
  void set(cublasLtMatmulDescAttributes_t attribute, V value) {
    VLA_CUBLAS(cublasLtMatmulDescSetAttribute(product_, attribute, &value, sizeof(value)));
  }

  static cublasLtMatrixLayout_t layout(Index rows, Index columns, Index leading) {
    cublasLtMatrixLayout_t matrix = nullptr;
    VLA_CUBLAS(cublasLtMatrixLayoutCreate(&matrix, CUDA_R_32F, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), leading));
    return matrix;
  }

  void choose(cublasLtHandle_t handle, const Product& p) {
    cublasLtMatmulPreference_t preference = nullptr;
    VLA_CUBLAS(cublasLtMatmulPreferenceCreate(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      VLA_CUBLAS(
          cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    prefer(
        CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(p.k < kLeastSplitSum ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                        : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.d));
    // The heuristic also reads the alignment of the bias.
    if (p.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, product_, a_, b_, c_, d_,
                                                                 preference, 1, &result, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
      throw RunError(fmt::format("cuda: no matrix product of {} x {} x {}: {}", p.m, p.n, p.k,
                                 cublasLtGetStatusString(status)));
    }
    algorithm_ = result.algo;
  }

  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr, d_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_{};
};

/// A thread's handle, plans and workspaces on its GPU. Threads do not share a handle, since the
/// library's workspaces would then depend on the order of their calls.
class Library {
 public:
  explicit Library(int device) : device_(device) {
    const auto lock = vla_bench::cuda::exclude_captures();
    VLA_CUBLAS(cublasLtCreate(&handle_));
  }
  ~Library() {
    const auto lock = vla_bench::cuda::exclude_captures();
    plans_.clear();
    for (const auto& [stream, workspace] : workspaces_) cudaFree(workspace);
    cublasLtDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  int device() const { return device_; }

  void run(const Product& p, cudaStream_t stream) {
    std::unique_ptr<Plan>& plan = plans_[key_of(p)];
    if (plan == nullptr) plan = std::make_unique<Plan>(handle_, p);
    plan->run(handle_, p, workspace(stream), stream);
  }

 private:
  void* workspace(cudaStream_t stream) {
    void*& memory = workspaces_[stream];
    if (memory == nullptr) {
      const auto lock = vla_bench::cuda::exclude_captures();
      VLA_CUDA(cudaMalloc(&memory, kWorkspaceBytes));
    }
    return memory;
  }

  int device_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
  std::map<cudaStream_t, void*> workspaces_;
};

void run(const Product& product, cudaStream_t stream) {
  thread_local std::unique_ptr<Library> library;
  const int device = stream_context().device();
  if (library == nullptr || library->device() != device) {
    library = std::make_unique<Library>(device);
  }
  library->run(product, stream);
}

void require_columns(const char* operation, Index columns) {
  if (columns <= INT32_MAX) return;
  throw RunError(
      fmt::format("cuda: {}: at most {} columns, got {}", operation, INT32_MAX, columns));
}

}  // namespace

// y^T (N, M) = W (N, K) x^T (K, M).
void linear_forward(const Context& context, const LinearForward<float>& args) {
  if (args.y.rows == 0) return;
  const Matrix<const float> c = args.residual.empty() ? args.y : args.residual;
  run({.a = args.weight.data,
       .b = args.x.data,
       .c = c.data,
       .d = args.y.data,
       .bias = args.bias,
       .transpose_a = true,
       .transpose_b = false,
       .m = args.y.cols,
       .n = args.y.rows,
       .k = args.x.cols,
       .lda = args.weight.stride,
       .ldb = args.x.stride,
       .ldc = c.stride,
       .ldd = args.y.stride,
       .beta = args.residual.empty() ? 0.0F : 1.0F,
       .precision = context.precision},
      stream_context().stream());
}

// dx^T (K, M) = W^T (K, N) dy^T (N, M);  dW^T (K, N) += x^T (K, M) dy (M, N).
void linear_backward(const Context& context, const LinearBackward<float>& args) {
  if (args.dy.rows == 0) return;
  require_columns("linear_backward", args.dy.cols);
  StreamContext& gpu = stream_context();
  // The side streams fork before dx is launched: all three read only dy and are independent.
  const auto stream_of = [&](vla_bench::cuda::SideStream kind, bool wanted) {
    return wanted && args.on_side_stream ? gpu.fork_side_stream(kind) : gpu.stream();
  };
  const cudaStream_t weights =
      stream_of(vla_bench::cuda::SideStream::products, !args.dweight.empty());
  const cudaStream_t sums = stream_of(vla_bench::cuda::SideStream::sums, args.dbias != nullptr);
  if (!args.dx.empty()) {
    run({.a = args.weight.data,
         .b = args.dy.data,
         .c = args.dx.data,
         .d = args.dx.data,
         .transpose_a = false,
         .transpose_b = false,
         .m = args.dx.cols,
         .n = args.dy.rows,
         .k = args.dy.cols,
         .lda = args.weight.stride,
         .ldb = args.dy.stride,
         .ldc = args.dx.stride,
         .ldd = args.dx.stride,
         .beta = args.accumulate_dx ? 1.0F : 0.0F,
         .precision = context.precision},
        gpu.stream());
  }
  if (!args.dweight.empty()) {
    run({.a = args.x.data,
         .b = args.dy.data,
         .c = args.dweight.data,
         .d = args.dweight.data,
         .transpose_a = false,
         .transpose_b = true,
         .m = args.x.cols,
         .n = args.dy.cols,
         .k = args.dy.rows,
         .lda = args.x.stride,
         .ldb = args.dy.stride,
         .ldc = args.dweight.stride,
         .ldd = args.dweight.stride,
         .beta = 1.0F,
         .precision = context.precision},
        weights);
  }
  if (args.dbias != nullptr) add_column_sums(sums, args.dy, args.dbias);
}

void join_side_streams() { stream_context().join_side_streams(); }

}  // namespace vla_bench::ops::cuda

/// As library_versions in core reads it.
std::size_t cublasLtGetVersion() {
  const vla_bench::cuda::LoadedLibrary& library = vla_bench::ops::cuda::cublas_lt();
  if (!library.missing().empty()) return 0;
  return library.find<decltype(cublasLtGetVersion)>("cublasLtGetVersion")();
}
