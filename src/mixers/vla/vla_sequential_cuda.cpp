// VLA on a GPU one token at a time: the features of all tokens, then a launch a token.
#include "core/cuda/stream_context.h"
#include "core/error.h"
#include "mixers/recurrence/recurrence.h"
#include "mixers/recurrence/rule_cuda.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_penalty_cuda.h"
#include "mixers/vla/vla_token_cuda.h"

namespace vla_bench {
namespace mixers::cuda {
namespace {

class SequentialVlaCore final : public MixerCore<float> {
 public:
  SequentialVlaCore(const VlaOptions& options, Index d_h)
      : options_(options),
        features_(make_cuda_rule(options, d_h)),
        cpu_(make_recurrent_core<float>(make_chain_rule<float>(options, d_h))) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    if (saved != nullptr) saved->resize(context.device, 0);
    const HeadDims& dims = inputs.dims;
    if (dims.rows() == 0) return;
    const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
    const auto own = [&](Array<float>& array) {
      array.resize(context.device, dims.rows() * dims.heads * dims.d_h);
      return token_view(dims, array.data(), dims.d_h);
    };
    const bool has_penalty = options_.penalty != Penalty::frozen;
    RuleViews features;  // (1)
    features.dims = dims;
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    if (!inputs.more[0].empty()) features.more[0] = token_view(dims, inputs.more[0]);
    features.row_q = own(query_);
    features.row_f = own(f_);
    features.row_r = own(k_);
    // A frozen A needs no u; its write direction is made here and once more by the token's step.
    (has_penalty ? features.row_own : features.row_a) = own(direction_);
    features_->bind(stream, features, {}, nullptr, false);
    const Index hold_after = options_.hold_after;
    if (has_penalty) hold_directions(stream, dims, hold_after, direction_.data());

    state_.resize(context.device, dims.lanes() * token_state_size(dims.d_h));
    VlaTokens tokens{.dims = dims};
    tokens.query = features.row_q;
    tokens.f = features.row_f;
    tokens.k = features.row_r;
    if (has_penalty) tokens.u = features.row_own;
    tokens.v = token_view(dims, inputs.v);
    tokens.o = token_view(dims, o);
    tokens.state = state_.data();
    tokens.inverse_lambda = static_cast<float>(1.0 / options_.lambda_0);
    tokens.stab_eps = static_cast<float>(options_.stab_eps);
    tokens.per_eps = static_cast<float>(options_.per_eps);
    tokens.period = options_.period;
    tokens.unit_write = options_.write == WriteDirection::unit;
    tokens.tied = options_.residual == Residual::write;
    tokens.normalises = options_.normaliser == Normaliser::zq;
    start_tokens(stream, tokens);
    for (Index t = 0; t < dims.tokens; ++t) {
      if (hold_after > 0 && t >= hold_after) tokens.period = 0;
      step_token(stream, tokens, t);
    }
  }

  void backward(const Context& /*context*/, const CoreInputs<float>& /*inputs*/,
                const CoreGradients<float>& /*gradients*/, const Array<float>& /*saved*/) override {
    throw RunError("[vla] sequential: only a forward pass");
  }

  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return cpu_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }

 private:
  VlaOptions options_;
  std::unique_ptr<CudaRule> features_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> query_, f_, k_, direction_;  // (B, T, H, d)
  Array<float> state_;                      // (lanes, token_state_size)
};

}  // namespace
}  // namespace mixers::cuda

std::unique_ptr<MixerCore<float>> make_sequential_cuda_core(const VlaOptions& options, Index d_h) {
  return std::make_unique<mixers::cuda::SequentialVlaCore>(options, d_h);
}

}  // namespace vla_bench
