#include "mixers/layer.h"

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
      taps_(layout_.convolutions ? model.short_conv_qkv : 0),
      bias_(model.bias),
      core_(std::move(core)) {
  const Index D = d_model();
  const auto weight = [&](const std::string& name, Index out,
                          Initialisation start = Initialisation::normal) {
    return table.add(prefix + name + ".weight", {out, D}, start);
  };
  const auto bias = [&](const std::string& name, Index out) {
    if (!bias_) return kNoBias;
    return table.add(prefix + name + ".bias", {out}, Initialisation::zeros);
  };
  // Adjacent, so that one product, and one convolution, computes all three.
  const Index rows = 3 * D / static_cast<Index>(layout_.qkv.size());
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = weight(layout_.qkv[i], rows);
    if (i == 0) qkv_.weight = offset;
  }
  for (std::size_t i = 0; i < layout_.qkv.size(); ++i) {
    const Index offset = bias(layout_.qkv[i], rows);
    if (i == 0) qkv_.bias = offset;
  }
  if (taps_ > 0) {
    for (const char* name : {"q", "k", "v"}) {
      const Index offset = table.add(prefix + name + "_conv1d.weight", {D, 1, taps_},
                                     Initialisation::uniform_fan_in);
      if (name[0] == 'q') convolution_ = offset;
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
    norm_.weight = table.add(prefix + "norm_o.weight", {by_head ? d_h_ : D}, Initialisation::ones);
    if (!by_head) norm_.bias = table.add(prefix + "norm_o.bias", {D}, Initialisation::zeros);
  }
  output_.weight =
      weight(layout_.output, D,
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
  const Index D = d_model();
  const T* base = core_projections().data();
  CoreInputs<T> inputs;
  inputs.dims = dims_;
  inputs.q = {base, 3 * D, d_h_};
  inputs.k = {base + D, 3 * D, d_h_};
  inputs.v = {base + 2 * D, 3 * D, d_h_};
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
  const Index D = d_model();
  return {.batch = dims_.batch,
          .tokens = dims_.tokens,
          .x = {projections_.data(), dims_.rows(), 3 * D},
          .weight = {parameters + convolution_, 3 * D, taps_},
          .bias = nullptr,
          .silu_columns = D};
}

template <class T>
void MixerLayer<T>::norm_forward(const Context& context, const T* parameters) {
  const Index M = dims_.rows();
  const Index D = d_model();
  normed_.resize(context.device, M * D);
  if (layout_.output_norm_kind == OutputNorm::rms_head) {
    inverse_std_.resize(context.device, M * n_heads_);
    ops::rms_norm_forward<T>(context, {.x = {o_.data(), M * n_heads_, d_h_},
                                       .weight = parameters + norm_.weight,
                                       .epsilon = layout_.rms_epsilon,
                                       .y = {normed_.data(), M * n_heads_, d_h_},
                                       .inverse_rms = inverse_std_.data()});
    return;
  }
  mean_.resize(context.device, M);
  inverse_std_.resize(context.device, M);
  ops::layer_norm_forward<T>(context, {.x = {o_.data(), M, D},
                                       .weight = parameters + norm_.weight,
                                       .bias = parameters + norm_.bias,
                                       .y = {normed_.data(), M, D},
                                       .mean = mean_.data(),
                                       .inverse_std = inverse_std_.data()});
}

template <class T>
void MixerLayer<T>::norm_backward(const Context& context, const T* parameters, T* gradients) {
  const Index M = dims_.rows();
  const Index D = d_model();
  if (layout_.output_norm_kind == OutputNorm::rms_head) {
    ops::rms_norm_backward<T>(context, {.x = {o_.data(), M * n_heads_, d_h_},
                                        .weight = parameters + norm_.weight,
                                        .inverse_rms = inverse_std_.data(),
                                        .dy = {d_normed_.data(), M * n_heads_, d_h_},
                                        .dx = {d_o_.data(), M * n_heads_, d_h_},
                                        .dweight = gradients + norm_.weight,
                                        .on_side_stream = true});
    return;
  }
  ops::layer_norm_backward<T>(context, {.x = {o_.data(), M, D},
                                        .weight = parameters + norm_.weight,
                                        .mean = mean_.data(),
                                        .inverse_std = inverse_std_.data(),
                                        .dy = {d_normed_.data(), M, D},
                                        .dx = {d_o_.data(), M, D},
                                        .dweight = gradients + norm_.weight,
                                        .dbias = gradients + norm_.bias,
                                        .on_side_stream = true});
}

template <class T>
void MixerLayer<T>::forward(const Context& context, Index batch, Index tokens, Matrix<const T> x,
                            const T* parameters, Matrix<const T> residual, Matrix<T> y,
                            bool training) {
  dims_ = {.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_};
  const Index M = dims_.rows();
  const Index D = d_model();
  projections_.resize(context.device, M * 3 * D);
  o_.resize(context.device, M * D);

  const Matrix<T> projections(projections_.data(), M, 3 * D);
  ops::linear_forward<T>(context, {.x = x,
                                   .weight = {parameters + qkv_.weight, 3 * D, D},
                                   .bias = bias_of(parameters, qkv_),
                                   .y = projections});
  if (taps_ > 0) {
    convolved_.resize(context.device, M * 3 * D);
    ops::short_conv_forward<T>(context, convolution(parameters), {convolved_.data(), M, 3 * D});
  }
  const Matrix<const T> keys = Matrix<const T>(core_projections().data(), M, 3 * D).columns(D, D);
  for (Further& further : further_) {
    const bool from_key = further.projection.source == Projection::Source::key;
    forward_further(context, further, from_key ? keys : x, parameters);
  }

  core_->forward(context, core_inputs(parameters), {o_.data(), D, d_h_},
                 training ? &saved_ : nullptr);

  if (layout_.output_norm) norm_forward(context, parameters);
  const Matrix<const T> read(layout_.output_norm ? normed_.data() : o_.data(), M, D);
  ops::linear_forward<T>(context, {.x = read,
                                   .weight = {parameters + output_.weight, D, D},
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
  d_projections_.resize(context.device, M * 3 * D);
  d_o_.resize(context.device, M * D);
  if (layout_.output_norm) d_normed_.resize(context.device, M * D);
  if (taps_ > 0) d_convolved_.resize(context.device, M * 3 * D);

  const bool normed = layout_.output_norm;
  ops::linear_backward<T>(context, {.x = {normed ? normed_.data() : o_.data(), M, D},
                                    .weight = {parameters + output_.weight, D, D},
                                    .dy = dy,
                                    .dx = {normed ? d_normed_.data() : d_o_.data(), M, D},
                                    .dweight = {gradients + output_.weight, D, D},
                                    .dbias = bias_of(gradients, output_),
                                    .on_side_stream = true});
  if (normed) norm_backward(context, parameters, gradients);

  const Matrix<T> d_projections(d_projections_.data(), M, 3 * D);
  const Matrix<T> d_read((taps_ > 0 ? d_convolved_ : d_projections_).data(), M, 3 * D);
  CoreGradients<T> core_gradients{.o = {o_.data(), D, d_h_},
                                  .d_o = {d_o_.data(), D, d_h_},
                                  .dq = {d_read.data, 3 * D, d_h_},
                                  .dk = {d_read.data + D, 3 * D, d_h_},
                                  .dv = {d_read.data + 2 * D, 3 * D, d_h_}};
  for (std::size_t i = 0; i < further_.size(); ++i) {
    Further& further = further_[i];
    further.gradients.resize(context.device, M * width(further));
    core_gradients.dmore[i] = {further.gradients.data(), width(further), further.projection.width};
  }
  for (std::size_t i = 0; i < core_parameters_.size(); ++i) {
    core_gradients.dparameters[i] = gradients + core_parameters_[i];
  }
  core_->backward(context, core_inputs(parameters), core_gradients, saved_);

  const Matrix<const T> keys = Matrix<const T>(core_projections().data(), M, 3 * D).columns(D, D);
  for (Further& further : further_) {
    if (further.projection.source == Projection::Source::token) continue;
    backward_further(context, further, keys, d_read.columns(D, D), parameters, gradients);
  }
  if (taps_ > 0) {
    ops::short_conv_backward<T>(context, convolution(parameters),
                                {.dy = d_read,
                                 .dx = d_projections,
                                 .dweight = {gradients + convolution_, 3 * D, taps_},
                                 .dbias = nullptr,
                                 .on_side_stream = true});
  }
  ops::linear_backward<T>(context, {.x = x,
                                    .weight = {parameters + qkv_.weight, 3 * D, D},
                                    .dy = d_projections,
                                    .dx = dx,
                                    .dweight = {gradients + qkv_.weight, 3 * D, D},
                                    .dbias = bias_of(gradients, qkv_),
                                    .on_side_stream = true});
  for (Further& further : further_) {
    if (further.projection.source == Projection::Source::key) continue;
    backward_further(context, further, x, dx, parameters, gradients);
  }
}

template <class T>
Index MixerLayer<T>::activation_bytes(Index batch, Index tokens) const {
  const HeadDims dims{.batch = batch, .tokens = tokens, .heads = n_heads_, .d_h = d_h_};
  const Index M = dims.rows();
  const Index D = d_model();
  Index elements = M * 3 * D + M * D;
  if (taps_ > 0) elements += M * 3 * D;
  for (const Further& further : further_) {
    elements += M * (width(further) + further.projection.through);
  }
  if (layout_.output_norm) {
    const Index statistics = layout_.output_norm_kind == OutputNorm::rms_head ? n_heads_ : 2;
    elements += M * (D + statistics);
  }
  return elements * static_cast<Index>(sizeof(T)) + core_->saved_bytes(dims);
}

template class MixerLayer<float>;
template class MixerLayer<double>;

}  // namespace vla_bench
