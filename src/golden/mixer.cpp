// Golden files of one mixer layer: forward, backward, and the states' norms over time.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "golden/comparison.h"
#include "mixers/layer.h"

namespace vla_bench {
namespace {

constexpr Index kLargestSize = Index{1} << 31;   // products of two sizes stay in range
constexpr Index kLargestModel = Index{1} << 20;  // and 3 D * D

/// A host copy of what a core reads.
template <class T>
class HostInputs {
 public:
  HostInputs(Device device, const CoreInputs<T>& inputs, Index aux_width)
      : view_(inputs),
        q_(device, inputs.dims, inputs.dims.d_h, view_.q),
        k_(device, inputs.dims, inputs.dims.d_h, view_.k),
        v_(device, inputs.dims, inputs.dims.d_h, view_.v),
        aux_(device, inputs.dims, aux_width, view_.aux) {}

  const CoreInputs<T>& view() const { return view_; }

 private:
  struct Copy {
    /// Copies the stretch of memory that `head_view` spans and points it at the copy.
    Copy(Device device, const HeadDims& dims, Index width, HeadView<const T>& head_view) {
      if (device == Device::cpu || head_view.empty()) return;
      const Index span = (dims.rows() - 1) * head_view.row_stride +
                         (dims.heads - 1) * head_view.head_stride + width;
      storage.resize(Device::cpu, span);
      device_copy(Device::cpu, storage.data(), device, head_view.data,
                  static_cast<std::size_t>(storage.bytes()));
      head_view.data = storage.data();
    }
    Array<T> storage;
  };

  CoreInputs<T> view_;
  Copy q_, k_, v_, aux_;
};

/// |S_t|_F and |A_t|_F after each token, averaged over batch and heads.
struct StateNorms {
  std::vector<double> state;    // (T)
  std::vector<double> penalty;  // (T), of vla only
};

template <class T>
StateNorms step_memories(const CoreInputs<T>& inputs, HeadMemory<T>& memory) {
  const HeadDims& dims = inputs.dims;
  const auto tokens = static_cast<std::size_t>(dims.tokens);
  StateNorms norms{.state = std::vector<double>(tokens), .penalty = std::vector<double>(tokens)};
  std::vector<T> o(static_cast<std::size_t>(dims.d_h));
  const double share = 1.0 / static_cast<double>(dims.lanes());
  for (Index b = 0; b < dims.batch; ++b) {
    for (Index h = 0; h < dims.heads; ++h) {
      memory.reset();
      for (Index t = 0; t < dims.tokens; ++t) {
        const Index row = b * dims.tokens + t;
        memory.step(inputs.q.at(row, h), inputs.k.at(row, h), inputs.v.at(row, h),
                    inputs.aux.empty() ? nullptr : inputs.aux.at(row, h), o.data());
        const auto i = static_cast<std::size_t>(t);
        norms.state[i] += share * memory.state_norm();
        norms.penalty[i] += share * memory.penalty_norm().value_or(0.0);
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
  MixerLayer<T> layer(golden.mixer, n_heads, d_model / n_heads, context.device, implementation, "",
                      table);
  // Checks every shape: from here on the file's own tensors bound all sizes, D * D included.
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
  const Index aux_width = mixer_traits(golden.mixer).aux_per_head ? 1 : d_model / n_heads;
  const HostInputs<T> inputs(context.device, layer.core_inputs(), aux_width);
  const auto memory = layer.core().memory();
  const StateNorms norms = step_memories(inputs.view(), *memory);
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
