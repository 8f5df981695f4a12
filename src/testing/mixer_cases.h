// Shared by all mixers' tests: compares production with reference, differentiates the reference
// numerically, and checks the properties of every mixer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mixers/value_groups.h"
#include "testing/compare.h"
#include "testing/mixer_runs.h"

namespace vla_bench::testing {

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
