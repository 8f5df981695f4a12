// VLA on a GPU. Forward: features (1), penalty path (2) to (4), normaliser (7), memory path (5),
// (6) and (8). Backward in reverse: the chain of de; dq', dr and da from S and dS; the penalty
// path; what passes through the normaliser; the features. Saved for it: e, a, w^ (d each) and three
// numbers a token and head; no state, features are computed again.
#include "mixers/vla/vla_cuda.h"

#include "core/cuda/place.h"
#include "mixers/recurrence/normaliser.h"
#include "mixers/recurrence/recurrence_cuda.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_features_cuda.h"
#include "mixers/vla/vla_penalty_cuda.h"

namespace vla_bench::mixers {
namespace cuda {

class VlaCore final : public MixerCore<float> {
 public:
  VlaCore(const VlaOptions& config, Index d_h)
      : features_{.feature_map = config.feature_map,
                  .penalty = config.penalty,
                  .u_scale = static_cast<float>(config.u_length(d_h)),
                  .unit_write = config.write == WriteDirection::unit,
                  .inverse_lambda = static_cast<float>(1.0 / config.lambda_0),
                  .stab_eps = static_cast<float>(config.stab_eps)},
        penalty_{.inverse_lambda = features_.inverse_lambda,
                 .stab_eps = features_.stab_eps,
                 .per_eps = static_cast<float>(config.per_eps),
                 // Longer than any sequence is never: the kernels count in int.
                 .period = static_cast<int>(std::min<Index>(config.period, INT32_MAX)),
                 .unit_write = features_.unit_write},
        has_penalty_(config.penalty != Penalty::frozen),
        tied_(config.residual == Residual::write),
        normalises_(config.normaliser == Normaliser::zq),
        cpu_(make_vla_core<float>({.options = config}, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override;
  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override;

  std::unique_ptr<HeadMemory<float>> memory() const override { return cpu_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(float));
  }

 private:
  /// What the forward leaves for the backward, in one array.
  template <class T>
  struct Trace {
    TokenView<T> query, f, k, e, a;   // (B, T, H, d)
    TokenView<T> u, w;                // (B, T, H, d); without a penalty: empty
    T *b_norm, *delta, *denominator;  // (B, T, H); the first two without a penalty: null
  };

  Index saved_size(const HeadDims& dims) const {
    const Index scalars = dims.rows() * dims.heads;
    return scalars * (has_penalty_ ? 7 * dims.d_h + 3 : 5 * dims.d_h + 1);
  }
  template <class T>
  Trace<T> trace(const HeadDims& dims, T* data) const {
    const Index scalars = dims.rows() * dims.heads;
    const auto take = [&data](Index size) {
      T* taken = data;
      data += size;
      return taken;
    };
    const auto take_view = [&] { return token_view(dims, take(scalars * dims.d_h), dims.d_h); };
    Trace<T> trace{};
    for (TokenView<T>* view : {&trace.query, &trace.f, &trace.k, &trace.e, &trace.a}) {
      *view = take_view();
    }
    if (has_penalty_) {
      trace.u = take_view();
      trace.w = take_view();
      trace.b_norm = take(scalars);
      trace.delta = take(scalars);
    }
    trace.denominator = take(scalars);
    return trace;
  }

  /// A dense array (B, T, H, width) of this core's own.
  TokenView<float> own(const Context& context, const HeadDims& dims, Array<float>& array) const {
    array.resize(context.device, dims.rows() * dims.heads * dims.d_h);
    return token_view(dims, array.data(), dims.d_h);
  }
  float* own_scalars(const Context& context, const HeadDims& dims, Array<float>& array) const {
    array.resize(context.device, dims.rows() * dims.heads);
    return array.data();
  }

  /// The memory path's recurrence; scale_ holds 1 / c.
  RecurrenceInputs inputs_of(const HeadDims& dims, const Trace<const float>& trace) const;

  VlaFeatureSettings features_;
  PenaltySettings penalty_;
  bool has_penalty_, tied_, normalises_;
  std::unique_ptr<MixerCore<float>> cpu_;

  Array<float> unsaved_;                  // a trace that no backward wants
  Array<float> scale_;                    // (B, T, H): 1 / c
  Array<float> de_, dquery_, dr_, da_;    // (B, T, H, d)
  Array<float> db_, dw_, du_, dk_;        // (B, T, H, d)
  Array<float> df_, dquery_z_;            // (B, T, H, d): what passes through the normaliser
  Array<float> d_delta_, d_denominator_;  // (B, T, H)
};

RecurrenceInputs VlaCore::inputs_of(const HeadDims& dims, const Trace<const float>& trace) const {
  RecurrenceInputs inputs{.dims = dims};
  inputs.r = tied_ ? trace.a : trace.k;
  inputs.a = trace.a;
  inputs.q = trace.query;
  if (normalises_) inputs.scale = scale_.data();
  return inputs;
}

void VlaCore::forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
                      Array<float>* saved) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::place().stream();
  Array<float>& kept = saved != nullptr ? *saved : unsaved_;
  kept.resize(context.device, saved_size(dims));
  const Trace<float> trace = this->trace(dims, kept.data());

  VlaFeatures features{.dims = dims, .settings = features_};  // (1)
  features.q = token_view(dims, inputs.q);
  features.kappa = token_view(dims, inputs.k);
  if (!inputs.aux.empty()) features.aux = token_view(dims, inputs.aux);
  features.query = trace.query;
  features.f = trace.f;
  features.k = trace.k;
  features.u = trace.u;
  if (!has_penalty_) features.a = trace.a;
  vla_features(stream, features);

  NormaliserForward normaliser;
  if (normalises_) {
    normaliser = {.dims = dims,
                  .f = trace.f,
                  .q = trace.query,
                  .floor = features_.stab_eps,
                  .denominator = trace.denominator,
                  .scale = own_scalars(context, dims, scale_)};
  }
  if (has_penalty_) {
    PenaltyForward penalty{.dims = dims, .settings = penalty_};  // (2) to (4), (7)
    penalty.u = trace.u;
    penalty.k = trace.k;
    penalty.a = trace.a;
    if (saved != nullptr) {
      penalty.w = trace.w;
      penalty.b_norm = trace.b_norm;
      penalty.delta = trace.delta;
    }
    penalty.normaliser = normaliser;
    penalty_forward(stream, penalty);
  } else if (normalises_) {
    normaliser_forward(stream, normaliser);  // (7)
  }

  RecurrenceForward state{.v = token_view(dims, inputs.v), .o = token_view(dims, o)};
  if (saved != nullptr) state.e = trace.e;
  recurrence_forward(stream, inputs_of(dims, this->trace<const float>(dims, kept.data())), state);
}

void VlaCore::backward(const Context& context, const CoreInputs<float>& inputs,
                       const CoreGradients<float>& gradients, const Array<float>& saved) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::place().stream();
  const Trace<const float> trace = this->trace(dims, saved.data());
  const TokenView<const float> d_o = token_view(dims, gradients.d_o);

  NormaliserWalks walks;
  if (normalises_) {
    NormaliserTerms terms{.dims = dims};
    terms.o = token_view(dims, gradients.o);
    terms.d_o = d_o;
    terms.denominator = trace.denominator;
    terms.floor = features_.stab_eps;
    terms.scale = own_scalars(context, dims, scale_);
    terms.d_denominator = own_scalars(context, dims, d_denominator_);
    normaliser_terms(stream, terms);  // (7)
    walks.f = trace.f;
    walks.q = trace.query;
    walks.d_denominator = terms.d_denominator;
    walks.df = own(context, dims, df_);
    walks.dq = own(context, dims, dquery_z_);
  }
  // (8), (6), (5), (7). dv is de.
  RecurrenceBackward state{.e = trace.e, .d_o = d_o, .de = token_view(dims, gradients.dv)};
  state.dq = own(context, dims, dquery_);
  state.da = own(context, dims, da_);
  state.dr = own(context, dims, dr_);
  state.normaliser = walks;
  recurrence_backward(stream, inputs_of(dims, trace), state);

  VlaFeatureGradients features{.dims = dims, .settings = features_};
  features.q = token_view(dims, inputs.q);
  features.kappa = token_view(dims, inputs.k);
  features.dquery[0] = state.dq;
  features.dquery[1] = walks.dq;
  features.df = walks.df;
  if (!tied_) features.dk[0] = state.dr;

  // (4), (2)
  if (has_penalty_) {
    PenaltyBackward penalty{.dims = dims, .settings = penalty_};
    penalty.u = trace.u;
    penalty.k = trace.k;
    penalty.a = trace.a;
    penalty.w = trace.w;
    penalty.b_norm = trace.b_norm;
    penalty.delta = trace.delta;
    penalty.da = state.da;
    if (tied_) penalty.da_more = state.dr;
    penalty.db = own(context, dims, db_);
    penalty.dw = own(context, dims, dw_);
    penalty.d_delta = own_scalars(context, dims, d_delta_);
    penalty_backward(stream, penalty);

    PenaltyReads reads{.dims = dims, .settings = penalty_};
    reads.w = trace.w;
    reads.dw = penalty.dw;
    reads.db = penalty.db;
    reads.du = own(context, dims, du_);
    reads.dk = own(context, dims, dk_);
    penalty_reads(stream, reads);

    features.dk[1] = reads.dk;
    features.du = reads.du;
    features.w = trace.w;
    features.d_delta = penalty.d_delta;
    features.delta = trace.delta;
  } else {
    features.da[0] = state.da;
    if (tied_) features.da[1] = state.dr;
  }

  // (1)
  if (!inputs.aux.empty()) {
    features.aux = token_view(dims, inputs.aux);
    features.daux = token_view(dims, gradients.daux);
  }
  features.dq = token_view(dims, gradients.dq);
  features.dkappa = token_view(dims, gradients.dk);
  vla_feature_gradients(stream, features);
}

}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_vla_cuda_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<cuda::VlaCore>(config.get<VlaOptions>(), d_h);
}

}  // namespace vla_bench::mixers
