#include "mixers/softmax/softmax_cudnn.h"

// The front end needs its own JSON reader only to store graphs.
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cuda_runtime_api.h>
#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "mixers/bf16_copies.h"
#include "mixers/softmax/softmax.h"

namespace vla_bench::mixers {
namespace {

namespace fe = cudnn_frontend;
using vla_bench::cuda::stream_context;
using Graph = fe::graph::Graph;
using TensorPtr = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Ids of tensors in graphs and in their lists of pointers.
enum Tensor : std::int64_t { kQ = 1, kK, kV, kO, kStats, kUpstream, kDq, kDk, kDv };
using Pointers = std::unordered_map<std::int64_t, void*>;

/// Calls the front end; turns an error that it returns or throws into a RunError.
template <class Call>
void call_front_end(const char* step, const Call& call) {
  std::string message;
  try {
    fe::error_t status = call();
    if (status.is_good()) return;
    message = status.get_message();
  } catch (const RunError&) {
    throw;
  } catch (const std::exception& error) {
    message = error.what();
  }
  throw RunError(fmt::format("[softmax] cudnn: {}: {}", step, message));
}

void check(cudnnStatus_t status, const char* step) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw RunError(fmt::format("[softmax] cudnn: {}: {}", step, cudnnGetErrorString(status)));
}

class Handle {
 public:
  explicit Handle(int device) : device_(device) {
    const auto lock = vla_bench::cuda::exclude_captures();
    check(cudnnCreate(&handle_), "cudnnCreate");
  }
  ~Handle() {
    const auto lock = vla_bench::cuda::exclude_captures();
    cudnnDestroy(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  int device() const { return device_; }
  cudnnHandle_t get() const { return handle_; }

 private:
  int device_;
  cudnnHandle_t handle_ = nullptr;
};

/// The calling thread's handle, on its GPU and stream.
cudnnHandle_t handle() {
  thread_local std::unique_ptr<Handle> the_handle;
  const int device = stream_context().device();
  if (the_handle == nullptr || the_handle->device() != device) {
    the_handle = std::make_unique<Handle>(device);
  }
  check(cudnnSetStream(the_handle->get(), stream_context().stream()), "cudnnSetStream");
  return the_handle->get();
}

/// A pass of one shape, with the first kernel that cuDNN's heuristics return.
class Plan {
 public:
  explicit Plan(const HeadDims& dims) : dims_(dims), graph_(std::make_unique<Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }

  static Plan forward(const HeadDims& dims, bool keeps_stats) {
    Plan plan(dims);
    auto options = plan.causal<fe::graph::SDPA_attributes>("forward");
    options.set_generate_stats(keeps_stats);
    auto [o, stats] =
        plan.graph_->sdpa(plan.input("q", kQ), plan.input("k", kK), plan.input("v", kV), options);
    plan.make_output(o, kO);
    if (keeps_stats) {
      stats->set_output(true).set_uid(kStats).set_data_type(fe::DataType_t::FLOAT);
    }
    plan.build("forward");
    return plan;
  }

  static Plan backward(const HeadDims& dims) {
    Plan plan(dims);
    const TensorPtr stats =
        plan.graph_->tensor(fe::graph::Tensor_attributes()
                                .set_name("stats")
                                .set_uid(kStats)
                                .set_dim({dims.batch, dims.heads, dims.tokens, 1})
                                .set_stride({dims.heads * dims.tokens, dims.tokens, 1, 1})
                                .set_data_type(fe::DataType_t::FLOAT));
    const auto options = plan.causal<fe::graph::SDPA_backward_attributes>("backward");
    auto [dq, dk, dv] = plan.graph_->sdpa_backward(plan.input("q", kQ), plan.input("k", kK),
                                                   plan.input("v", kV), plan.input("o", kO),
                                                   plan.input("d_o", kUpstream), stats, options);
    plan.make_output(dq, kDq);
    plan.make_output(dk, kDk);
    plan.make_output(dv, kDv);
    plan.build("backward");
    return plan;
  }

  Index workspace_bytes() const { return workspace_bytes_; }

  /// `pointers` is a copy, since the front end extends it.
  void run(Pointers pointers, void* workspace) const {
    call_front_end("execute", [&] { return graph_->execute(handle_, pointers, workspace); });
  }

 private:
  template <class Attributes>
  Attributes causal(const char* name) const {
    Attributes options;
    options.set_name(name).set_attn_scale(1.0F / std::sqrt(static_cast<float>(dims_.d_h)));
    options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    return options;
  }
  std::vector<std::int64_t> sizes() const {
    return {dims_.batch, dims_.heads, dims_.tokens, dims_.d_h};
  }
  /// Strides of packed (B, T, H, d), in the order of sizes().
  std::vector<std::int64_t> strides() const {
    const Index width = dims_.heads * dims_.d_h;
    return {dims_.tokens * width, dims_.d_h, width, 1};
  }
  TensorPtr input(const char* name, Tensor tensor) {
    return graph_->tensor(
        fe::graph::Tensor_attributes().set_name(name).set_uid(tensor).set_dim(sizes()).set_stride(
            strides()));
  }
  void make_output(const TensorPtr& output, Tensor tensor) {
    output->set_output(true).set_uid(tensor).set_dim(sizes()).set_stride(strides());
  }
  void build(const char* pass) {
    handle_ = handle();
    call_front_end(pass, [&] {
      return graph_->build(handle_, {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
    });
    std::int64_t bytes = 0;
    call_front_end(pass, [&] { return graph_->get_workspace_size(bytes); });
    workspace_bytes_ = bytes;
  }

  HeadDims dims_;
  std::unique_ptr<Graph> graph_;
  cudnnHandle_t handle_ = nullptr;
  Index workspace_bytes_ = 0;
};

/// Packed bfloat16 copies of the tensors of one set of inputs.
using Copies = std::map<Tensor, Array<std::uint16_t>>;

class CudnnSoftmax final : public CopyingCore<float> {
 public:
  explicit CudnnSoftmax(Index d_h) : d_h_(d_h) {}

  void prepare(const Context& /*context*/, const CoreInputs<float>& inputs,
               const CoreGradients<float>* gradients) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = stream_context().stream();
    Plans& plans = plans_[shape(dims)];
    Index workspace = workspace_.size();
    const auto require = [&](std::unique_ptr<Plan>& plan, auto&& make) {
      if (plan == nullptr) plan = std::make_unique<Plan>(make());
      workspace = std::max(workspace, plan->workspace_bytes());
    };
    require(plans.inference, [&] { return Plan::forward(dims, false); });
    if (gradients != nullptr) {
      require(plans.training, [&] { return Plan::forward(dims, true); });
      require(plans.backward, [&] { return Plan::backward(dims); });
    }
    workspace_.resize(Device::cuda, workspace);

    Copies& copies = copies_[inputs.q.data];
    for (const Tensor tensor : {kQ, kK, kV, kO, kUpstream, kDq, kDk, kDv}) {
      copies[tensor].resize(Device::cuda, dims.rows() * dims.heads * dims.d_h);
    }
    pack_bf16(stream, dims, inputs.q, copies[kQ].data());
    pack_bf16(stream, dims, inputs.k, copies[kK].data());
    pack_bf16(stream, dims, inputs.v, copies[kV].data());
    if (gradients != nullptr) pack_bf16(stream, dims, gradients->d_o, copies[kUpstream].data());
  }

  void forward(const Context& /*context*/, const CoreInputs<float>& inputs, HeadView<float> /*o*/,
               Array<float>* saved) override {
    const Plans& plans = plans_of(inputs);
    float* stats = nullptr;
    if (saved != nullptr) {
      saved->resize(Device::cuda, inputs.dims.rows() * inputs.dims.heads);
      stats = saved->data();
    }
    run(stats == nullptr ? plans.inference : plans.training, inputs, {kQ, kK, kV, kO}, stats);
  }

  void backward(const Context& /*context*/, const CoreInputs<float>& inputs,
                const CoreGradients<float>& /*gradients*/, const Array<float>& saved) override {
    // An input, but the front end's list of pointers is not const.
    run(plans_of(inputs).backward, inputs, {kQ, kK, kV, kO, kUpstream, kDq, kDk, kDv},
        const_cast<float*>(saved.data()));
  }

  void deliver(const Context& /*context*/, const CoreInputs<float>& inputs, HeadView<float> o,
               const CoreGradients<float>* gradients) override {
    Copies& copies = copies_of(inputs);
    const cudaStream_t stream = stream_context().stream();
    unpack_bf16(stream, inputs.dims, copies[kO].data(), o);
    if (gradients == nullptr) return;
    unpack_bf16(stream, inputs.dims, copies[kDq].data(), gradients->dq);
    unpack_bf16(stream, inputs.dims, copies[kDk].data(), gradients->dk);
    unpack_bf16(stream, inputs.dims, copies[kDv].data(), gradients->dv);
  }

  std::unique_ptr<HeadMemory<float>> memory(Index /*head*/) const override {
    return make_softmax_memory<float>(d_h_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return 2 * dims.rows() * dims.heads * d_h_ * static_cast<Index>(sizeof(std::uint16_t));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return dims.rows() * dims.heads * static_cast<Index>(sizeof(float));
  }

 private:
  struct Plans {
    std::unique_ptr<Plan> inference, training, backward;
  };
  using Shape = std::array<Index, 3>;  // B, T, H

  static Shape shape(const HeadDims& dims) { return {dims.batch, dims.tokens, dims.heads}; }

  [[noreturn]] static void not_prepared() {
    throw RunError("[softmax] cudnn: prepare() comes before passes over new arrays");
  }
  Copies& copies_of(const CoreInputs<float>& inputs) {
    const auto found = copies_.find(inputs.q.data);
    if (found == copies_.end()) not_prepared();
    return found->second;
  }
  const Plans& plans_of(const CoreInputs<float>& inputs) const {
    const auto found = plans_.find(shape(inputs.dims));
    if (found == plans_.end()) not_prepared();
    return found->second;
  }
  /// Runs a plan on the copies of `tensors` and, where there are any, the statistics of rows.
  void run(const std::unique_ptr<Plan>& plan, const CoreInputs<float>& inputs,
           std::initializer_list<Tensor> tensors, float* stats) {
    if (plan == nullptr) not_prepared();
    Copies& copies = copies_of(inputs);
    Pointers pointers;
    for (const Tensor tensor : tensors) pointers[tensor] = copies[tensor].data();
    if (stats != nullptr) pointers[kStats] = stats;
    plan->run(std::move(pointers), workspace_.data());
  }

  Index d_h_;
  std::map<Shape, Plans> plans_;
  std::map<const float*, Copies> copies_;  // by the address of their inputs' queries
  Array<char> workspace_;
};

}  // namespace

Support cudnn_softmax_support(Index d_h) {
  // Limits of the flash kernels, both passes, on every GPU since compute capability 8.0.
  constexpr Index kMultiple = 8, kMost = 128;
  if (d_h % kMultiple != 0 || d_h > kMost) {
    return {.ok = false,
            .reason = fmt::format("cudnn: d_h has to be a multiple of {} up to {}, got {}",
                                  kMultiple, kMost, d_h)};
  }
  if (std::string reason = cudnn_missing(); !reason.empty()) {
    return {.ok = false, .reason = std::move(reason)};
  }
  return {};
}

std::unique_ptr<MixerCore<float>> make_cudnn_softmax_core(Index d_h) {
  const Support support = cudnn_softmax_support(d_h);
  if (!support.ok) throw RunError(support.reason);
  return std::make_unique<CudnnSoftmax>(d_h);
}

}  // namespace vla_bench::mixers
