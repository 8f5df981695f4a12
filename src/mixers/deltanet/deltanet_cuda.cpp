// DeltaNet on a GPU; numbers are the steps of deltanet.h. The recurrence is state_scan.h's with
// r = k' and a = k' (paper, with the gate) or b k' (standard). Saved: the residuals, d values a
// token and head; paper also S every kGateSegment tokens.
#include "mixers/deltanet/deltanet_cuda.h"

#include "core/cuda/place.h"
#include "mixers/cuda/state_scan.h"
#include "mixers/deltanet/deltanet.h"
#include "mixers/deltanet/deltanet_features_cuda.h"

namespace vla_bench::mixers {
namespace cuda {

class DeltaNetCore final : public MixerCore<float> {
 public:
  DeltaNetCore(const MixerConfig& config, Index d_h)
      : variant_(config.variant), cpu_(make_deltanet_core<float>(config, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    compute_features(context, inputs);  // 1
    StateForward args{.v = token_view(dims, inputs.v), .o = token_view(dims, o)};
    if (saved != nullptr) {
      saved->resize(context.device, saved_size(dims));
      args.e = token_view(dims, saved->data(), dims.d_h);
      if (gated()) args.checkpoints = saved->data() + channels(dims);
    }
    state_forward(vla_bench::cuda::place().stream(), scan(dims), args);  // 2, 3, 4
  }

  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    for (Array<float>* array : {&dquery_, &dread_, &dwrite_}) {
      array->resize(context.device, channels(dims));
    }
    if (gated()) dgate_.resize(context.device, channels(dims));
    compute_features(context, inputs);

    const TokenView<const float> e(token_view(dims, saved.data(), dims.d_h));
    const TokenView<const float> d_o = token_view(dims, gradients.d_o);
    const TokenView<float> de = token_view(dims, gradients.dv);  // 2: dv = dr
    StateResiduals residuals{.d_o = d_o, .de = de};
    if (gated()) {
      residuals.e = e;
      residuals.checkpoints = saved.data() + channels(dims);
      residuals.dgate = dense(dims, dgate_);
    }
    state_residuals(stream, scan(dims), residuals);
    StateGradients state{.e = e, .de = de, .d_o = d_o};
    state.dq = dense(dims, dquery_);
    state.dr = dense(dims, dread_);
    state.da = dense(dims, dwrite_);
    state_gradients(stream, scan(dims), state);

    DeltaNetFeatureGradients features{.dims = dims, .variant = variant_};
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    features.aux = token_view(dims, inputs.aux);
    features.dquery = state.dq;
    features.dread = state.dr;
    features.dwrite = state.da;
    features.dgate = residuals.dgate;
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

  static Index channels(const HeadDims& dims) { return dims.rows() * dims.heads * dims.d_h; }
  Index saved_size(const HeadDims& dims) const {
    return channels(dims) + (gated() ? checkpoint_size(dims) : 0);
  }
  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    return token_view(dims, array.data(), dims.d_h);
  }

  void compute_features(const Context& context, const CoreInputs<float>& inputs) {
    const HeadDims& dims = inputs.dims;
    Array<float>& third = gated() ? gate_ : write_;
    for (Array<float>* array : {&query_, &key_, &third}) {
      array->resize(context.device, channels(dims));
    }
    DeltaNetFeatures args{.dims = dims, .variant = variant_};
    args.q = token_view(dims, inputs.q);
    args.k = token_view(dims, inputs.k);
    args.aux = token_view(dims, inputs.aux);
    args.query = dense(dims, query_);
    args.key = dense(dims, key_);
    (gated() ? args.gate : args.write) = dense(dims, third);
    deltanet_features(vla_bench::cuda::place().stream(), args);
  }

  StateScan scan(const HeadDims& dims) {
    StateScan scan{.dims = dims};
    scan.r = dense(dims, key_);
    scan.a = gated() ? scan.r : dense(dims, write_);
    scan.q = dense(dims, query_);
    if (gated()) scan.gate = dense(dims, gate_);
    return scan;
  }

  DeltaNetVariant variant_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> query_, key_, gate_, write_;       // (B, T, H, d)
  Array<float> dquery_, dread_, dwrite_, dgate_;  // (B, T, H, d)
};

}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_deltanet_cuda_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<cuda::DeltaNetCore>(config, d_h);
}

}  // namespace vla_bench::mixers
