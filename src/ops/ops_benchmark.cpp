// The operations at the published model's size (n = 24): M = 64 * 73 rows, D = 128, F = 256,
// V = 128. Counters: FLOP/s of products, bytes/s of operations bound by memory.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "core/array.h"
#include "core/rng.h"
#include "ops/ops.h"

namespace vla_bench {
namespace {

constexpr Index kRows = 64 * 73;
constexpr Index kChannels = 128;
constexpr Index kHidden = 256;

Array<float> random_array(Index size, std::uint32_t index) {
  Array<float> values(Device::cpu, size);
  Rng rng(1, RngStream::benchmark, index, 0);
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

Context context_of(const benchmark::State& state, int position) {
  return {.device = Device::cpu, .threads = static_cast<int>(state.range(position))};
}

void count_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

void count_bytes(benchmark::State& state, Index floats) {
  state.SetBytesProcessed(state.iterations() * floats * static_cast<Index>(sizeof(float)));
}

struct LinearOperands {
  Index N, K;
  Array<float> x, weight, bias, y, dx, dweight, dbias;
  LinearOperands(Index N_, Index K_)
      : N(N_),
        K(K_),
        x(random_array(kRows * K, 1)),
        weight(random_array(N * K, 2)),
        bias(random_array(N, 3)),
        y(random_array(kRows * N, 4)),
        dx(Device::cpu, kRows * K),
        dweight(Device::cpu, N * K),
        dbias(Device::cpu, N) {}
};

void linear_forward(benchmark::State& state) {
  LinearOperands a(state.range(0), state.range(1));
  for (auto _ : state) {
    ops::linear_forward<float>(context_of(state, 2), {.x = {a.x.data(), kRows, a.K},
                                                      .weight = {a.weight.data(), a.N, a.K},
                                                      .bias = a.bias.data(),
                                                      .y = {a.y.data(), kRows, a.N}});
  }
  count_flops(state, 2.0 * static_cast<double>(kRows * a.N * a.K));
}

void linear_backward(benchmark::State& state) {
  LinearOperands a(state.range(0), state.range(1));
  for (auto _ : state) {
    ops::linear_backward<float>(context_of(state, 2), {.x = {a.x.data(), kRows, a.K},
                                                       .weight = {a.weight.data(), a.N, a.K},
                                                       .dy = {a.y.data(), kRows, a.N},
                                                       .dx = {a.dx.data(), kRows, a.K},
                                                       .dweight = {a.dweight.data(), a.N, a.K},
                                                       .dbias = a.dbias.data()});
  }
  count_flops(state, 4.0 * static_cast<double>(kRows * a.N * a.K));
}

void layer_norm(benchmark::State& state) {
  const Context context = context_of(state, 0);
  Array<float> x = random_array(kRows * kChannels, 1);
  Array<float> dy = random_array(kRows * kChannels, 2);
  Array<float> weight = random_array(kChannels, 3);
  Array<float> y(Device::cpu, x.size()), dx(Device::cpu, x.size());
  Array<float> mean(Device::cpu, kRows), inverse_std(Device::cpu, kRows);
  Array<float> dweight(Device::cpu, kChannels), dbias(Device::cpu, kChannels);
  for (auto _ : state) {
    ops::layer_norm_forward<float>(context, {.x = {x.data(), kRows, kChannels},
                                             .weight = weight.data(),
                                             .bias = weight.data(),
                                             .y = {y.data(), kRows, kChannels},
                                             .mean = mean.data(),
                                             .inverse_std = inverse_std.data()});
    ops::layer_norm_backward<float>(context, {.x = {x.data(), kRows, kChannels},
                                              .weight = weight.data(),
                                              .mean = mean.data(),
                                              .inverse_std = inverse_std.data(),
                                              .dy = {dy.data(), kRows, kChannels},
                                              .residual = {dx.data(), kRows, kChannels},
                                              .dx = {dx.data(), kRows, kChannels},
                                              .dweight = dweight.data(),
                                              .dbias = dbias.data()});
  }
  count_bytes(state, 6 * x.size());  // x, y; x, dy, dx in and out
}

void gelu(benchmark::State& state) {
  const Context context = context_of(state, 0);
  Array<float> x = random_array(kRows * kHidden, 1);
  Array<float> dy = random_array(kRows * kHidden, 2);
  Array<float> y(Device::cpu, x.size());
  for (auto _ : state) {
    ops::gelu_forward<float>(context, x.data(), y.data(), x.size());
    ops::gelu_backward<float>(context, x.data(), dy.data(), dy.data(), x.size());
  }
  count_bytes(state, 5 * x.size());  // x, y; x, dy in and out
}

void optimiser(benchmark::State& state) {
  Array<float> gradients = random_array(812'000, 1);  // the published model's parameters, about
  Array<float> parameters(Device::cpu, gradients.size());
  Array<float> first(Device::cpu, gradients.size()), second(Device::cpu, gradients.size());
  ops::TrainingState training;
  for (auto _ : state) {
    ops::optimiser_step<float>(context_of(state, 0),
                               {.parameters = parameters.data(),
                                .gradients = gradients.data(),
                                .first_moment = first.data(),
                                .second_moment = second.data(),
                                .count = gradients.size(),
                                .schedule = {.peak = 1e-3, .warmup = 0, .steps = Index{1} << 40},
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .epsilon = 1e-8,
                                .weight_decay = 0.01,
                                .clip_norm = 1.0,
                                .state = &training});
  }
  count_bytes(state, 8 * gradients.size());  // g twice; p, m, v in and out
}

void cross_entropy(benchmark::State& state) {
  constexpr Index kTargets = 64 * 24;
  Array<float> logits = random_array(kTargets * kChannels, 1);
  Array<float> dlogits(Device::cpu, logits.size());
  Array<std::int32_t> targets(Device::cpu, kTargets);
  ops::LossSums sums;
  for (auto _ : state) {
    ops::cross_entropy<float>(context_of(state, 0),
                              {.logits = {logits.data(), kTargets, kChannels},
                               .targets = targets.data(),
                               .dlogits = {dlogits.data(), kTargets, kChannels},
                               .sums = &sums});
    benchmark::DoNotOptimize(sums.loss);
  }
  count_bytes(state, 2 * logits.size());
}

/// Loss and gradients of the head over 1,536 targets at the published size, over 4,096 at zoology's
/// vocabulary; chunk 0: all logits held.
void linear_cross_entropy(benchmark::State& state) {
  const Index V = state.range(0), M = V > kChannels ? 4096 : 64 * 24;
  const Index chunk = state.range(1) > 0 ? std::min<Index>(state.range(1), M) : M;
  Array<float> x = random_array(M * kChannels, 1), weight = random_array(V * kChannels, 2);
  Array<float> logits(Device::cpu, chunk * V);
  Array<float> dx(Device::cpu, x.size()), dweight(Device::cpu, weight.size());
  Array<std::int32_t> targets(Device::cpu, M);
  ops::LossSums sums;
  for (auto _ : state) {
    ops::linear_cross_entropy<float>(context_of(state, 2),
                                     {.x = {x.data(), M, kChannels},
                                      .weight = {weight.data(), V, kChannels},
                                      .targets = targets.data(),
                                      .logits = {logits.data(), chunk, V},
                                      .dx = {dx.data(), M, kChannels},
                                      .dweight = {dweight.data(), V, kChannels},
                                      .sums = &sums});
    benchmark::DoNotOptimize(sums.loss);
  }
  count_flops(state, 6.0 * static_cast<double>(M * V * kChannels));
}

// qkv; an output map; the two maps of the MLP.
void model_sizes(benchmark::internal::Benchmark* bench) {
  for (int threads : {1, 2}) {
    for (const auto& [N, K] : {std::pair<Index, Index>{3 * kChannels, kChannels},
                               {kChannels, kChannels},
                               {kHidden, kChannels},
                               {kChannels, kHidden}}) {
      bench->Args({N, K, threads});
    }
  }
  bench->ArgNames({"N", "K", "threads"})->Unit(benchmark::kMicrosecond)->UseRealTime();
}
void heads(benchmark::internal::Benchmark* bench) {
  for (int threads : {1, 2}) {
    for (const Index V : {kChannels, Index{8192}}) {
      for (const Index chunk : {ops::logit_chunk_rows(Device::cpu, V), Index{0}}) {
        bench->Args({V, chunk, threads});
      }
    }
  }
  bench->ArgNames({"V", "chunk", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime();
}
void thread_counts(benchmark::internal::Benchmark* bench) {
  bench->Arg(1)->Arg(2)->ArgName("threads")->Unit(benchmark::kMicrosecond)->UseRealTime();
}

BENCHMARK(linear_forward)->Apply(model_sizes);
BENCHMARK(linear_backward)->Apply(model_sizes);
BENCHMARK(layer_norm)->Apply(thread_counts);
BENCHMARK(gelu)->Apply(thread_counts);
BENCHMARK(optimiser)->Apply(thread_counts);
BENCHMARK(cross_entropy)->Apply(thread_counts);
BENCHMARK(linear_cross_entropy)->Apply(heads);

}  // namespace
}  // namespace vla_bench

BENCHMARK_MAIN();
