// Linear attention on a GPU; numbers are the steps of linear.h. Saved: c alone.
#include "mixers/linear/linear_cuda.h"

#include "core/cuda/place.h"
#include "mixers/cuda/normaliser.h"
#include "mixers/cuda/state_scan.h"
#include "mixers/linear/linear.h"
#include "mixers/linear/linear_features_cuda.h"

namespace vla_bench::mixers {
namespace cuda {

class LinearCore final : public MixerCore<float> {
 public:
  LinearCore(const MixerConfig& config, Index d_h) : cpu_(make_linear_core<float>(config, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override {
    const HeadDims& dims = inputs.dims;
    const cudaStream_t stream = vla_bench::cuda::place().stream();
    Array<float>& denominator = saved != nullptr ? *saved : unsaved_;
    denominator.resize(context.device, dims.rows() * dims.heads);
    scale_.resize(context.device, dims.rows() * dims.heads);
    compute_features(context, inputs);
    normaliser_forward(stream, {.dims = dims,
                                .f = dense(dims, f_),
                                .q = dense(dims, p_),
                                .floor = kFloor,
                                .denominator = denominator.data(),
                                .scale = scale_.data()});  // 3, 5
    StateForward args{.v = token_view(dims, inputs.v), .o = token_view(dims, o)};
    state_forward(stream, scan(dims), args);  // 2, 4
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
    compute_features(context, inputs);
    denominator_scale(stream, saved.data(), kFloor, scale_.data(), scalars);

    const TokenView<const float> d_o = token_view(dims, gradients.d_o);
    StateResiduals residuals{.d_o = d_o, .de = token_view(dims, gradients.dv)};
    state_residuals(stream, scan(dims), residuals);  // 2: dv
    StateGradients state{.e = token_view(dims, inputs.v), .d_o = d_o};
    state.dq = dense(dims, dp_);
    state.da = dense(dims, df_);
    state_gradients(stream, scan(dims), state);  // 4, 2

    NormaliserBackward normaliser{.dims = dims};
    normaliser.f = dense(dims, f_);
    normaliser.q = dense(dims, p_);
    normaliser.o = token_view(dims, gradients.o);
    normaliser.d_o = d_o;
    normaliser.denominator = saved.data();
    normaliser.floor = kFloor;
    normaliser.d_denominator = d_denominator_.data();
    normaliser.df = dense(dims, df_z_);
    normaliser.dq = dense(dims, dp_z_);
    normaliser_backward(stream, normaliser);  // 5, 3

    LinearFeatureGradients features{.dims = dims};
    features.q = token_view(dims, inputs.q);
    features.k = token_view(dims, inputs.k);
    features.dp[0] = state.dq;
    features.dp[1] = normaliser.dq;
    features.df[0] = state.da;
    features.df[1] = normaliser.df;
    features.dq = token_view(dims, gradients.dq);
    features.dk = token_view(dims, gradients.dk);
    linear_feature_gradients(stream, features);  // 1
  }

  std::unique_ptr<HeadMemory<float>> memory() const override { return cpu_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override {
    return dims.rows() * dims.heads * static_cast<Index>(sizeof(float));
  }

 private:
  static constexpr float kFloor = static_cast<float>(kLinearEpsilon);

  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    return token_view(dims, array.data(), dims.d_h);
  }

  void compute_features(const Context& context, const CoreInputs<float>& inputs) {
    const HeadDims& dims = inputs.dims;
    for (Array<float>* array : {&p_, &f_}) {
      array->resize(context.device, dims.rows() * dims.heads * dims.d_h);
    }
    linear_features(vla_bench::cuda::place().stream(), {.dims = dims,
                                                        .q = token_view(dims, inputs.q),
                                                        .k = token_view(dims, inputs.k),
                                                        .p = dense(dims, p_),
                                                        .f = dense(dims, f_)});
  }

  StateScan scan(const HeadDims& dims) {
    StateScan scan{.dims = dims};
    scan.a = dense(dims, f_);
    scan.q = dense(dims, p_);
    scan.scale = scale_.data();
    return scan;
  }

  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> unsaved_, scale_, d_denominator_;  // (B, T, H)
  Array<float> p_, f_;                            // (B, T, H, d)
  Array<float> dp_, df_, dp_z_, df_z_;            // (B, T, H, d); _z: through the normaliser
};

}  // namespace cuda

std::unique_ptr<MixerCore<float>> make_linear_cuda_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<cuda::LinearCore>(config, d_h);
}

}  // namespace vla_bench::mixers
