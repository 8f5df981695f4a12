#include "mixers/layer.h"

#include <array>

#include "mixers/registry.h"

namespace vla_bench {

template <class T>
MixerLayer<T>::MixerLayer(const ModelConfig& model, const MixerConfig& mixer, Device device,
                          Implementation implementation, const std::string& prefix,
                          ParameterTable& table)
    : MixerLayer(model, mixer_layout(mixer, model.d_h),
                 make_mixer_core<T>(mixer, model.d_h, device, implementation), prefix, table) {}

template <class T>
MixerLayer<T>::MixerLayer(const ModelConfig& model, MixerLayout layout,
                          std::unique_ptr<MixerCore<T>> core, const std::string& prefix,
                          ParameterTable& table)
    : layout_(std::move(layout)),
      n_heads_(model.n_heads),
      d_h_(model.d_h),
      d_v_(model.value_channels()),
      taps_(layout_.convolutions ? model.short_conv_qkv : 0),
      bias_(model.bias),
      core_(std::move(core)) {
  const Index D = d_model();
  const auto weight = [&](const std::string& name, Index out) {
    return table.add(prefix + name + ".weight", {out, D}, Initialisation::normal);
  };
  const auto bias = [&](const std::string& name, Index out) {
    if (!bias_) return kNoBias;
    return table.add(prefix + name + ".bias", {out}, Initialisation::zeros);
  };
  // Adjacent, so that one product, and one convolution, computes all three.
  const std::array<Index, 3> columns = {key_columns(), key_columns(), value_columns()};
  const bool joint = layout_.qkv.size() == 1;
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = weight(layout_.qkv[i], joint ? qkv_columns() : columns[i]);
    if (i == 0) qkv_.weight = offset;
  }
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = bias(layout_.qkv[i], joint ? qkv_columns() : columns[i]);
    if (i == 0) qkv_.bias = offset;
  }
  if (taps_ > 0) {
    constexpr std::array<const char*, 3> names = {"q", "k", "v"};
    for (std::size_t i = 0; i < names.size(); ++i) {
      const Index offset = table.add(prefix + names[i] + "_conv1d.weight", {columns[i], 1, taps_},
                                     Initialisation::uniform_fan_in);
      if (i == 0) convolution_ = offset;
    }
  }
  for (const Projection& projection : layout_.more) add_further(projection, prefix, table);
  for (const CoreParameter& parameter : layout_.parameters) {
    core_parameters_.push_back(table.add(prefix + parameter.name,
                                         core_parameter_shape(parameter, n_heads_),
                                         parameter.initialisation));
  }
  if (layout_.output_norm) {
    const bool by_head = layout_.output_norm_kind == OutputNorm::rms_head;
    const Index width = by_head ? d_v_ : value_columns();
    norm_.weight = table.add(prefix + "norm_o.weight", {width}, Initialisation::ones);
    if (!by_head) norm_.bias = table.add(prefix + "norm_o.bias", {width}, Initialisation::zeros);
  }
  output_.weight = table.add(
      prefix + layout_.output + ".weight", {D, value_columns()},
      model.scaled_residual_init ? Initialisation::scaled_normal : Initialisation::normal);
  output_.bias = bias(layout_.output, D);
}

template <class T>
void MixerLayer<T>::add_further(const Projection& projection, const std::string& prefix,
                                ParameterTable& table) {
  Further& further = further_.emplace_back();
  further.projection = projection;
  std::string name = prefix + projection.name;
  Index inputs = d_model();
  if (projection.through > 0) {
    further.narrow =
        table.add(name + ".0.weight", {projection.through, inputs}, Initialisation::normal);
    name += ".1";
    inputs = projection.through;
  }
  further.offsets.weight =
      table.add(name + ".weight", {width(further), inputs}, Initialisation::normal);
  if (projection.bias && bias_) {
    further.offsets.bias = table.add(name + ".bias", {width(further)}, Initialisation::zeros);
  }
}

template <class T>
CoreInputs<T> MixerLayer<T>::core_inputs(const T* parameters) const {
  const T* base = core_projections().data();
  const Index key = layout_.key_channels(d_h_);
  CoreInputs<T> inputs;
  inputs.dims = dims_;
  inputs.q = part(base, 0, key);
  inputs.k = part(base, key_columns(), key);
  inputs.v = part(base, 2 * key_columns(), d_v_);
  for (std::size_t i = 0; i < further_.size(); ++i) {
    inputs.more[i] = {further_[i].values.data(), width(further_[i]), further_[i].projection.width};
  }
  for (std::size_t i = 0; i < core_parameters_.size(); ++i) {
    inputs.parameters[i] = parameters + core_parameters_[i];
  }
  return inputs;
}

template <class T>
ops::ShortConv<T> MixerLayer<T>::convolution(const T* parameters) const {
  return {.batch = dims_.batch,
          .tokens = dims_.tokens,
          .x = {projections_.data(), dims_.rows(), qkv_columns()},
          .weight = {parameters + convolution_, qkv_columns(), taps_},
          .bias = nullptr,
          .silu_columns = value_columns()};
}

template <class T>
void MixerLayer<T>::norm_forward(const Context& context, const T* parameters) {
  const Index M = dims_.rows();
  const Index width = value_columns();
  normed_.resize(context.device, M * width);
  if (layout_.output_norm_kind == OutputNorm::rms_head) {
    inverse_std_.resize(context.device, M * n_heads_);
    ops::rms_norm_forward<T>(context, {.x = {o_.data(), M * n_heads_, d_v_},
                                       .weight = parameters + norm_.weight,
                                       .epsilon = layout_.rms_epsilon,
                                       .y = {normed_.data(), M * n_heads_, d_v_},
                                       .inverse_rms = inverse_std_.data()});
    return;
  }
  mean_.resize(context.device, M);
  inverse_std_.resize(context.device, M);
  ops::layer_norm_forward<T>(context, {.x = {o_.data(), M, width},
                                       .weight = parameters + norm_.weight,
                                       .bias = parameters + norm_.bias,
                                       .y = {normed_.data(), M, width},
                                       .mean = mean_.data(),
                                       .inverse_std = inverse_std_.data()});
}

template <class T>
void MixerLayer<T>::norm_backward(const Context& context, const T* parameters, T* gradients) {
  const Index M = dims_.rows();
  const Index width = value_columns();
  if (layout_.output_norm_kind == OutputNorm::rms_head) {
    ops::rms_norm_backward<T>(context, {.x = {o_.data(), M * n_heads_, d_v_},
                                        .weight = parameters + norm_.weight,
                                        .inverse_rms = inverse_std_.data(),
                                        .dy = {d_normed_.data(), M * n_heads_, d_v_},
                                        .dx = {d_o_.data(), M * n_heads_, d_v_},
                                        .dweight = gradients + norm_.weight,
                                        .on_side_stream = true});
    return;
  }
  ops::layer_norm_backward<T>(context, {.x = {o_.data(), M, width},
                                        .weight = parameters + norm_.weight,
                                        .mean = mean_.data(),
                                        .inverse_std = inverse_std_.data(),
                                        .dy = {d_normed_.data(), M, width},
                                        .dx = {d_o_.data(), M, width},
                                        .dweight = gradients + norm_.weight,
                                        .dbias = gradients + norm_.bias,
                                        .on_side_stream = true});
}

template <class T>
void MixerLayer<T>::forward(const Context& context, Index batch, Index tokens, Matrix<const T> x,
                            const T* parameters, Matrix<const T> residual, Matrix<T> y,
                            bool training) {
  dims_ = head_dims(batch, tokens);
  const Index M = dims_.rows();
  const Index D = d_model();
  const Index columns = qkv_columns();
  projections_.resize(context.device, M * columns);
  o_.resize(context.device, M * value_columns());

  const Matrix<T> projections(projections_.data(), M, columns);
  ops::linear_forward<T>(context, {.x = x,
                                   .weight = {parameters + qkv_.weight, columns, D},
                                   .bias = bias_of(parameters, qkv_),
                                   .y = projections});
  if (taps_ > 0) {
    convolved_.resize(context.device, M * columns);
    ops::short_conv_forward<T>(context, convolution(parameters), {convolved_.data(), M, columns});
  }
  const Matrix<const T> keys =
      Matrix<const T>(core_projections().data(), M, columns).columns(key_columns(), key_columns());
  for (Further& further : further_) {
    const bool from_key = further.projection.source == Projection::Source::key;
    forward_further(context, further, from_key ? keys : x, parameters);
  }

  core_->forward(context, core_inputs(parameters), {o_.data(), value_columns(), d_v_},
                 training ? &saved_ : nullptr);

  if (layout_.output_norm) norm_forward(context, parameters);
  const Matrix<const T> read(layout_.output_norm ? normed_.data() : o_.data(), M, value_columns());
  ops::linear_forward<T>(context, {.x = read,
                                   .weight = {parameters + output_.weight, D, value_columns()},
                                   .bias = bias_of(parameters, output_),
                                   .residual = residual,
                                   .y = y});
}

template <class T>
void MixerLayer<T>::forward_further(const Context& context, Further& further,
                                    Matrix<const T> source, const T* parameters) const {
  const Index M = source.rows;
  if (const Index through = further.projection.through; through > 0) {
    further.narrow_values.resize(context.device, M * through);
    const Matrix<T> narrow(further.narrow_values.data(), M, through);
    ops::linear_forward<T>(
        context,
        {.x = source, .weight = {parameters + further.narrow, through, source.cols}, .y = narrow});
    source = narrow;
  }
  const Index columns = width(further);
  further.values.resize(context.device, M * columns);
  ops::linear_forward<T>(context,
                         {.x = source,
                          .weight = {parameters + further.offsets.weight, columns, source.cols},
                          .bias = bias_of(parameters, further.offsets),
                          .y = {further.values.data(), M, columns}});
}

template <class T>
void MixerLayer<T>::backward_further(const Context& context, Further& further,
                                     Matrix<const T> source, Matrix<T> d_source,
                                     const T* parameters, T* gradients) const {
  const Index M = source.rows;
  const Index columns = width(further);
  const Index through = further.projection.through;
  const Index inputs = through > 0 ? through : source.cols;
  if (through > 0) further.d_narrow.resize(context.device, M * through);
  const Matrix<T> d_narrow(further.d_narrow.data(), M, through);
  ops::linear_backward<T>(
      context,
      {.x = through > 0 ? Matrix<const T>(further.narrow_values.data(), M, through) : source,
       .weight = {parameters + further.offsets.weight, columns, inputs},
       .dy = {further.gradients.data(), M, columns},
       .dx = through > 0 ? d_narrow : d_source,
       .accumulate_dx = through == 0,
       .dweight = {gradients + further.offsets.weight, columns, inputs},
       .dbias = bias_of(gradients, further.offsets),
       .on_side_stream = true});
  if (through == 0) return;
  ops::linear_backward<T>(context, {.x = source,
                                    .weight = {parameters + further.narrow, through, source.cols},
                                    .dy = d_narrow,
                                    .dx = d_source,
                                    .accumulate_dx = true,
                                    .dweight = {gradients + further.narrow, through, source.cols},
                                    .on_side_stream = true});
}

// In reverse order: output map, norm, core, maps of the keys, convolutions, joint projection,
// further maps of x. Where further maps read the keys, the core overwrites the key's gradient and
// the maps add to it.
template <class T>
void MixerLayer<T>::backward(const Context& context, Matrix<const T> x, const T* parameters,
                             Matrix<const T> dy, Matrix<T> dx, T* gradients) {
  const Index M = dims_.rows();
  const Index D = d_model();
  const Index columns = qkv_columns();
  const Index values = value_columns();
  d_projections_.resize(context.device, M * columns);
  d_o_.resize(context.device, M * values);
  if (layout_.output_norm) d_normed_.resize(context.device, M * values);
  if (taps_ > 0) d_convolved_.resize(context.device, M * columns);

  const bool normed = layout_.output_norm;
  ops::linear_backward<T>(context, {.x = {normed ? normed_.data() : o_.data(), M, values},
                                    .weight = {parameters + output_.weight, D, values},
                                    .dy = dy,
                                    .dx = {normed ? d_normed_.data() : d_o_.data(), M, values},
                                    .dweight = {gradients + output_.weight, D, values},
                                    .dbias = bias_of(gradients, output_),
                                    .on_side_stream = true});
  if (normed) norm_backward(context, parameters, gradients);

  const Matrix<T> d_projections(d_projections_.data(), M, columns);
  const Matrix<T> d_read((taps_ > 0 ? d_convolved_ : d_projections_).data(), M, columns);
  const Index key = layout_.key_channels(d_h_);
  CoreGradients<T> core_gradients{.o = {o_.data(), values, d_v_},
                                  .d_o = {d_o_.data(), values, d_v_},
                                  .dq = part(d_read.data, 0, key),
                                  .dk = part(d_read.data, key_columns(), key),
                                  .dv = part(d_read.data, 2 * key_columns(), d_v_)};
  for (std::size_t i = 0; i < further_.size(); ++i) {
    Further& further = further_[i];
    further.gradients.resize(context.device, M * width(further));
    core_gradients.dmore[i] = {further.gradients.data(), width(further), further.projection.width};
  }
  for (std::size_t i = 0; i < core_parameters_.size(); ++i) {
    core_gradients.dparameters[i] = gradients + core_parameters_[i];
  }
  core_->backward(context, core_inputs(parameters), core_gradients, saved_);

  const Matrix<const T> keys =
      Matrix<const T>(core_projections().data(), M, columns).columns(key_columns(), key_columns());
  for (Further& further : further_) {
    if (further.projection.source == Projection::Source::token) continue;
    backward_further(context, further, keys, d_read.columns(key_columns(), key_columns()),
                     parameters, gradients);
  }
  if (taps_ > 0) {
    ops::short_conv_backward<T>(context, convolution(parameters),
                                {.dy = d_read,
                                 .dx = d_projections,
                                 .dweight = {gradients + convolution_, columns, taps_},
                                 .dbias = nullptr,
                                 .on_side_stream = true});
  }
  ops::linear_backward<T>(context, {.x = x,
                                    .weight = {parameters + qkv_.weight, columns, D},
                                    .dy = d_projections,
                                    .dx = dx,
                                    .dweight = {gradients + qkv_.weight, columns, D},
                                    .dbias = bias_of(gradients, qkv_),
                                    .on_side_stream = true});
  for (Further& further : further_) {
    if (further.projection.source == Projection::Source::key) continue;
    backward_further(context, further, x, dx, parameters, gradients);
  }
}

template <class T>
Index MixerLayer<T>::activation_bytes(Index batch, Index tokens) const {
  const HeadDims dims = head_dims(batch, tokens);
  const Index M = dims.rows();
  Index elements = M * (qkv_columns() + value_columns());
  if (taps_ > 0) elements += M * qkv_columns();
  for (const Further& further : further_) {
    elements += M * (width(further) + further.projection.through);
  }
  if (layout_.output_norm) {
    const Index statistics = layout_.output_norm_kind == OutputNorm::rms_head ? n_heads_ : 2;
    elements += M * (value_columns() + statistics);
  }
  return elements * static_cast<Index>(sizeof(T)) + core_->saved_bytes(dims);
}

template class MixerLayer<float>;
template class MixerLayer<double>;

}  // namespace vla_bench
