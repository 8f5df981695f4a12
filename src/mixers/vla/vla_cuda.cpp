// VLA on a GPU: step (1) of vla.h is its rule's, (2) to (4) are the penalty path's, the rest is the
// recurrence's. Kept from forward to backward: u, w^ (d each), |b| and delta a token and head, and
// in chunks A behind every segment; features are computed again.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "core/cuda/stream_context.h"
#include "core/device.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/rule_cuda.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_chunked_cuda.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench {
namespace mixers {
namespace cuda {
namespace {

/// Longer than any sequence is never: the kernels count in int.
int in_int(Index tokens) { return static_cast<int>(std::min<Index>(tokens, INT32_MAX)); }

class VlaRule final : public CudaRule {
 public:
  VlaRule(const VlaOptions& config, Index d_h, Chunks chunks)
      : features_(make_cuda_rule(config, d_h)),
        chunks_(chunks),
        u_scale_(config.penalty == Penalty::key ? static_cast<float>(config.u_length(d_h)) : 0.0F),
        hold_after_(config.hold_after),
        gain_(config.gain),
        settings_{.inverse_lambda = static_cast<float>(1.0 / config.lambda_0),
                  .stab_eps = static_cast<float>(config.stab_eps),
                  .per_eps = static_cast<float>(config.per_eps),
                  .period = in_int(config.period),
                  .nudged_tokens = in_int(config.hold_after > 0 ? config.hold_after : INT32_MAX),
                  .unit_write = config.write == WriteDirection::unit} {}

  const RecurrenceForm& form() const override { return features_->form(); }
  bool has_chain() const override { return true; }
  Index kept_size(const HeadDims& dims) const override {
    return dims.rows() * dims.heads * (2 * dims.d_h + 2) + ends_size(dims);
  }

  void bind(cudaStream_t stream, const RuleViews& views, const NormaliserForward& normaliser,
            float* kept, bool for_backward) override {
    const Kept<float> own(views.dims, kept, ends_size(views.dims));
    RuleViews with_u = views;
    with_u.row_own = own.u;
    features_->bind(stream, with_u, {}, nullptr, for_backward);  // (1)
    hold_directions(stream, views.dims, hold_after_, own.u.data);
    PenaltyForward penalty{.dims = views.dims, .settings = settings_};  // (2) to (4), (7)
    penalty.u = own.u;
    penalty.k = views.row_r;
    penalty.a = views.row_a;
    if (for_backward || (gain_ && !takes_chunks(views.dims))) {
      penalty.w = own.w;
      penalty.b_norm = own.b_norm;
      penalty.delta = own.delta;
    }
    penalty.normaliser = normaliser;
    if (takes_chunks(views.dims)) {
      PenaltyChunks chunks = this->chunks(views.dims, views.grade);
      if (for_backward) chunks.ends = own.ends;
      run_chunks(stream, penalty, chunks);
    } else {
      // Beside the penalty path; for groups of wide values, which are more lanes, on its own.
      const bool beside = views.dims.value_groups() == 1;
      if (!beside) penalty.normaliser = {};
      penalty_forward(stream, penalty);
      if (!beside && normaliser.denominator != nullptr) normaliser_forward(stream, normaliser);
      if (gain_) write_gains(stream, views.dims, own.w, own.delta, penalty.a);
    }
  }
  void bind(cudaStream_t stream, const BindViews<Bfloat16>& views,
            const NormaliserForward& normaliser) override {
    const HeadDims& dims = views.dims;
    const TokenView<float> u = dense(dims, u_);
    BindViews<Bfloat16> with_u = views;
    with_u.row_own = u;
    features_->bind(stream, with_u, {});  // (1)
    hold_directions(stream, dims, hold_after_, u.data);
    PenaltyForward penalty{.dims = dims, .settings = settings_};  // (2) to (4), (7)
    penalty.u = u;
    penalty.k = views.chain_r;
    penalty.normaliser = normaliser;
    PenaltyChunks chunks = this->chunks(dims, Grade::tf32);
    chunks.a = views.row_a;
    run_chunks(stream, penalty, chunks);
  }

  void unbind(cudaStream_t stream, const RuleViews& views, const float* kept) override {
    const HeadDims& dims = views.dims;
    const Kept<const float> own(dims, kept, ends_size(dims));
    PenaltyBackward penalty{.dims = dims, .settings = settings_};  // (4), (2)
    penalty.u = own.u;
    penalty.k = views.r;
    penalty.a = views.a;
    penalty.w = own.w;
    penalty.b_norm = own.b_norm;
    penalty.delta = own.delta;
    penalty.da = views.da.parts[0];
    penalty.da_more = views.da.parts[1];
    penalty.db = dense(dims, db_);
    const TokenView<float> du = dense(dims, du_), dk = dense(dims, dk_);
    if (takes_chunks(dims)) {
      penalty_backward_chunked(stream, penalty, own.ends, du, dk, chunks(dims, views.grade));
    } else {
      go_back(stream, penalty, du, dk);
    }

    if (gain_ && settings_.period == 1) {
      add_multiple(stream, dims, -settings_.per_eps, penalty.da, dk);
    }

    RuleViews with_penalty = views;  // (1)
    with_penalty.dr.parts[1] = dk;
    with_penalty.down = {{du}};
    features_->unbind(stream, with_penalty, nullptr);
  }

  std::string warning() const override {
    int count = 0;
    if (low_pivots_.empty()) return {};
    device_copy(Device::cpu, &count, Device::cuda, low_pivots_.data(), sizeof(count));
    if (count == 0) return {};
    return fmt::format("vla: rounding made the penalty matrix indefinite at {} tokens (delta < {})",
                       count, vla::kLeastPivot);
  }

 private:
  static int multiprocessors() { return vla_bench::cuda::stream_context().multiprocessors(); }
  bool takes_chunks(const HeadDims& dims) const {
    if (chunks_ != Chunks::by_rule) return chunks_ == Chunks::always;
    return chain_chunks_are_faster(dims);
  }
  Index ends_size(const HeadDims& dims) const {
    return takes_chunks(dims) ? penalty_ends_size(dims, segments(dims)) : 0;
  }
  int segments(const HeadDims& dims) const {
    return plan_penalty_segments(dims, settings_, multiprocessors());
  }
  PenaltyChunks chunks(const HeadDims& dims, Grade grade) {
    const int segments = this->segments(dims);
    workspace_.resize(Device::cuda, penalty_workspace_size(dims, segments));
    low_pivots_.resize(Device::cuda, 1);
    return {.grade = grade,
            .u_scale = u_scale_,
            .gain = gain_,
            .segments = segments,
            .workspace = workspace_.data(),
            .low_pivots = low_pivots_.data()};
  }
  void run_chunks(cudaStream_t stream, PenaltyForward& penalty, const PenaltyChunks& chunks) {
    NormaliserForward& normaliser = penalty.normaliser;
    const bool in_segments = penalty.dims.tokens >= kLeastNormaliserTokens;
    if (normaliser.denominator != nullptr && normaliser.sums == nullptr && in_segments) {
      sums_.resize(Device::cuda, normaliser_scratch_size(normaliser.dims));
      normaliser.sums = sums_.data();
    }
    penalty_forward_chunked(stream, penalty, chunks);
  }

  void go_back(cudaStream_t stream, PenaltyBackward& penalty, const TokenView<float>& du,
               const TokenView<float>& dk) {
    const HeadDims& dims = penalty.dims;
    penalty.dw = dense(dims, dw_);
    w_share_.resize(Device::cuda, dims.rows() * dims.heads);
    penalty.w_share = w_share_.data();
    penalty_backward(stream, penalty);
    PenaltyReads reads{.dims = dims, .settings = settings_};
    reads.w = penalty.w;
    reads.dw = penalty.dw;
    reads.db = penalty.db;
    reads.w_share = w_share_.data();
    reads.du = du;
    reads.dk = dk;
    penalty_reads(stream, reads);
  }

  template <class T>
  struct Kept {
    Kept(const HeadDims& dims, T* data, Index ends_size) {
      const Index scalars = dims.rows() * dims.heads;
      u = token_view(dims, data, dims.d_h);
      w = token_view(dims, data + scalars * dims.d_h, dims.d_h);
      ends = data + 2 * scalars * dims.d_h;
      b_norm = ends + ends_size;
      delta = b_norm + scalars;
    }
    TokenView<T> u, w;  // (B, T, H, d)
    T* ends;            // PenaltyChunks::ends, aligned to 16 bytes
    T *b_norm, *delta;  // (B, T, H)
  };

  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    array.resize(Device::cuda, dims.rows() * dims.heads * dims.d_h);
    return token_view(dims, array.data(), dims.d_h);
  }

  std::unique_ptr<CudaRule> features_;
  Chunks chunks_;
  float u_scale_;  // u = u_scale_ k; 0: any u
  Index hold_after_;
  bool gain_;  // in the place of (4)
  PenaltySettings settings_;
  Array<float> u_, db_, dw_, du_, dk_;  // (B, T, H, d)
  Array<float> w_share_;                // (B, T, H)
  Array<float> workspace_, sums_;       // in chunks
  Array<int> low_pivots_;               // of all forwards in chunks, or empty
};

}  // namespace
}  // namespace cuda
}  // namespace mixers

std::unique_ptr<mixers::cuda::CudaRule> make_cuda_chain_rule(const VlaOptions& options, Index d_h,
                                                             mixers::Chunks chunks) {
  if (options.penalty == Penalty::frozen) return mixers::cuda::make_cuda_rule(options, d_h);
  return std::make_unique<mixers::cuda::VlaRule>(options, d_h, chunks);
}

}  // namespace vla_bench
