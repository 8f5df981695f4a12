// Runs a mixer's core on seeded inputs, for tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "mixers/parameters.h"
#include "mixers/registry.h"

namespace vla_bench::testing {

/// Raw inputs and the upstream gradient of a core. Values are exact in float, so that both
/// precisions see the same numbers.
struct CoreTensors {
  HeadDims dims;
  Index key_width = 0;                          // channels of q and k; 0: d
  std::vector<double> q, k, v, d_o;             // (B, T, H, d_v); q, k (B, T, H, key_channels)
  std::vector<Index> widths;                    // of the projections beyond q, k and v
  std::vector<std::vector<double>> more;        // (B, T, H, width) each
  std::vector<std::vector<double>> parameters;  // of the core, (H, ...) each

  Index key_channels() const { return key_width > 0 ? key_width : dims.d_h; }
};

/// Normal draws times `scale`; adds `shift` to q and k (a strongly negative one activates clamps).
inline CoreTensors random_tensors(const MixerConfig& mixer, const HeadDims& dims,
                                  std::uint64_t seed, double scale = 0.7, double shift = 0.0) {
  CoreTensors tensors;
  tensors.dims = dims;
  tensors.key_width = mixer_layout(mixer, dims.d_h).key_width;
  const auto fill = [&](std::vector<double>& values, Index width, std::uint32_t substream,
                        double by) {
    Rng rng(seed, RngStream::benchmark, 0, substream);
    values.resize(static_cast<std::size_t>(dims.rows() * dims.heads * width));
    for (double& value : values) value = static_cast<float>(by + scale * rng.normal());
  };
  fill(tensors.q, tensors.key_channels(), 0, shift);
  fill(tensors.k, tensors.key_channels(), 1, shift);
  fill(tensors.v, dims.value_channels(), 2, 0.0);
  fill(tensors.d_o, dims.value_channels(), 3, 0.0);
  for (const Projection& projection : mixer_layout(mixer, dims.d_h).more) {
    const auto index = static_cast<std::uint32_t>(tensors.widths.size());
    tensors.widths.push_back(projection.width);
    fill(tensors.more.emplace_back(), projection.width, 4 + index, 0.0);
  }
  for (const CoreParameter& parameter : mixer_layout(mixer, dims.d_h).parameters) {
    const Index size = core_parameter_size(parameter, dims.heads);
    Rng rng(seed, RngStream::benchmark, 1, static_cast<std::uint32_t>(tensors.parameters.size()));
    auto& values = tensors.parameters.emplace_back(static_cast<std::size_t>(size));
    for (double& value : values) value = static_cast<float>(scale * rng.normal());
  }
  return tensors;
}

/// A core's results, in double for comparison.
struct CoreRun {
  std::vector<double> o, dq, dk, dv;             // as CoreTensors'
  std::vector<std::vector<double>> dmore;        // (B, T, H, width) each
  std::vector<std::vector<double>> dparameters;  // (H, ...) each

  /// All results by name, o first.
  std::vector<std::pair<std::string, const std::vector<double>*>> all() const {
    std::vector<std::pair<std::string, const std::vector<double>*>> named = {
        {"o", &o}, {"dq", &dq}, {"dk", &dk}, {"dv", &dv}};
    for (std::size_t i = 0; i < dmore.size(); ++i) {
      named.emplace_back("dmore[" + std::to_string(i) + "]", &dmore[i]);
    }
    for (std::size_t i = 0; i < dparameters.size(); ++i) {
      named.emplace_back("dparameters[" + std::to_string(i) + "]", &dparameters[i]);
    }
    return named;
  }
};

template <class T>
Array<T> to_device(Device device, const std::vector<T>& host) {
  Array<T> array(device, static_cast<Index>(host.size()));
  device_copy(device, array.data(), Device::cpu, host.data(), host.size() * sizeof(T));
  return array;
}
template <class T>
std::vector<T> to_host(const Array<T>& array) {
  std::vector<T> host(static_cast<std::size_t>(array.size()));
  device_copy(Device::cpu, host.data(), array.device(), array.data(), host.size() * sizeof(T));
  return host;
}

/// Runs forward (with_backward: and backward) on a layer's layout, q, k and v side by side in one
/// buffer, with NaN wherever the core must not read or must overwrite. `padding` is the number of
/// channels between rows; with 0, as in a layer, rows are aligned for vector loads.
template <class T>
CoreRun run_core(MixerCore<T>& core, const CoreTensors& tensors, const Context& context,
                 bool with_backward = true, Index padding = 1) {
  const HeadDims& dims = tensors.dims;
  const Index rows = dims.rows();
  const Index d_v = dims.value_channels();
  const Index D = dims.heads * d_v;
  const Index d_k = tensors.key_channels();
  const Index keys = dims.heads * d_k;
  const Index written = 2 * keys + D;  // of a row
  const Index stride = written + padding;
  const T poison = std::nan("");
  std::vector<T> host_qkv(static_cast<std::size_t>(rows * stride), poison);
  const auto lay = [&](const std::vector<double>& values, Index columns, Index at) {
    for (Index row = 0; row < rows; ++row) {
      for (Index i = 0; i < columns; ++i) {
        host_qkv[static_cast<std::size_t>(row * stride + at + i)] =
            static_cast<T>(values[static_cast<std::size_t>(row * columns + i)]);
      }
    }
  };
  lay(tensors.q, keys, 0);
  lay(tensors.k, keys, keys);
  lay(tensors.v, D, 2 * keys);
  const auto upload = [&](const std::vector<double>& values) {
    return to_device(context.device, std::vector<T>(values.begin(), values.end()));
  };
  const auto poisoned = [&](std::size_t size) {
    return to_device(context.device, std::vector<T>(size, poison));
  };
  const Array<T> qkv = to_device(context.device, host_qkv);
  Array<T> dqkv = poisoned(host_qkv.size());
  const Array<T> d_o = upload(tensors.d_o);
  Array<T> o = poisoned(tensors.d_o.size());

  CoreInputs<T> inputs;
  inputs.dims = dims;
  inputs.q = {qkv.data(), stride, d_k};
  inputs.k = {qkv.data() + keys, stride, d_k};
  inputs.v = {qkv.data() + 2 * keys, stride, d_v};

  CoreGradients<T> gradients;
  gradients.o = {o.data(), D, d_v};
  gradients.d_o = {d_o.data(), D, d_v};
  gradients.dq = {dqkv.data(), stride, d_k};
  gradients.dk = {dqkv.data() + keys, stride, d_k};
  gradients.dv = {dqkv.data() + 2 * keys, stride, d_v};
  std::vector<Array<T>> more, dmore;
  for (std::size_t i = 0; i < tensors.more.size(); ++i) {
    const Index width = tensors.widths[i];
    more.push_back(upload(tensors.more[i]));
    dmore.push_back(poisoned(tensors.more[i].size()));
    inputs.more[i] = {more.back().data(), dims.heads * width, width};
    gradients.dmore[i] = {dmore.back().data(), dims.heads * width, width};
  }
  constexpr T kEarlier = 0.5;  // a gradient that this pass has to add to
  std::vector<Array<T>> parameters, dparameters;
  for (std::size_t i = 0; i < tensors.parameters.size(); ++i) {
    const std::size_t size = tensors.parameters[i].size();
    parameters.push_back(upload(tensors.parameters[i]));
    dparameters.push_back(to_device(context.device, std::vector<T>(size, kEarlier)));
    inputs.parameters[i] = parameters.back().data();
    gradients.dparameters[i] = dparameters.back().data();
  }

  Array<T> saved;
  const HeadView<T> output(o.data(), D, d_v);
  const CoreGradients<T>* wanted = with_backward ? &gradients : nullptr;
  prepare_core(core, context, inputs, wanted);
  core.forward(context, inputs, output, with_backward ? &saved : nullptr);
  if (with_backward) core.backward(context, inputs, gradients, saved);
  deliver_core(core, context, inputs, output, wanted);
  CoreRun run;
  const std::vector<T> host_o = testing::to_host(o);
  run.o.assign(host_o.begin(), host_o.end());
  if (!with_backward) return run;

  EXPECT_EQ(saved.bytes(), core.saved_bytes(dims));
  const std::vector<T> host_dqkv = testing::to_host(dqkv);
  for (Index row = 0; row < rows; ++row) {
    const T* from = host_dqkv.data() + row * stride;
    run.dq.insert(run.dq.end(), from, from + keys);
    run.dk.insert(run.dk.end(), from + keys, from + 2 * keys);
    run.dv.insert(run.dv.end(), from + 2 * keys, from + written);
    if (padding == 0) continue;
    EXPECT_TRUE(std::isnan(from[written])) << "wrote outside its channels in row " << row;
  }
  for (const Array<T>& values : dmore) {
    const std::vector<T> host = testing::to_host(values);
    run.dmore.emplace_back(host.begin(), host.end());
  }
  for (const Array<T>& values : dparameters) {
    auto& host = run.dparameters.emplace_back();
    for (const T value : testing::to_host(values)) host.push_back(value - kEarlier);
  }
  return run;
}

/// The same on the CPU.
template <class T>
CoreRun run_core(MixerCore<T>& core, const CoreTensors& tensors, int threads = 1,
                 bool with_backward = true) {
  return run_core(core, tensors, Context{.device = Device::cpu, .threads = threads}, with_backward);
}

template <class T>
std::unique_ptr<MixerCore<T>> production_core(const MixerConfig& mixer, Index d_h) {
  return make_mixer_core<T>(mixer, d_h, Device::cpu, Implementation::production);
}
inline std::unique_ptr<MixerCore<double>> reference_core(const MixerConfig& mixer, Index d_h) {
  return make_mixer_core<double>(mixer, d_h, Device::cpu, Implementation::reference);
}

}  // namespace vla_bench::testing
