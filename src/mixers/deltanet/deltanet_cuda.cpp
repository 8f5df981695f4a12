// DeltaNet on a GPU; numbers are the steps of deltanet.h. The recurrence is recurrence_cuda.h's
// with r = k' and a = k' (paper, with the gate) or b k' (standard). Saved: the residuals, d values
// a token and head; paper also S every kCheckpointTokens tokens.
#include "mixers/deltanet/deltanet_cuda.h"

#include "core/cuda/place.h"
#include "mixers/deltanet/deltanet.h"
#include "mixers/deltanet/deltanet_features_cuda.h"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers {
namespace cuda {

class DeltaNetCore final : public MixerCore<float> {
 public:
  DeltaNetCore(const MixerConfig& config, Index d_h)
      : variant_(config.get<DeltaNetOptions>().variant),
        cpu_(make_deltanet_core<float>(config, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    Array<float>& kept = saved != nullptr ? *saved : unsaved_;
    kept.resize(context.device, saved_size(dims));
    const Trace<float> trace = this->trace(dims, kept.data());
    DeltaNetFeatures features{.dims = dims, .variant = variant_};
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    features.aux = token_view(dims, inputs.aux);
    features.query = trace.query;
    features.key = trace.key;
    (gated() ? features.gate : features.write) = trace.third;
    deltanet_features(stream, features);  // 1
    RecurrenceForward state{.v = token_view(dims, inputs.v), .o = token_view(dims, o)};
    if (saved != nullptr) {
      state.e = trace.e;
      state.checkpoints = trace.checkpoints;
    }
    recurrence_forward(stream, inputs_of(dims, this->trace<const float>(dims, kept.data())),
                       state);  // 2, 3, 4
  }

  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    for (Array<float>* array : {&dquery_, &dread_, &dwrite_}) {
      array->resize(context.device, channels(dims));
    }
    if (gated()) dgate_.resize(context.device, channels(dims));
    const Trace<const float> trace = this->trace(dims, saved.data());
    RecurrenceBackward state{.e = trace.e,
                             .d_o = token_view(dims, gradients.d_o),
                             .de = token_view(dims, gradients.dv)};  // 2: dv = dr
    if (gated()) {
      state.checkpoints = trace.checkpoints;
      state.ddecay = dense(dims, dgate_);
    }
    state.dq = dense(dims, dquery_);
    state.dr = dense(dims, dread_);
    state.da = dense(dims, dwrite_);
    recurrence_backward(stream, inputs_of(dims, trace), state);

    DeltaNetFeatureGradients features{.dims = dims, .variant = variant_};
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    features.aux = token_view(dims, inputs.aux);
    features.dquery = state.dq;
    features.dread = state.dr;
    features.dwrite = state.da;
    features.dgate = state.ddecay;
    features.dq = token_view(dims, gradients.dq);
    features.dk = token_view(dims, gradients.dk);
    features.daux = token_view(dims, gradients.daux);
    deltanet_feature_gradients(stream, features);  // 1
  }

  std::unique_ptr<HeadMemory<float>> memory() const override { return cpu_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(float));
  }

 private:
  bool gated() const { return variant_ == DeltaNetVariant::paper; }

  /// What the forward leaves for the backward, in one array.
  template <class T>
  struct Trace {
    TokenView<T> query, key, e;  // (B, T, H, d)
    TokenView<T> third;          // (B, T, H, d): the gate (paper), or b k' (standard)
    T* checkpoints;              // paper; else null
  };

  static Index channels(const HeadDims& dims) { return dims.rows() * dims.heads * dims.d_h; }
  Index saved_size(const HeadDims& dims) const {
    return 4 * channels(dims) + (gated() ? checkpoint_size(dims) : 0);
  }
  template <class T>
  Trace<T> trace(const HeadDims& dims, T* data) const {
    const auto view = [&](Index which) {
      return token_view(dims, data + which * channels(dims), dims.d_h);
    };
    return {view(0), view(1), view(2), view(3), gated() ? data + 4 * channels(dims) : nullptr};
  }
  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    return token_view(dims, array.data(), dims.d_h);
  }

  RecurrenceInputs inputs_of(const HeadDims& dims, const Trace<const float>& trace) const {
    RecurrenceInputs inputs{.dims = dims};
    inputs.r = trace.key;
    inputs.a = gated() ? trace.key : trace.third;
    inputs.q = trace.query;
    if (gated()) {
      inputs.decay_kind = Decay::rows;
      inputs.decay = trace.third;
    }
    return inputs;
  }

  DeltaNetVariant variant_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> unsaved_;                          // a trace that no backward wants
  Array<float> dquery_, dread_, dwrite_, dgate_;  // (B, T, H, d)
};

}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_deltanet_cuda_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<cuda::DeltaNetCore>(config, d_h);
}

}  // namespace vla_bench::mixers
