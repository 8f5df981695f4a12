// Golden files of one mixer layer: forward, backward, and the norms of the states over time.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "golden/comparison.h"
#include "mixers/layer.h"
#include "mixers/penalty_memory.h"

namespace vla_bench {
namespace {

constexpr Index kLargestModel = Index{1} << 20;  // 3 D * D stays in range

/// A host copy of a core's inputs.
template <class T>
class HostInputs {
 public:
  HostInputs(Device device, const CoreInputs<T>& inputs, const MixerLayout& layout)
      : view_(inputs) {
    const Index d = inputs.dims.d_h;
    for (HeadView<const T>* view : {&view_.q, &view_.k})
      copy(device, layout.key_channels(d), *view);
    copy(device, d, view_.v);
    for (std::size_t i = 0; i < layout.more.size(); ++i) {
      copy(device, layout.more[i].width, view_.more[i]);
    }
    for (std::size_t i = 0; i < layout.parameters.size(); ++i) {
      Array<T>& storage = storage_.emplace_back(
          Device::cpu, core_parameter_size(layout.parameters[i], inputs.dims.heads));
      device_copy(Device::cpu, storage.data(), device, inputs.parameters[i],
                  static_cast<std::size_t>(storage.bytes()));
      view_.parameters[i] = storage.data();
    }
  }

  const CoreInputs<T>& view() const { return view_; }

 private:
  /// Copies the memory that `view` spans and points `view` to the copy.
  void copy(Device device, Index width, HeadView<const T>& view) {
    if (device == Device::cpu) return;
    const HeadDims& dims = view_.dims;
    const Index span =
        (dims.rows() - 1) * view.row_stride + (dims.heads - 1) * view.head_stride + width;
    Array<T>& storage = storage_.emplace_back(Device::cpu, span);
    device_copy(Device::cpu, storage.data(), device, view.data,
                static_cast<std::size_t>(storage.bytes()));
    view.data = storage.data();
  }

  CoreInputs<T> view_;
  std::vector<Array<T>> storage_;
};

/// |S_t|_F and |A_t|_F after each token, averaged over batch and heads.
struct StateNorms {
  std::vector<double> state;    // (T)
  std::vector<double> penalty;  // (T), of vla only
};

template <class T>
StateNorms step_memories(const CoreInputs<T>& inputs, const MixerCore<T>& core) {
  const HeadDims& dims = inputs.dims;
  const auto tokens = static_cast<std::size_t>(dims.tokens);
  StateNorms norms{.state = std::vector<double>(tokens), .penalty = std::vector<double>(tokens)};
  std::vector<T> o(static_cast<std::size_t>(dims.d_h));
  const double share = 1.0 / static_cast<double>(dims.lanes());
  for (Index h = 0; h < dims.heads; ++h) {
    const auto memory = core.memory(h);
    const PenaltyMemory<T>* penalised = as_penalty_memory(*memory);
    for (Index b = 0; b < dims.batch; ++b) {
      memory->reset();
      for (Index t = 0; t < dims.tokens; ++t) {
        memory->step(token_inputs(inputs, b * dims.tokens + t, h), o.data());
        const auto i = static_cast<std::size_t>(t);
        norms.state[i] += share * memory->state_norm();
        if (penalised != nullptr) norms.penalty[i] += share * penalised->penalty_norm();
      }
    }
  }
  return norms;
}

}  // namespace

template <class T>
std::vector<TensorError> verify_mixer(const GoldenFile& golden, const Context& context,
                                      Implementation implementation) {
  const Index batch = read_size(golden, "B", kLargestSize);
  const Index tokens = read_size(golden, "T", kLargestSize);
  const Index d_model = read_size(golden, "d_model", kLargestModel);
  const Index n_heads = read_size(golden, "n_heads", d_model);
  if (d_model % n_heads != 0) {
    throw BadInput(fmt::format("[{}] metadata: d_model {} is not a multiple of n_heads {}",
                               golden.origin, d_model, n_heads));
  }
  const std::array<Index, 3> shape = {batch, tokens, d_model};
  require_shape(golden, "x", shape);

  ParameterTable table;
  const ModelConfig model{.n_heads = n_heads, .d_h = d_model / n_heads};
  MixerLayer<T> layer(model, golden.mixer, context.device, implementation, "", table);
  // Checks every shape: from here on the file's tensors bound all sizes, D * D included.
  const std::vector<T> values = read_parameters<T>(golden, table);
  const Index rows = batch * tokens;
  const Index count = rows * d_model;
  Array<T> parameters(context.device, table.size()), gradients(context.device, table.size());
  Array<T> x(context.device, count), y(context.device, count);    // (B * T, D)
  Array<T> dy(context.device, count), dx(context.device, count);  // (B * T, D)
  copy_to_device(values, parameters);
  copy_to_device(golden.tensors.values<T>("x", shape), x);
  copy_to_device(golden.tensors.values<T>("dy", shape), dy);
  const auto matrix = [&](Array<T>& array) { return Matrix<T>(array.data(), rows, d_model); };

  layer.forward(context, batch, tokens, matrix(x), parameters.data(), matrix(y), true);
  const HostInputs<T> inputs(context.device, layer.core_inputs(parameters.data()), layer.layout());
  const StateNorms norms = step_memories(inputs.view(), layer.core());
  layer.backward(context, matrix(x), parameters.data(), matrix(dy), matrix(dx), gradients.data());

  Comparison comparison(golden);
  comparison.add<T>("y", shape, copy_to_host(y));
  comparison.add<T>("dx", shape, copy_to_host(dx));
  comparison.add_parameters<T>("grad.", table, copy_to_host(gradients));
  const std::array<Index, 1> over_time = {tokens};
  // A mixer without a state of fixed size has no norms in its file.
  if (golden.tensors.contains("S_norm")) comparison.add<double>("S_norm", over_time, norms.state);
  if (golden.tensors.contains("A_norm")) comparison.add<double>("A_norm", over_time, norms.penalty);
  return comparison.finish();
}

template std::vector<TensorError> verify_mixer<float>(const GoldenFile&, const Context&,
                                                      Implementation);
template std::vector<TensorError> verify_mixer<double>(const GoldenFile&, const Context&,
                                                       Implementation);

}  // namespace vla_bench
