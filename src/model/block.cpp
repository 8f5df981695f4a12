#include "model/block.h"

namespace vla_bench {

template <class T>
LayerNorm<T>::LayerNorm(const std::string& name, Index channels, ParameterTable& table)
    : weight(table.add(name + ".weight", {channels}, Initialisation::ones)),
      bias(table.add(name + ".bias", {channels}, Initialisation::zeros)) {}

template <class T>
void LayerNorm<T>::forward(const Context& context, Matrix<const T> x, const T* parameters,
                           Matrix<T> y) {
  mean.resize(context.device, x.rows);
  inverse_std.resize(context.device, x.rows);
  ops::layer_norm_forward<T>(context, {.x = x,
                                       .weight = parameters + weight,
                                       .bias = parameters + bias,
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

namespace {

std::string prefix(Index index) { return "blocks." + std::to_string(index) + "."; }

}  // namespace

template <class T>
Block<T>::Block(const ModelConfig& model, const MixerConfig& mixer, Device device,
                Implementation implementation, Index index, ParameterTable& table)
    : d_model_(model.d_model()),
      d_ff_(model.d_ff),
      taps_(model.short_conv),
      ln1_(prefix(index) + "ln1", d_model_, table),
      conv_([&]() -> ConvOffsets {
        if (taps_ == 0) return {};
        const std::string name = prefix(index) + "conv";
        return {table.add(name + ".weight", {d_model_, 1, taps_}, Initialisation::uniform_fan_in),
                table.add(name + ".bias", {d_model_}, Initialisation::zeros)};
      }()),
      mixer_(mixer, model.n_heads, model.d_h, device, implementation, prefix(index) + "attn.",
             table),
      ln2_(prefix(index) + "ln2", d_model_, table) {
  const std::string up = prefix(index) + "ff.0";
  const std::string down = prefix(index) + "ff.2";
  mlp_.up_weight = table.add(up + ".weight", {d_ff_, d_model_}, Initialisation::normal);
  mlp_.up_bias = table.add(up + ".bias", {d_ff_}, Initialisation::zeros);
  mlp_.down_weight = table.add(down + ".weight", {d_model_, d_ff_}, Initialisation::normal);
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
  const Index M = batch * tokens;
  const Index D = d_model_;
  const Matrix<T> normed1 = matrix(context, normed1_, D);
  ln1_.forward(context, h, parameters, normed1);
  Matrix<T> mixer_input = normed1;
  if (taps_ > 0) {
    mixer_input = matrix(context, convolved_, D);
    ops::short_conv_forward<T>(context, short_conv(parameters), mixer_input);
  }
  const Matrix<T> middle = matrix(context, middle_, D);
  mixer_.forward(context, batch, tokens, mixer_input, parameters, h, middle, training);

  const Matrix<T> normed2 = matrix(context, normed2_, D);
  ln2_.forward(context, middle, parameters, normed2);
  const Matrix<T> hidden = matrix(context, hidden_, d_ff_);
  ops::linear_forward<T>(context, {.x = normed2,
                                   .weight = {parameters + mlp_.up_weight, d_ff_, D},
                                   .bias = parameters + mlp_.up_bias,
                                   .y = hidden});
  const Matrix<T> activated = matrix(context, activated_, d_ff_);
  ops::gelu_forward<T>(context, hidden.data, activated.data, M * d_ff_);
  const Matrix<T> output = matrix(context, output_, D);
  ops::linear_forward<T>(context, {.x = activated,
                                   .weight = {parameters + mlp_.down_weight, D, d_ff_},
                                   .bias = parameters + mlp_.down_bias,
                                   .residual = middle,
                                   .y = output});
  return output;
}

// The gradient of the residual stream passes each branch unchanged; the branch's own is added to
// it.
template <class T>
Matrix<const T> Block<T>::backward(const Context& context, Matrix<const T> h, const T* parameters,
                                   Matrix<const T> d_output, T* gradients) {
  const Index M = batch_ * tokens_;
  const Index D = d_model_;
  const Matrix<T> d_hidden = matrix(context, d_hidden_, d_ff_);
  const Matrix<T> d_normed2 = matrix(context, d_normed2_, D);
  const Matrix<T> d_middle = matrix(context, d_middle_, D);

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
  ln2_.backward(context, {middle_.data(), M, D}, parameters, d_normed2, d_output, d_middle,
                gradients);

  const Matrix<T> d_normed1 = matrix(context, d_normed1_, D);
  if (taps_ == 0) {
    mixer_.backward(context, {normed1_.data(), M, D}, parameters, d_middle, d_normed1, gradients);
  } else {
    const Matrix<T> d_mixer_input = matrix(context, d_mixer_input_, D);
    mixer_.backward(context, {convolved_.data(), M, D}, parameters, d_middle, d_mixer_input,
                    gradients);
    ops::short_conv_backward<T>(context, short_conv(parameters),
                                {.dy = d_mixer_input,
                                 .dx = d_normed1,
                                 .dweight = {gradients + conv_.weight, D, taps_},
                                 .dbias = gradients + conv_.bias});
  }
  const Matrix<T> d_input = matrix(context, d_input_, D);
  ln1_.backward(context, h, parameters, d_normed1, d_middle, d_input, gradients);
  return d_input;
}

template <class T>
Index Block<T>::activation_bytes(Index batch, Index tokens) const {
  const Index token_rows = taps_ > 0 ? 5 : 4;  // normed1, [convolved], middle, normed2, output
  const Index statistics = 4;                  // mean and inverse_std of two LayerNorms
  const Index elements = batch * tokens * (token_rows * d_model_ + 2 * d_ff_ + statistics);
  return elements * static_cast<Index>(sizeof(T)) + mixer_.activation_bytes(batch, tokens);
}

template struct LayerNorm<float>;
template struct LayerNorm<double>;
template class Block<float>;
template class Block<double>;

}  // namespace vla_bench
