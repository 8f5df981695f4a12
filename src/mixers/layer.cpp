#include "mixers/layer.h"

#include "mixers/registry.h"

namespace vla_bench {

template <class T>
MixerLayer<T>::MixerLayer(const MixerConfig& config, Index n_heads, Index d_h, Device device,
                          Implementation implementation, const std::string& prefix,
                          ParameterTable& table)
    : traits_(mixer_traits(config)),
      n_heads_(n_heads),
      d_h_(d_h),
      core_(make_mixer_core<T>(config, d_h, device, implementation)) {
  const Index D = n_heads * d_h;
  const auto weight = [&](const std::string& name, Index out) {
    return table.add(prefix + name + ".weight", {out, D}, Initialisation::normal);
  };
  const auto bias = [&](const std::string& name, Index out) {
    return table.add(prefix + name + ".bias", {out}, Initialisation::zeros);
  };
  if (traits_.joint_qkv) {
    offsets_.qkv_weight = weight("qkv", 3 * D);
    offsets_.qkv_bias = bias("qkv", 3 * D);
  } else {
    offsets_.qkv_weight = weight("Wq", D);
    weight("Wk", D);
    weight("Wv", D);
    offsets_.qkv_bias = bias("Wq", D);
    bias("Wk", D);
    bias("Wv", D);
  }
  if (traits_.aux_source != AuxSource::none) {
    const Index aux_channels = n_heads * aux_width(traits_, d_h);
    offsets_.aux_weight = weight(traits_.aux_name, aux_channels);
    if (traits_.aux_bias) offsets_.aux_bias = bias(traits_.aux_name, aux_channels);
  }
  if (traits_.output_norm) {
    offsets_.norm_weight = table.add(prefix + "norm_o.weight", {D}, Initialisation::ones);
    offsets_.norm_bias = table.add(prefix + "norm_o.bias", {D}, Initialisation::zeros);
  }
  const std::string out_name = traits_.joint_qkv ? "o" : "Wo";
  offsets_.out_weight = weight(out_name, D);
  offsets_.out_bias = bias(out_name, D);
}

template <class T>
CoreInputs<T> MixerLayer<T>::core_inputs() const {
  const Index D = n_heads_ * d_h_;
  const T* base = projections_.data();
  CoreInputs<T> inputs;
  inputs.dims = dims_;
  inputs.q = {base, 3 * D, d_h_};
  inputs.k = {base + D, 3 * D, d_h_};
  inputs.v = {base + 2 * D, 3 * D, d_h_};
  if (const Index width = aux_width(traits_, d_h_); width > 0) {
    inputs.aux = {aux_.data(), n_heads_ * width, width};
  }
  return inputs;
}

template <class T>
void MixerLayer<T>::forward(const Context& context, Index batch, Index tokens, Matrix<const T> x,
                            const T* parameters, Matrix<const T> residual, Matrix<T> y,
                            bool training) {
  dims_ = {.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_};
  const Index M = dims_.rows();
  const Index D = n_heads_ * d_h_;
  projections_.resize(context.device, M * 3 * D);
  o_.resize(context.device, M * D);

  const Matrix<T> projections(projections_.data(), M, 3 * D);
  ops::linear_forward<T>(context, {.x = x,
                                   .weight = {parameters + offsets_.qkv_weight, 3 * D, D},
                                   .bias = parameters + offsets_.qkv_bias,
                                   .y = projections});
  if (traits_.aux_source != AuxSource::none) {
    const Index width = n_heads_ * aux_width(traits_, d_h_);
    aux_.resize(context.device, M * width);
    const bool from_key = traits_.aux_source == AuxSource::key;
    ops::linear_forward<T>(context,
                           {.x = from_key ? Matrix<const T>(projections.columns(D, D)) : x,
                            .weight = {parameters + offsets_.aux_weight, width, D},
                            .bias = traits_.aux_bias ? parameters + offsets_.aux_bias : nullptr,
                            .y = {aux_.data(), M, width}});
  }

  core_->forward(context, core_inputs(), {o_.data(), D, d_h_}, training ? &saved_ : nullptr);

  Matrix<T> read(o_.data(), M, D);
  if (traits_.output_norm) {
    normed_.resize(context.device, M * D);
    mean_.resize(context.device, M);
    inverse_std_.resize(context.device, M);
    ops::layer_norm_forward<T>(context, {.x = read,
                                         .weight = parameters + offsets_.norm_weight,
                                         .bias = parameters + offsets_.norm_bias,
                                         .y = {normed_.data(), M, D},
                                         .mean = mean_.data(),
                                         .inverse_std = inverse_std_.data()});
    read = {normed_.data(), M, D};
  }
  ops::linear_forward<T>(context, {.x = read,
                                   .weight = {parameters + offsets_.out_weight, D, D},
                                   .bias = parameters + offsets_.out_bias,
                                   .residual = residual,
                                   .y = y});
}

// In reverse: output map, LayerNorm, core, auxiliary map, joint projection. Parameter gradients
// accumulate. The key's gradient has two sources when aux reads the keys: the core overwrites it,
// the auxiliary map adds to it.
template <class T>
void MixerLayer<T>::backward(const Context& context, Matrix<const T> x, const T* parameters,
                             Matrix<const T> dy, Matrix<T> dx, T* gradients) {
  const Index M = dims_.rows();
  const Index D = n_heads_ * d_h_;
  d_projections_.resize(context.device, M * 3 * D);
  d_o_.resize(context.device, M * D);

  const Matrix<T> o(o_.data(), M, D);
  const Matrix<T> d_o(d_o_.data(), M, D);
  Matrix<T> read = o;
  Matrix<T> d_read = d_o;
  if (traits_.output_norm) {
    d_normed_.resize(context.device, M * D);
    read = {normed_.data(), M, D};
    d_read = {d_normed_.data(), M, D};
  }
  ops::linear_backward<T>(context, {.x = read,
                                    .weight = {parameters + offsets_.out_weight, D, D},
                                    .dy = dy,
                                    .dx = d_read,
                                    .dweight = {gradients + offsets_.out_weight, D, D},
                                    .dbias = gradients + offsets_.out_bias,
                                    .aside = true});
  if (traits_.output_norm) {
    ops::layer_norm_backward<T>(context, {.x = o,
                                          .weight = parameters + offsets_.norm_weight,
                                          .mean = mean_.data(),
                                          .inverse_std = inverse_std_.data(),
                                          .dy = d_read,
                                          .dx = d_o,
                                          .dweight = gradients + offsets_.norm_weight,
                                          .dbias = gradients + offsets_.norm_bias,
                                          .aside = true});
  }

  const Matrix<T> d_projections(d_projections_.data(), M, 3 * D);
  const Index aux_channels = n_heads_ * aux_width(traits_, d_h_);
  CoreGradients<T> core_gradients{.o = {o_.data(), D, d_h_},
                                  .d_o = {d_o_.data(), D, d_h_},
                                  .dq = {d_projections.data, 3 * D, d_h_},
                                  .dk = {d_projections.data + D, 3 * D, d_h_},
                                  .dv = {d_projections.data + 2 * D, 3 * D, d_h_},
                                  .daux = {}};
  if (aux_channels > 0) {
    d_aux_.resize(context.device, M * aux_channels);
    core_gradients.daux = {d_aux_.data(), aux_channels, aux_width(traits_, d_h_)};
  }
  core_->backward(context, core_inputs(), core_gradients, saved_);

  const auto aux_backward = [&](Matrix<const T> source, Matrix<T> d_source) {
    ops::linear_backward<T>(context,
                            {.x = source,
                             .weight = {parameters + offsets_.aux_weight, aux_channels, D},
                             .dy = {d_aux_.data(), M, aux_channels},
                             .dx = d_source,
                             .accumulate_dx = true,
                             .dweight = {gradients + offsets_.aux_weight, aux_channels, D},
                             .dbias = traits_.aux_bias ? gradients + offsets_.aux_bias : nullptr,
                             .aside = true});
  };
  if (traits_.aux_source == AuxSource::key) {
    const Matrix<const T> projections(projections_.data(), M, 3 * D);
    aux_backward(projections.columns(D, D), d_projections.columns(D, D));
  }
  ops::linear_backward<T>(context, {.x = x,
                                    .weight = {parameters + offsets_.qkv_weight, 3 * D, D},
                                    .dy = d_projections,
                                    .dx = dx,
                                    .dweight = {gradients + offsets_.qkv_weight, 3 * D, D},
                                    .dbias = gradients + offsets_.qkv_bias,
                                    .aside = true});
  if (traits_.aux_source == AuxSource::token) aux_backward(x, dx);
}

template <class T>
Index MixerLayer<T>::activation_bytes(Index batch, Index tokens) const {
  const HeadDims dims{.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_};
  const Index M = dims.rows();
  const Index D = n_heads_ * d_h_;
  Index elements = M * 3 * D + M * n_heads_ * aux_width(traits_, d_h_) + M * D;
  if (traits_.output_norm) elements += M * D + 2 * M;
  return elements * static_cast<Index>(sizeof(T)) + core_->saved_bytes(dims);
}

template class MixerLayer<float>;
template class MixerLayer<double>;

}  // namespace vla_bench
