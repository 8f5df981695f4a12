#include "model/block.h"

namespace vla_bench {

template <class T>
LayerNorm<T>::LayerNorm(const std::string& name, Index channels, ParameterTable& table)
    : weight(table.add(name + ".weight", {channels}, Initialisation::ones)),
      bias(table.add(name + ".bias", {channels}, Initialisation::zeros)) {}

template <class T>
void LayerNorm<T>::forward(const Context& context, Matrix<const T> x, const T* parameters,
                           Matrix<const T> residual, Matrix<T> y) {
  mean.resize(context.device, x.rows);
  inverse_std.resize(context.device, x.rows);
  ops::layer_norm_forward<T>(context, {.x = x,
                                       .weight = parameters + weight,
                                       .bias = parameters + bias,
                                       .residual = residual,
                                       .y = y,
                                       .mean = mean.data(),
                                       .inverse_std = inverse_std.data()});
}

template <class T>
void LayerNorm<T>::backward(const Context& context, Matrix<const T> x, const T* parameters,
                            Matrix<const T> dy, Matrix<const T> residual, Matrix<T> dx,
                            T* gradients) {
  ops::layer_norm_backward<T>(context, {.x = x,
                                        .weight = parameters + weight,
                                        .mean = mean.data(),
                                        .inverse_std = inverse_std.data(),
                                        .dy = dy,
                                        .residual = residual,
                                        .dx = dx,
                                        .dweight = gradients + weight,
                                        .dbias = gradients + bias,
                                        .on_side_stream = true});
}

template <class T>
GatedConv<T>::GatedConv(const std::string& name, Index d_model, ParameterTable& table)
    : d_model_(d_model),
      projection_weight_(
          table.add(name + ".projection.weight", {d_model, d_model}, Initialisation::normal)),
      projection_bias_(table.add(name + ".projection.bias", {d_model}, Initialisation::zeros)),
      conv_weight_(
          table.add(name + ".conv.weight", {d_model, 1, kTaps}, Initialisation::uniform_fan_in)),
      conv_bias_(table.add(name + ".conv.bias", {d_model}, Initialisation::uniform_fan_in, kTaps)) {
}

template <class T>
ops::ShortConv<T> GatedConv<T>::convolution(Matrix<const T> u, const T* parameters) const {
  return {.batch = batch_,
          .tokens = tokens_,
          .x = u,
          .weight = {parameters + conv_weight_, d_model_, kTaps},
          .bias = parameters + conv_bias_};
}

template <class T>
void GatedConv<T>::forward(const Context& context, Index batch, Index tokens, Matrix<const T> u,
                           const T* parameters, Matrix<const T> residual, Matrix<T> y) {
  batch_ = batch;
  tokens_ = tokens;
  const Index D = d_model_;
  convolved_.resize(context.device, u.rows * D);
  gate_.resize(context.device, u.rows * D);
  ops::short_conv_forward<T>(context, convolution(u, parameters), {convolved_.data(), u.rows, D});
  ops::linear_forward<T>(context, {.x = u,
                                   .weight = {parameters + projection_weight_, D, D},
                                   .bias = parameters + projection_bias_,
                                   .y = {gate_.data(), u.rows, D}});
  ops::gated_sum_forward<T>(context, {.value = convolved_.data(),
                                      .gate = gate_.data(),
                                      .x = u.data,
                                      .residual = residual.data,
                                      .y = y.data,
                                      .count = u.rows * D});
}

// du = dy + conv3^T(dy o gate) + W^T (dy o conv3(u)).
template <class T>
void GatedConv<T>::backward(const Context& context, Matrix<const T> u, const T* parameters,
                            Matrix<const T> dy, Matrix<T> du, T* gradients) {
  const Index D = d_model_;
  d_convolved_.resize(context.device, u.rows * D);
  d_gate_.resize(context.device, u.rows * D);
  ops::gated_sum_backward<T>(context, {.value = convolved_.data(),
                                       .gate = gate_.data(),
                                       .dy = dy.data,
                                       .dvalue = d_convolved_.data(),
                                       .dgate = d_gate_.data(),
                                       .count = u.rows * D});
  ops::short_conv_backward<T>(context, convolution(u, parameters),
                              {.dy = {d_convolved_.data(), u.rows, D},
                               .residual = dy,
                               .dx = du,
                               .dweight = {gradients + conv_weight_, D, kTaps},
                               .dbias = gradients + conv_bias_,
                               .on_side_stream = true});
  ops::linear_backward<T>(context, {.x = u,
                                    .weight = {parameters + projection_weight_, D, D},
                                    .dy = {d_gate_.data(), u.rows, D},
                                    .dx = du,
                                    .accumulate_dx = true,
                                    .dweight = {gradients + projection_weight_, D, D},
                                    .dbias = gradients + projection_bias_,
                                    .on_side_stream = true});
}

template <class T>
Index GatedConv<T>::activation_elements(Index batch, Index tokens) const {
  return 2 * batch * tokens * d_model_;
}

namespace {

std::string prefix(Index index) { return "blocks." + std::to_string(index) + "."; }

}  // namespace

template <class T>
Block<T>::Block(const ModelConfig& model, const MixerConfig& mixer, Device device,
                Implementation implementation, Index index, ParameterTable& table)
    : d_model_(model.d_model()),
      d_ff_(model.d_ff),
      taps_(model.layer(index) == LayerKind::mixer ? model.short_conv : 0),
      ln1_(prefix(index) + "ln1", d_model_, table),
      conv_([&]() -> ConvOffsets {
        if (taps_ == 0) return {};
        const std::string name = prefix(index) + "conv";
        return {table.add(name + ".weight", {d_model_, 1, taps_}, Initialisation::uniform_fan_in),
                table.add(name + ".bias", {d_model_}, Initialisation::zeros)};
      }()),
      mixer_([&]() -> std::optional<MixerLayer<T>> {
        if (model.layer(index) != LayerKind::mixer) return std::nullopt;
        return std::make_optional<MixerLayer<T>>(model, mixer, device, implementation,
                                                 prefix(index) + "attn.", table);
      }()),
      gated_conv_([&]() -> std::optional<GatedConv<T>> {
        if (mixer_) return std::nullopt;
        return std::make_optional<GatedConv<T>>(prefix(index) + "gated_conv", d_model_, table);
      }()),
      ln2_(prefix(index) + "ln2", d_model_, table) {
  if (d_ff_ > 0) add_mlp(model, prefix(index), table);
}

template <class T>
void Block<T>::add_mlp(const ModelConfig& model, const std::string& prefix, ParameterTable& table) {
  const std::string up = prefix + "ff.0";
  const std::string down = prefix + "ff.2";
  const Initialisation last =
      model.scaled_residual_init ? Initialisation::scaled_normal : Initialisation::normal;
  mlp_.up_weight = table.add(up + ".weight", {d_ff_, d_model_}, Initialisation::normal);
  mlp_.up_bias = table.add(up + ".bias", {d_ff_}, Initialisation::zeros);
  mlp_.down_weight = table.add(down + ".weight", {d_model_, d_ff_}, last);
  mlp_.down_bias = table.add(down + ".bias", {d_model_}, Initialisation::zeros);
}

template <class T>
ops::ShortConv<T> Block<T>::short_conv(const T* parameters) const {
  return {.batch = batch_,
          .tokens = tokens_,
          .x = {normed1_.data(), batch_ * tokens_, d_model_},
          .weight = {parameters + conv_.weight, d_model_, taps_},
          .bias = parameters + conv_.bias};
}

template <class T>
Matrix<T> Block<T>::matrix(const Context& context, Array<T>& array, Index width) {
  const Index M = batch_ * tokens_;
  array.resize(context.device, M * width);
  return {array.data(), M, width};
}

template <class T>
Matrix<const T> Block<T>::forward(const Context& context, Index batch, Index tokens,
                                  Matrix<const T> h, const T* parameters, bool training) {
  batch_ = batch;
  tokens_ = tokens;
  const Matrix<T> middle = matrix(context, middle_, d_model_);
  mix(context, h, parameters, middle, training);
  const Matrix<T> output = matrix(context, output_, d_model_);
  feed_forward(context, middle, parameters, output);
  return output;
}

template <class T>
void Block<T>::mix(const Context& context, Matrix<const T> h, const T* parameters, Matrix<T> middle,
                   bool training) {
  const Matrix<T> normed1 = matrix(context, normed1_, d_model_);
  ln1_.forward(context, h, parameters, {}, normed1);
  if (gated_conv_) {
    gated_conv_->forward(context, batch_, tokens_, normed1, parameters, h, middle);
    return;
  }
  Matrix<T> mixer_input = normed1;
  if (taps_ > 0) {
    mixer_input = matrix(context, convolved_, d_model_);
    ops::short_conv_forward<T>(context, short_conv(parameters), mixer_input);
  }
  mixer_->forward(context, batch_, tokens_, mixer_input, parameters, h, middle, training);
}

template <class T>
void Block<T>::feed_forward(const Context& context, Matrix<const T> middle, const T* parameters,
                            Matrix<T> output) {
  const Index D = d_model_;
  if (d_ff_ == 0) {
    ln2_.forward(context, middle, parameters, middle, output);
    return;
  }
  const Matrix<T> normed2 = matrix(context, normed2_, D);
  ln2_.forward(context, middle, parameters, {}, normed2);
  const Matrix<T> hidden = matrix(context, hidden_, d_ff_);
  ops::linear_forward<T>(context, {.x = normed2,
                                   .weight = {parameters + mlp_.up_weight, d_ff_, D},
                                   .bias = parameters + mlp_.up_bias,
                                   .y = hidden});
  const Matrix<T> activated = matrix(context, activated_, d_ff_);
  ops::gelu_forward<T>(context, hidden.data, activated.data, hidden.rows * d_ff_);
  ops::linear_forward<T>(context, {.x = activated,
                                   .weight = {parameters + mlp_.down_weight, D, d_ff_},
                                   .bias = parameters + mlp_.down_bias,
                                   .residual = middle,
                                   .y = output});
}

// The gradient of the residual stream passes each branch unchanged; the branch's own is added to
// it.
template <class T>
Matrix<const T> Block<T>::backward(const Context& context, Matrix<const T> h, const T* parameters,
                                   Matrix<const T> d_output, T* gradients) {
  const Index M = batch_ * tokens_;
  const Index D = d_model_;
  const Matrix<T> d_middle = matrix(context, d_middle_, D);
  feed_forward_backward(context, {middle_.data(), M, D}, parameters, d_output, d_middle, gradients);
  const Matrix<T> d_normed1 = matrix(context, d_normed1_, D);
  mix_backward(context, parameters, d_middle, d_normed1, gradients);
  const Matrix<T> d_input = matrix(context, d_input_, D);
  ln1_.backward(context, h, parameters, d_normed1, d_middle, d_input, gradients);
  return d_input;
}

template <class T>
void Block<T>::feed_forward_backward(const Context& context, Matrix<const T> middle,
                                     const T* parameters, Matrix<const T> d_output,
                                     Matrix<T> d_middle, T* gradients) {
  const Index M = middle.rows;
  const Index D = d_model_;
  if (d_ff_ == 0) {
    ln2_.backward(context, middle, parameters, d_output, d_output, d_middle, gradients);
    return;
  }
  const Matrix<T> d_hidden = matrix(context, d_hidden_, d_ff_);
  const Matrix<T> d_normed2 = matrix(context, d_normed2_, D);
  ops::linear_backward<T>(context, {.x = {activated_.data(), M, d_ff_},
                                    .weight = {parameters + mlp_.down_weight, D, d_ff_},
                                    .dy = d_output,
                                    .dx = d_hidden,
                                    .dweight = {gradients + mlp_.down_weight, D, d_ff_},
                                    .dbias = gradients + mlp_.down_bias,
                                    .on_side_stream = true});
  ops::gelu_backward<T>(context, hidden_.data(), d_hidden.data, d_hidden.data, M * d_ff_);
  ops::linear_backward<T>(context, {.x = {normed2_.data(), M, D},
                                    .weight = {parameters + mlp_.up_weight, d_ff_, D},
                                    .dy = d_hidden,
                                    .dx = d_normed2,
                                    .dweight = {gradients + mlp_.up_weight, d_ff_, D},
                                    .dbias = gradients + mlp_.up_bias,
                                    .on_side_stream = true});
  ln2_.backward(context, middle, parameters, d_normed2, d_output, d_middle, gradients);
}

template <class T>
void Block<T>::mix_backward(const Context& context, const T* parameters, Matrix<const T> d_middle,
                            Matrix<T> d_normed1, T* gradients) {
  const Index M = d_middle.rows;
  const Index D = d_model_;
  const Matrix<const T> normed1(normed1_.data(), M, D);
  if (gated_conv_) {
    gated_conv_->backward(context, normed1, parameters, d_middle, d_normed1, gradients);
    return;
  }
  if (taps_ == 0) {
    mixer_->backward(context, normed1, parameters, d_middle, d_normed1, gradients);
    return;
  }
  const Matrix<T> d_mixer_input = matrix(context, d_mixer_input_, D);
  mixer_->backward(context, {convolved_.data(), M, D}, parameters, d_middle, d_mixer_input,
                   gradients);
  ops::short_conv_backward<T>(context, short_conv(parameters),
                              {.dy = d_mixer_input,
                               .dx = d_normed1,
                               .dweight = {gradients + conv_.weight, D, taps_},
                               .dbias = gradients + conv_.bias});
}

template <class T>
Index Block<T>::activation_bytes(Index batch, Index tokens) const {
  // normed1, [convolved], middle, [normed2], output
  const Index token_rows = 3 + (taps_ > 0 ? 1 : 0) + (d_ff_ > 0 ? 1 : 0);
  const Index statistics = 4;  // mean and inverse_std of two LayerNorms
  Index elements = batch * tokens * (token_rows * d_model_ + 2 * d_ff_ + statistics);
  if (gated_conv_) elements += gated_conv_->activation_elements(batch, tokens);
  const Index mixer = mixer_ ? mixer_->activation_bytes(batch, tokens) : 0;
  return elements * static_cast<Index>(sizeof(T)) + mixer;
}

template struct LayerNorm<float>;
template struct LayerNorm<double>;
template class GatedConv<float>;
template class GatedConv<double>;
template class Block<float>;
template class Block<double>;

}  // namespace vla_bench
