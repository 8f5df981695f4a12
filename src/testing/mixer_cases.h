// Shared by all mixers' tests: runs a core on seeded inputs, compares production with reference,
// differentiates the reference numerically, and checks the properties of every mixer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "mixers/parameters.h"
#include "mixers/registry.h"
#include "mixers/value_groups.h"
#include "testing/compare.h"

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

/// A value is a sum of about T * d_v rounded products; their errors (half an ulp each) add like a
/// random walk, and 16 covers the constants of features, norms and quotients.
template <class T>
double rounding_tolerance(const HeadDims& dims) {
  const double unit = std::is_same_v<T, float> ? 0x1p-24 : 0x1p-53;
  return 16.0 * unit * std::sqrt(static_cast<double>(dims.tokens * dims.value_channels()));
}
/// Keys of a width of their own are read along their n^2 + n + 1 features (based), which are summed
/// even at one token, in the read and in its denominator.
template <class T>
double rounding_tolerance(const CoreTensors& tensors) {
  const Index n = tensors.key_width;
  if (n == 0) return rounding_tolerance<T>(tensors.dims);
  HeadDims terms = tensors.dims;
  terms.tokens = terms.tokens * terms.d_h + 2 * (n * n + n + 1);
  terms.d_h = terms.d_v = 1;
  return rounding_tolerance<T>(terms);
}

inline std::string describe(const HeadDims& dims) {
  return "B=" + std::to_string(dims.batch) + " T=" + std::to_string(dims.tokens) +
         " H=" + std::to_string(dims.heads) + " d=" + std::to_string(dims.d_h) +
         (dims.d_v > 0 ? " d_v=" + std::to_string(dims.d_v) : "");
}

inline void expect_same_run(const CoreRun& actual, const CoreRun& expected, double tolerance,
                            const std::string& where) {
  const auto expected_values = expected.all();
  const auto actual_values = actual.all();
  ASSERT_EQ(actual_values.size(), expected_values.size());
  // Gradients that vanish identically hold rounding noise, so errors are relative to the largest
  // gradient of all.
  double largest = 0.0;
  for (std::size_t i = 1; i < expected_values.size(); ++i) {
    for (double value : *expected_values[i].second) largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < expected_values.size(); ++i) {
    const double floor = i == 0 ? 1e-300 : std::max(1e-300, 1e-1 * largest);
    EXPECT_TRUE(near(where + " " + expected_values[i].first,
                     std::span<const double>(*actual_values[i].second),
                     std::span<const double>(*expected_values[i].second), tolerance, floor));
  }
}

/// Compares production in T with the double reference: output and every gradient. A `tolerance` of
/// 0 stands for rounding_tolerance.
template <class T>
void expect_matches_reference(const MixerConfig& mixer, const CoreTensors& tensors,
                              double tolerance = 0.0) {
  const Index d_h = tensors.dims.d_h;
  const CoreRun expected = run_core<double>(*reference_core(mixer, d_h), tensors);
  const CoreRun actual = run_core<T>(*production_core<T>(mixer, d_h), tensors);
  expect_same_run(actual, expected, tolerance > 0.0 ? tolerance : rounding_tolerance<T>(tensors),
                  describe(tensors.dims) + (std::is_same_v<T, float> ? " float" : " double"));
}

/// The sizes that every production core must pass: one token; lengths that are no multiple of a
/// tile or checkpoint interval; head sizes with and without a specialised loop.
inline std::vector<HeadDims> standard_shapes() {
  std::vector<HeadDims> shapes;
  for (Index d : {5, 8, 16, 24, 32, 64, 128}) {
    for (Index tokens : {1, 17, 65}) shapes.push_back({1, tokens, 2, d});
  }
  for (Index tokens : {2, 15, 16, 33, 64, 127}) shapes.push_back({2, tokens, 3, 16});
  shapes.push_back({1, 130, 1, 40});
  return shapes;
}

/// Checks d(sum o * d_o) / d(every input) by central differences. At step h the truncation error is
/// about h^2 / 6 times a third derivative of order one (2e-11 at h = 1e-5) and rounding adds
/// 2^-53 |L| / h (about 1e-10 for these small cases): `tolerance` leaves room for steep third
/// derivatives and is far below the size of any wrong term.
inline void expect_central_differences(MixerCore<double>& core, const CoreTensors& tensors,
                                       double tolerance = 1e-6) {
  const CoreRun run = run_core<double>(core, tensors);
  CoreTensors moved = tensors;
  const auto loss = [&] {
    const CoreRun probe = run_core<double>(core, moved, 1, false);
    double sum = 0.0;
    for (std::size_t i = 0; i < probe.o.size(); ++i) sum += probe.o[i] * tensors.d_o[i];
    return sum;
  };
  constexpr double h = 1e-5;
  CoreRun numeric;
  numeric.o = run.o;
  const auto differentiate = [&](std::vector<double>& input, std::vector<double>& gradient) {
    for (double& value : input) {
      const double start = value;
      value = start + h;
      const double above = loss();
      value = start - h;
      const double below = loss();
      value = start;
      gradient.push_back((above - below) / (2 * h));
    }
  };
  differentiate(moved.q, numeric.dq);
  differentiate(moved.k, numeric.dk);
  differentiate(moved.v, numeric.dv);
  for (std::vector<double>& values : moved.more) {
    differentiate(values, numeric.dmore.emplace_back());
  }
  for (std::vector<double>& values : moved.parameters) {
    differentiate(values, numeric.dparameters.emplace_back());
  }
  expect_same_run(run, numeric, tolerance, "central differences " + describe(tensors.dims));
}

/// Checks that changing token t changes no bit of earlier outputs, and does change its own.
template <class T>
void expect_causal(MixerCore<T>& core, const CoreTensors& tensors) {
  const HeadDims& dims = tensors.dims;
  const Index D = dims.heads * dims.value_channels();
  const CoreRun before = run_core<T>(core, tensors, 1, false);
  for (Index t : {Index{0}, dims.tokens / 2, dims.tokens - 1}) {
    CoreTensors changed = tensors;
    const auto change = [&](std::vector<double>& values, Index width) {
      for (Index b = 0; b < dims.batch; ++b) {
        const Index first = (b * dims.tokens + t) * dims.heads * width;
        for (Index i = 0; i < dims.heads * width; ++i) {
          values[static_cast<std::size_t>(first + i)] += 0.25 + 0.0625 * static_cast<double>(i % 7);
        }
      }
    };
    change(changed.q, changed.key_channels());
    change(changed.k, changed.key_channels());
    change(changed.v, dims.value_channels());
    for (std::size_t i = 0; i < changed.more.size(); ++i) {
      change(changed.more[i], tensors.widths[i]);
    }
    const CoreRun after = run_core<T>(core, changed, 1, false);
    for (Index b = 0; b < dims.batch; ++b) {
      const auto first = static_cast<std::size_t>(b * dims.tokens * D);
      const auto size = static_cast<std::size_t>(t * D);
      EXPECT_TRUE(std::equal(before.o.begin() + static_cast<std::ptrdiff_t>(first),
                             before.o.begin() + static_cast<std::ptrdiff_t>(first + size),
                             after.o.begin() + static_cast<std::ptrdiff_t>(first)))
          << "token " << t << " changed an earlier output of row " << b;
      EXPECT_NE(before.o[first + size], after.o[first + size])
          << "token " << t << " does not reach its own output";
    }
  }
}

/// Checks that stepping memory() through every lane gives the core's forward.
template <class T>
void expect_memory_equals_forward(MixerCore<T>& core, const CoreTensors& tensors,
                                  double tolerance = 0.0) {
  const HeadDims& dims = tensors.dims;
  const CoreRun run = run_core<T>(core, tensors, 1, false);
  std::vector<double> stepped(run.o.size());
  const auto token = [](const std::vector<double>& values, Index position, Index width) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(position * width);
    return std::vector<T>(first, first + static_cast<std::ptrdiff_t>(width));
  };
  std::vector<std::vector<T>> parameters;
  for (const std::vector<double>& values : tensors.parameters) {
    parameters.emplace_back(values.begin(), values.end());
  }
  const Index d_v = dims.value_channels();
  std::vector<T> o(static_cast<std::size_t>(d_v));
  for (Index head = 0; head < dims.heads; ++head) {
    const std::unique_ptr<HeadMemory<T>> memory = head_memory(core, dims, head);
    for (Index b = 0; b < dims.batch; ++b) {
      memory->reset();
      for (Index t = 0; t < dims.tokens; ++t) {
        const Index position = (b * dims.tokens + t) * dims.heads + head;
        const std::vector<T> q = token(tensors.q, position, tensors.key_channels());
        const std::vector<T> k = token(tensors.k, position, tensors.key_channels());
        const std::vector<T> v = token(tensors.v, position, d_v);
        TokenInputs<T> inputs{q.data(), k.data(), v.data()};
        std::vector<std::vector<T>> more;
        for (std::size_t i = 0; i < tensors.more.size(); ++i) {
          more.push_back(token(tensors.more[i], position, tensors.widths[i]));
          inputs.more[i] = more.back().data();
        }
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          inputs.parameters[i] = parameters[i].data();
        }
        memory->step(inputs, o.data());
        std::copy(o.begin(), o.end(),
                  stepped.begin() + static_cast<std::ptrdiff_t>(position * d_v));
      }
    }
  }
  EXPECT_TRUE(near("memory steps", std::span<const double>(stepped), std::span<const double>(run.o),
                   tolerance > 0.0 ? tolerance : rounding_tolerance<T>(tensors)));
}

/// Checks that any number of threads gives the same bits.
template <class T>
void expect_thread_count_is_invisible(MixerCore<T>& core, const CoreTensors& tensors) {
  const CoreRun one = run_core<T>(core, tensors, 1);
  for (int threads : {2, 3}) {
    const CoreRun several = run_core<T>(core, tensors, threads);
    for (std::size_t i = 0; i < one.all().size(); ++i) {
      EXPECT_EQ(*one.all()[i].second, *several.all()[i].second)
          << one.all()[i].first << " differs between 1 and " << threads << " threads";
    }
  }
}

/// The tensors with `channels` of each value from `first` on.
inline CoreTensors with_values(const CoreTensors& tensors, Index first, Index channels) {
  CoreTensors part = tensors;
  part.dims.d_v = channels;
  for (auto* values : {&part.v, &part.d_o}) {
    std::vector<double> kept;
    const Index width = tensors.dims.value_channels();
    for (auto at = values->begin(); at != values->end(); at += width) {
      kept.insert(kept.end(), at + first, at + first + channels);
    }
    *values = std::move(kept);
  }
  return part;
}

/// Checks that rows of S do not meet: o and dv of wide values are those of the same heads with each
/// group of d channels alone, all other gradients their sums.
inline void expect_sum_of_groups(MixerCore<double>& core, const CoreTensors& tensors) {
  const HeadDims& dims = tensors.dims;
  const CoreRun whole = run_core<double>(core, tensors);
  CoreRun sum;
  const auto spread = [&](const std::vector<double>& part, Index group, std::vector<double>& to) {
    to.resize(whole.o.size());
    for (std::size_t i = 0; i < part.size(); ++i) {
      const auto d = static_cast<std::size_t>(dims.d_h);
      to[i / d * static_cast<std::size_t>(dims.value_channels()) +
         static_cast<std::size_t>(group) * d + i % d] = part[i];
    }
  };
  for (Index group = 0; group < dims.value_groups(); ++group) {
    const CoreRun part = run_core<double>(core, with_values(tensors, group * dims.d_h, dims.d_h));
    spread(part.o, group, sum.o);
    spread(part.dv, group, sum.dv);
    const auto add = [](const std::vector<double>& from, std::vector<double>& to) {
      to.resize(from.size());
      for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
    };
    add(part.dq, sum.dq);
    add(part.dk, sum.dk);
    sum.dmore.resize(part.dmore.size());
    sum.dparameters.resize(part.dparameters.size());
    for (std::size_t i = 0; i < part.dmore.size(); ++i) add(part.dmore[i], sum.dmore[i]);
    for (std::size_t i = 0; i < part.dparameters.size(); ++i) {
      add(part.dparameters[i], sum.dparameters[i]);
    }
  }
  expect_same_run(whole, sum, rounding_tolerance<double>(dims), "groups " + describe(dims));
}

/// The contract of a mixer whose values can be wider than its keys.
inline void expect_wide_values(const MixerConfig& mixer) {
  for (const HeadDims& dims : std::vector<HeadDims>{
           {1, 1, 2, 5, 10}, {2, 33, 3, 16, 32}, {1, 65, 2, 8, 24}, {1, 3, 1, 256, 512}}) {
    const CoreTensors tensors = random_tensors(mixer, dims, 14);
    expect_matches_reference<double>(mixer, tensors);
    expect_matches_reference<float>(mixer, tensors);
  }
  const HeadDims small{.batch = 2, .tokens = 6, .heads = 2, .d_h = 3, .d_v = 6};
  expect_central_differences(*reference_core(mixer, 3), random_tensors(mixer, small, 15));
  const HeadDims medium{.batch = 2, .tokens = 40, .heads = 3, .d_h = 16, .d_v = 48};
  const CoreTensors tensors = random_tensors(mixer, medium, 16);
  expect_sum_of_groups(*reference_core(mixer, 16), tensors);
  expect_causal<float>(*production_core<float>(mixer, 16), tensors);
  expect_memory_equals_forward<float>(*production_core<float>(mixer, 16), tensors);
  expect_memory_equals_forward<double>(*reference_core(mixer, 16), tensors);
  expect_thread_count_is_invisible<float>(*production_core<float>(mixer, 16), tensors);
}

/// All of the above for one variant: every mixer has to pass it.
inline void expect_contract(const MixerConfig& mixer) {
  for (const HeadDims& dims : standard_shapes()) {
    const CoreTensors tensors = random_tensors(mixer, dims, 11);
    expect_matches_reference<double>(mixer, tensors);
    expect_matches_reference<float>(mixer, tensors);
  }
  const HeadDims small{.batch = 2, .tokens = 7, .heads = 2, .d_h = 5};
  expect_central_differences(*reference_core(mixer, 5), random_tensors(mixer, small, 12));
  const HeadDims medium{.batch = 2, .tokens = 70, .heads = 3, .d_h = 16};
  const CoreTensors tensors = random_tensors(mixer, medium, 13);
  expect_causal<float>(*production_core<float>(mixer, 16), tensors);
  expect_causal<double>(*reference_core(mixer, 16), tensors);
  expect_memory_equals_forward<float>(*production_core<float>(mixer, 16), tensors);
  expect_memory_equals_forward<double>(*production_core<double>(mixer, 16), tensors);
  expect_memory_equals_forward<double>(*reference_core(mixer, 16), tensors);
  expect_thread_count_is_invisible<float>(*production_core<float>(mixer, 16), tensors);
  expect_thread_count_is_invisible<double>(*production_core<double>(mixer, 16), tensors);
  if (why_values_are_as_wide_as_keys(mixer.options).empty()) expect_wide_values(mixer);
}

}  // namespace vla_bench::testing
