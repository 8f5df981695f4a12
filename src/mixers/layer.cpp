#include "mixers/layer.h"

#include "mixers/registry.h"

namespace vla_bench {

template <class T>
MixerLayer<T>::MixerLayer(const MixerConfig& config, Index n_heads, Index d_h, Device device,
                          Implementation implementation, const std::string& prefix,
                          ParameterTable& table)
    : MixerLayer(mixer_layout(config, d_h), make_mixer_core<T>(config, d_h, device, implementation),
                 n_heads, d_h, prefix, table) {}

template <class T>
MixerLayer<T>::MixerLayer(MixerLayout layout, std::unique_ptr<MixerCore<T>> core, Index n_heads,
                          Index d_h, const std::string& prefix, ParameterTable& table)
    : layout_(std::move(layout)), n_heads_(n_heads), d_h_(d_h), core_(std::move(core)) {
  const Index D = n_heads * d_h;
  const auto weight = [&](const std::string& name, Index out) {
    return table.add(prefix + name + ".weight", {out, D}, Initialisation::normal);
  };
  const auto bias = [&](const std::string& name, Index out) {
    return table.add(prefix + name + ".bias", {out}, Initialisation::zeros);
  };
  // Adjacent, so that one product computes all three.
  const Index rows = 3 * D / static_cast<Index>(layout_.qkv.size());
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = weight(layout_.qkv[i], rows);
    if (i == 0) qkv_.weight = offset;
  }
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = bias(layout_.qkv[i], rows);
    if (i == 0) qkv_.bias = offset;
  }
  for (const Projection& projection : layout_.more) {
    Further& further = further_.emplace_back();
    further.projection = projection;
    further.offsets.weight = weight(projection.name, width(further));
    if (projection.bias) further.offsets.bias = bias(projection.name, width(further));
  }
  for (const CoreParameter& parameter : layout_.parameters) {
    core_parameters_.push_back(
        table.add(prefix + parameter.name, parameter.shape, parameter.initialisation));
  }
  if (layout_.output_norm) {
    norm_.weight = table.add(prefix + "norm_o.weight", {D}, Initialisation::ones);
    norm_.bias = table.add(prefix + "norm_o.bias", {D}, Initialisation::zeros);
  }
  output_.weight = weight(layout_.output, D);
  output_.bias = bias(layout_.output, D);
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
  for (std::size_t i = 0; i < further_.size(); ++i) {
    inputs.more[i] = {further_[i].values.data(), width(further_[i]), further_[i].projection.width};
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
                                   .weight = {parameters + qkv_.weight, 3 * D, D},
                                   .bias = parameters + qkv_.bias,
                                   .y = projections});
  for (Further& further : further_) {
    further.values.resize(context.device, M * width(further));
    const bool from_key = further.projection.source == Projection::Source::key;
    ops::linear_forward<T>(
        context, {.x = from_key ? Matrix<const T>(projections.columns(D, D)) : x,
                  .weight = {parameters + further.offsets.weight, width(further), D},
                  .bias = further.projection.bias ? parameters + further.offsets.bias : nullptr,
                  .y = {further.values.data(), M, width(further)}});
  }

  CoreInputs<T> inputs = core_inputs();
  for (std::size_t i = 0; i < core_parameters_.size(); ++i) {
    inputs.parameters[i] = parameters + core_parameters_[i];
  }
  core_->forward(context, inputs, {o_.data(), D, d_h_}, training ? &saved_ : nullptr);

  Matrix<T> read(o_.data(), M, D);
  if (layout_.output_norm) {
    normed_.resize(context.device, M * D);
    mean_.resize(context.device, M);
    inverse_std_.resize(context.device, M);
    ops::layer_norm_forward<T>(context, {.x = read,
                                         .weight = parameters + norm_.weight,
                                         .bias = parameters + norm_.bias,
                                         .y = {normed_.data(), M, D},
                                         .mean = mean_.data(),
                                         .inverse_std = inverse_std_.data()});
    read = {normed_.data(), M, D};
  }
  ops::linear_forward<T>(context, {.x = read,
                                   .weight = {parameters + output_.weight, D, D},
                                   .bias = parameters + output_.bias,
                                   .residual = residual,
                                   .y = y});
}

template <class T>
void MixerLayer<T>::backward_further(const Context& context, const Further& further,
                                     Matrix<const T> source, Matrix<T> d_source,
                                     const T* parameters, T* gradients) const {
  const Index columns = width(further);
  ops::linear_backward<T>(
      context, {.x = source,
                .weight = {parameters + further.offsets.weight, columns, d_source.cols},
                .dy = {further.gradients.data(), source.rows, columns},
                .dx = d_source,
                .accumulate_dx = true,
                .dweight = {gradients + further.offsets.weight, columns, d_source.cols},
                .dbias = further.projection.bias ? gradients + further.offsets.bias : nullptr,
                .on_side_stream = true});
}

// In reverse order: output map, LayerNorm, core, maps of the keys, joint projection, further maps
// of x. Where further maps read the keys, the core overwrites the key's gradient and the maps add
// to it.
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
  if (layout_.output_norm) {
    d_normed_.resize(context.device, M * D);
    read = {normed_.data(), M, D};
    d_read = {d_normed_.data(), M, D};
  }
  ops::linear_backward<T>(context, {.x = read,
                                    .weight = {parameters + output_.weight, D, D},
                                    .dy = dy,
                                    .dx = d_read,
                                    .dweight = {gradients + output_.weight, D, D},
                                    .dbias = gradients + output_.bias,
                                    .on_side_stream = true});
  if (layout_.output_norm) {
    ops::layer_norm_backward<T>(context, {.x = o,
                                          .weight = parameters + norm_.weight,
                                          .mean = mean_.data(),
                                          .inverse_std = inverse_std_.data(),
                                          .dy = d_read,
                                          .dx = d_o,
                                          .dweight = gradients + norm_.weight,
                                          .dbias = gradients + norm_.bias,
                                          .on_side_stream = true});
  }

  const Matrix<T> d_projections(d_projections_.data(), M, 3 * D);
  CoreInputs<T> inputs = core_inputs();
  CoreGradients<T> core_gradients{.o = {o_.data(), D, d_h_},
                                  .d_o = {d_o_.data(), D, d_h_},
                                  .dq = {d_projections.data, 3 * D, d_h_},
                                  .dk = {d_projections.data + D, 3 * D, d_h_},
                                  .dv = {d_projections.data + 2 * D, 3 * D, d_h_}};
  for (std::size_t i = 0; i < further_.size(); ++i) {
    Further& further = further_[i];
    further.gradients.resize(context.device, M * width(further));
    core_gradients.dmore[i] = {further.gradients.data(), width(further), further.projection.width};
  }
  for (std::size_t i = 0; i < core_parameters_.size(); ++i) {
    inputs.parameters[i] = parameters + core_parameters_[i];
    core_gradients.dparameters[i] = gradients + core_parameters_[i];
  }
  core_->backward(context, inputs, core_gradients, saved_);

  const Matrix<const T> keys = Matrix<const T>(projections_.data(), M, 3 * D).columns(D, D);
  for (const Further& further : further_) {
    if (further.projection.source == Projection::Source::token) continue;
    backward_further(context, further, keys, d_projections.columns(D, D), parameters, gradients);
  }
  ops::linear_backward<T>(context, {.x = x,
                                    .weight = {parameters + qkv_.weight, 3 * D, D},
                                    .dy = d_projections,
                                    .dx = dx,
                                    .dweight = {gradients + qkv_.weight, 3 * D, D},
                                    .dbias = gradients + qkv_.bias,
                                    .on_side_stream = true});
  for (const Further& further : further_) {
    if (further.projection.source == Projection::Source::key) continue;
    backward_further(context, further, x, dx, parameters, gradients);
  }
}

template <class T>
Index MixerLayer<T>::activation_bytes(Index batch, Index tokens) const {
  const HeadDims dims{.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_};
  const Index M = dims.rows();
  const Index D = n_heads_ * d_h_;
  Index elements = M * 3 * D + M * D;
  for (const Further& further : further_) elements += M * width(further);
  if (layout_.output_norm) elements += M * D + 2 * M;
  return elements * static_cast<Index>(sizeof(T)) + core_->saved_bytes(dims);
}

template class MixerLayer<float>;
template class MixerLayer<double>;

}  // namespace vla_bench
