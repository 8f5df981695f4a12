// Linear attention on a GPU; numbers are the steps of linear.h. Saved: p, f and c.
#include "mixers/linear/linear_cuda.h"

#include "core/cuda/place.h"
#include "mixers/linear/linear.h"
#include "mixers/linear/linear_features_cuda.h"
#include "mixers/recurrence/normaliser.h"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench::mixers {
namespace cuda {

class LinearCore final : public MixerCore<float> {
 public:
  LinearCore(const MixerConfig& config, Index d_h) : cpu_(make_linear_core<float>(config, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    Array<float>& kept = saved != nullptr ? *saved : unsaved_;
    kept.resize(context.device, saved_size(dims));
    const Trace<float> trace = this->trace(dims, kept.data());
    linear_features(stream, {.dims = dims,
                             .q = token_view(dims, inputs.q),
                             .k = token_view(dims, inputs.k),
                             .p = trace.p,
                             .f = trace.f});  // 1
    RecurrenceForward state{.v = token_view(dims, inputs.v), .o = token_view(dims, o)};
    state.denominator = trace.denominator;
    state.floor = kFloor;
    recurrence_forward(stream, inputs_of(dims, trace.f, trace.p, nullptr), state);  // 2 to 5
  }

  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    const Index scalars = dims.rows() * dims.heads;
    for (Array<float>* array : {&scale_, &d_denominator_}) array->resize(context.device, scalars);
    for (Array<float>* array : {&dp_, &df_, &dp_z_, &df_z_}) {
      array->resize(context.device, scalars * dims.d_h);
    }
    const Trace<const float> trace = this->trace(dims, saved.data());
    const TokenView<const float> d_o = token_view(dims, gradients.d_o);
    NormaliserTerms terms{.dims = dims};
    terms.o = token_view(dims, gradients.o);
    terms.d_o = d_o;
    terms.denominator = trace.denominator;
    terms.floor = kFloor;
    terms.scale = scale_.data();
    terms.d_denominator = d_denominator_.data();
    normaliser_terms(stream, terms);  // 5

    RecurrenceBackward state{
        .e = token_view(dims, inputs.v), .d_o = d_o, .de = token_view(dims, gradients.dv)};
    state.dq = dense(dims, dp_);
    state.da = dense(dims, df_);
    state.normaliser = {.f = trace.f,
                        .q = trace.p,
                        .d_denominator = d_denominator_.data(),
                        .df = dense(dims, df_z_),
                        .dq = dense(dims, dp_z_)};
    recurrence_backward(stream, inputs_of(dims, trace.f, trace.p, scale_.data()),
                        state);  // 4, 2; 5, 3

    LinearFeatureGradients features{.dims = dims};
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    features.dp[0] = state.dq;
    features.dp[1] = state.normaliser.dq;
    features.df[0] = state.da;
    features.df[1] = state.normaliser.df;
    features.dq = token_view(dims, gradients.dq);
    features.dk = token_view(dims, gradients.dk);
    linear_feature_gradients(stream, features);  // 1
  }

  std::unique_ptr<HeadMemory<float>> memory() const override { return cpu_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(float));
  }

 private:
  static constexpr float kFloor = static_cast<float>(kLinearEpsilon);

  /// What the forward leaves for the backward, in one array.
  template <class T>
  struct Trace {
    TokenView<T> p, f;  // (B, T, H, d)
    T* denominator;     // (B, T, H)
  };
  static Index saved_size(const HeadDims& dims) {
    return dims.rows() * dims.heads * (2 * dims.d_h + 1);
  }
  template <class T>
  static Trace<T> trace(const HeadDims& dims, T* data) {
    const Index channels = dims.rows() * dims.heads * dims.d_h;
    return {token_view(dims, data, dims.d_h), token_view(dims, data + channels, dims.d_h),
            data + 2 * channels};
  }

  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    return token_view(dims, array.data(), dims.d_h);
  }

  static RecurrenceInputs inputs_of(const HeadDims& dims, TokenView<const float> f,
                                    TokenView<const float> p, const float* scale) {
    RecurrenceInputs inputs{.dims = dims};
    inputs.a = f;
    inputs.q = p;
    inputs.scale = scale;
    return inputs;
  }

  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> unsaved_;                // a trace that no backward wants
  Array<float> scale_, d_denominator_;  // (B, T, H)
  Array<float> dp_, df_, dp_z_, df_z_;  // (B, T, H, d); _z: through the normaliser
};

}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_linear_cuda_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<cuda::LinearCore>(config, d_h);
}

}  // namespace vla_bench::mixers
