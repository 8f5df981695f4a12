// Golden files of a memory rule alone: its inputs as the recurrence takes them, output and
// gradients. A mixer has such files where its options declare
//   given        names of the inputs beside q, k and v, in the order of its projections
//   given_parameters   where it has them: names of the core's parameters, (H, d) each
//   of_given()   the options whose core takes them without feature maps, norms and gates
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "core/error.h"
#include "golden/comparison.h"
#include "mixers/list.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

constexpr Index kLargestHead = 1024;

template <class Options>
concept HasRuleFiles = requires {
  Options::of_given();
};

/// A tensor of the file on a device, and room for its gradient.
template <class T>
struct Input {
  std::string name;
  std::vector<Index> shape;  // (B, T, H, d), or (B, T, H)
  Array<T> values, gradient;

  Index width(const HeadDims& dims) const { return values.size() / (dims.rows() * dims.heads); }
  HeadView<T> view(Array<T>& array, const HeadDims& dims) const {
    return {array.data(), dims.heads * width(dims), width(dims)};
  }
};

template <class T>
Input<T> read_input(const GoldenFile& golden, const std::string& name, std::vector<Index> shape,
                    Device device) {
  require_shape(golden, name, shape);
  const std::vector<T> values = golden.tensors.values<T>(name, shape);
  const auto size = static_cast<Index>(values.size());
  Input<T> input{.name = name,
                 .shape = std::move(shape),
                 .values = Array<T>(device, size),
                 .gradient = Array<T>(device, size)};
  copy_to_device(values, input.values);
  return input;
}

HeadDims read_dims(const GoldenFile& golden) {
  return {.batch = read_size(golden, "B", kLargestSize),
          .tokens = read_size(golden, "T", kLargestSize),
          .heads = read_size(golden, "H", kLargestSize),
          .d_h = read_size(golden, "d", kLargestHead)};
}

/// q, k, v and the mixer's further inputs.
template <class T>
std::vector<Input<T>> read_inputs(const GoldenFile& golden, const HeadDims& dims, Device device) {
  const std::vector<Index> scalars = {dims.batch, dims.tokens, dims.heads};
  const std::vector<Index> vectors = {dims.batch, dims.tokens, dims.heads, dims.d_h};
  std::vector<Input<T>> inputs;
  for (const char* name : {"q", "k", "v"}) {
    inputs.push_back(read_input<T>(golden, name, vectors, device));
  }
  const auto read_further = [&]<class Options>(const Options&) {
    if constexpr (HasRuleFiles<Options>) {
      const MixerLayout layout = mixer_layout(golden.mixer, dims.d_h);
      for (std::size_t i = 0; i < Options::given.size(); ++i) {
        const bool is_scalar = layout.more[i].width == 1;
        inputs.push_back(read_input<T>(golden, std::string(Options::given[i]),
                                       is_scalar ? scalars : vectors, device));
      }
    }
  };
  std::visit(read_further, golden.mixer.options);
  return inputs;
}

/// The core's parameters.
template <class T>
std::vector<Input<T>> read_parameters(const GoldenFile& golden, const HeadDims& dims,
                                      Device device) {
  std::vector<Input<T>> parameters;
  std::visit(
      [&]<class Options>(const Options&) {
        if constexpr (requires { Options::given_parameters; }) {
          for (const std::string_view name : Options::given_parameters) {
            parameters.push_back(
                read_input<T>(golden, std::string(name), {dims.heads, dims.d_h}, device));
          }
        }
      },
      golden.mixer.options);
  return parameters;
}

}  // namespace

MixerOptions mixer_of_rule(const std::string& rule, const std::string& origin) {
  std::optional<MixerOptions> found;
  std::vector<std::string_view> known;
  Mixers::for_each([&]<class Options>() {
    if constexpr (HasRuleFiles<Options>) {
      known.push_back(Options::name);
      if (rule == Options::name) found = Options::of_given();
    }
  });
  if (!found) {
    throw BadInput(fmt::format("[{}] metadata \"rule\": expected {}, got \"{}\"", origin,
                               fmt::join(known, ", "), rule));
  }
  return *found;
}

template <class T>
std::vector<TensorError> verify_rule(const GoldenFile& golden, const Context& context,
                                     Implementation implementation) {
  const HeadDims dims = read_dims(golden);
  std::vector<Input<T>> inputs = read_inputs<T>(golden, dims, context.device);
  std::vector<Input<T>> parameters = read_parameters<T>(golden, dims, context.device);
  Input<T> output = read_input<T>(golden, "d_o", inputs[0].shape, context.device);  // values: d_o
  const auto view = [&](std::size_t i) { return inputs[i].view(inputs[i].values, dims); };
  const auto gradient = [&](std::size_t i) { return inputs[i].view(inputs[i].gradient, dims); };

  CoreInputs<T> core_inputs{.dims = dims, .q = view(0), .k = view(1), .v = view(2)};
  const HeadView<T> o = output.view(output.gradient, dims);
  CoreGradients<T> gradients{.o = o,
                             .d_o = output.view(output.values, dims),
                             .dq = gradient(0),
                             .dk = gradient(1),
                             .dv = gradient(2)};
  for (std::size_t i = 3; i < inputs.size(); ++i) {
    core_inputs.more[i - 3] = view(i);
    gradients.dmore[i - 3] = gradient(i);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    core_inputs.parameters[i] = parameters[i].values.data();
    gradients.dparameters[i] = parameters[i].gradient.data();  // starts as zeros
  }
  const auto core = make_mixer_core<T>(golden.mixer, dims.d_h, context.device, implementation);
  Array<T> saved;
  core->forward(context, core_inputs, o, &saved);
  core->backward(context, core_inputs, gradients, saved);

  Comparison comparison(golden);
  comparison.add<T>("o", output.shape, copy_to_host(output.gradient));
  for (const auto* read : {&inputs, &parameters}) {
    for (const Input<T>& input : *read) {
      comparison.add<T>("grad." + input.name, input.shape, copy_to_host(input.gradient));
    }
  }
  return comparison.finish();
}

template std::vector<TensorError> verify_rule<float>(const GoldenFile&, const Context&,
                                                     Implementation);
template std::vector<TensorError> verify_rule<double>(const GoldenFile&, const Context&,
                                                      Implementation);

}  // namespace vla_bench
