// VLA on a GPU one token at a time: the features of all tokens, then a launch a token.
#include "core/cuda/place.h"
#include "core/error.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_features_cuda.h"
#include "mixers/vla/vla_sequential.h"
#include "mixers/vla/vla_token_cuda.h"

namespace vla_bench::mixers {
namespace cuda {
namespace {

class SequentialVlaCore final : public MixerCore<float> {
 public:
  SequentialVlaCore(const VlaOptions& config, Index d_h)
      : config_(config),
        u_scale_(static_cast<float>(config.u_length(d_h))),
        cpu_(make_vla_core<float>({.options = config}, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    if (saved != nullptr) saved->resize(context.device, 0);
    const HeadDims& dims = inputs.dims;
    if (dims.rows() == 0) return;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    const auto own = [&](Array<float>& array) {
      array.resize(context.device, dims.rows() * dims.heads * dims.d_h);
      return token_view(dims, array.data(), dims.d_h);
    };
    const bool has_penalty = config_.penalty != Penalty::frozen;
    VlaFeatures features{.dims = dims,  // (1)
                         .settings = {.feature_map = config_.feature_map,
                                      .penalty = config_.penalty,
                                      .u_scale = u_scale_,
                                      .unit_write = config_.write == WriteDirection::unit,
                                      .inverse_lambda = static_cast<float>(1.0 / config_.lambda_0),
                                      .stab_eps = static_cast<float>(config_.stab_eps)}};
    features.q = token_view(dims, inputs.q);
    features.kappa = token_view(dims, inputs.k);
    if (!inputs.aux.empty()) features.aux = token_view(dims, inputs.aux);
    features.query = own(query_);
    features.f = own(f_);
    features.k = own(k_);
    // A frozen A needs no u; its write direction is made here and once more by the token's step.
    (has_penalty ? features.u : features.a) = own(direction_);
    vla_features(stream, features);

    state_.resize(context.device, dims.lanes() * token_state_size(dims.d_h));
    VlaTokens tokens{.dims = dims};
    tokens.query = features.query;
    tokens.f = features.f;
    tokens.k = features.k;
    if (has_penalty) tokens.u = features.u;
    tokens.v = token_view(dims, inputs.v);
    tokens.o = token_view(dims, o);
    tokens.state = state_.data();
    tokens.inverse_lambda = features.settings.inverse_lambda;
    tokens.stab_eps = features.settings.stab_eps;
    tokens.per_eps = static_cast<float>(config_.per_eps);
    tokens.period = config_.period;
    tokens.unit_write = features.settings.unit_write;
    tokens.tied = config_.residual == Residual::write;
    tokens.normalises = config_.normaliser == Normaliser::zq;
    start_tokens(stream, tokens);
    for (Index t = 0; t < dims.tokens; ++t) step_token(stream, tokens, t);
  }

  void backward(const Context& /*context*/, const CoreInputs<float>& /*inputs*/,
                const CoreGradients<float>& /*gradients*/, const Array<float>& /*saved*/) override {
    throw RunError("[vla] sequential: forward alone");
  }

  std::unique_ptr<HeadMemory<float>> memory() const override { return cpu_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }

 private:
  VlaOptions config_;
  float u_scale_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> query_, f_, k_, direction_;  // (B, T, H, d)
  Array<float> state_;                      // (lanes, token_state_size)
};

}  // namespace
}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_sequential_vla_cuda_core(const MixerConfig& config,
                                                                Index d_h) {
  return std::make_unique<cuda::SequentialVlaCore>(config.get<VlaOptions>(), d_h);
}

}  // namespace vla_bench::mixers
