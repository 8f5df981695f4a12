// One whole training step (batch, forward, backward, clipping, AdamW) of the published model at
// n = 24 on a GPU: batch 64, T = 73, d_model 128, 4 heads, 2 layers, as a CUDA graph that is
// captured once and replayed, as in the training loop. Prints one row per mixer; exit status 1 when
// a step takes longer than its limit.
//   training_step_cuda_benchmark [float32|tf32|bf16]
//   training_step_cuda_benchmark float32|tf32|bf16 head
//   training_step_cuda_benchmark float32|tf32|bf16 CONFIG
// The second form times only the head, loss and gradients, at the published size and at zoology's
// (batch 256, 64 targets a row, V = 8,192), in chunks of rows and with all logits held. The third
// times a step of each size of task.train_segments, for each model and mixer of a config.
//
// Counted work, two operations per multiply-add: weights in products x 4,672 tokens x 6 (forward,
// dx, dW), the head over the 1,536 positions with a target, and three times the forward of the
// cores (the backward counts as two forwards; recomputation is not counted):
//   softmax 8.0, linear 8.0, DeltaNet 9.1, VLA 9.8 GFLOP
// which an H200 at its float32 peak (132 multiprocessors x 128 units x 2 x 1.98 GHz = 67 TFLOP/s)
// would do in 0.12 to 0.15 ms. `floor_ms` uses the measured SGEMM rate of the same run instead of
// that peak, or the bytes (activations written and read once, parameters and their moments read and
// written) over the measured copy bandwidth where that is longer. It leaves out the latency of a
// recurrence, which is independent of the rate: 73 tokens, one after the other, forward and twice
// backward, in two layers.
//
// Reached on an H200, with a floor of 0.16, 0.16, 0.18 and 0.20 ms at the 50 TFLOP/s of that run:
//   softmax 0.499, linear 0.572, DeltaNet 0.697, VLA 0.848 ms
// The rest is the chain of dependent kernels, most of them 5 to 20 us long with fewer thread blocks
// than the GPU has room for, and in the recurrent mixers the scan.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/read.h"
#include "core/error.h"
#include "core/statistics.h"
#include "mixers/registry.h"
#include "mixers/work.h"
#include "ops/ops.h"
#include "train/training_step.h"

namespace vla_bench {
namespace {

using Clock = std::chrono::steady_clock;

// A wait costs some 10 microseconds, which is negligible over 20 steps. The median of 50 such
// blocks ignores a few disturbed ones.
constexpr int kBlocks = 50;
constexpr int kStepsPerBlock = 20;
constexpr int kWarmUpSteps = 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The shortest time of ten calls of `work`, which waits for the device.
template <class Work>
double shortest_seconds(const Work& work) {
  work();
  double best = 1e30;
  for (int repeat = 0; repeat < 10; ++repeat) {
    const Clock::time_point start = Clock::now();
    work();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

Array<float> varied_array(Index size, float scale = 0.01F) {
  std::vector<float> host(static_cast<std::size_t>(size));
  // Not zeros, which would draw less power, and so clock higher, than any real product.
  for (std::size_t i = 0; i < host.size(); ++i) host[i] = scale * static_cast<float>(i % 1009);
  Array<float> array(Device::cuda, size);
  device_copy(Device::cuda, array.data(), Device::cpu, host.data(), host.size() * sizeof(float));
  return array;
}

/// FLOP/s of a product large enough to fill any GPU.
double product_rate(const Context& context) {
  constexpr Index kSize = 4096;
  const Array<float> x = varied_array(kSize * kSize), w = varied_array(kSize * kSize);
  Array<float> y(Device::cuda, kSize * kSize);
  const double seconds = shortest_seconds([&] {
    ops::linear_forward<float>(context, {.x = {x.data(), kSize, kSize},
                                         .weight = {w.data(), kSize, kSize},
                                         .y = {y.data(), kSize, kSize}});
    device_wait(Device::cuda);
  });
  return 2.0 * kSize * kSize * kSize / seconds;
}

/// Bytes/s of a copy from device memory to device memory, counting what is read and written.
double copy_rate() {
  constexpr Index kBytes = Index{1} << 30;  // far beyond any cache
  const Array<char> from(Device::cuda, kBytes);
  Array<char> to(Device::cuda, kBytes);
  const double seconds = shortest_seconds(
      [&] { device_copy(Device::cuda, to.data(), Device::cuda, from.data(), kBytes); });
  return 2.0 * static_cast<double>(kBytes) / seconds;
}

double counted_flop(const RunConfig& config, TinyLm<float>& model) {
  const auto tokens = static_cast<double>(sequence_length(config));
  const double rows = static_cast<double>(config.train.batch) * tokens;
  const auto d_model = static_cast<double>(config.model.d_model());
  double weights = 0.0;
  for (const Parameter& parameter : model.parameters().all()) {
    const bool is_table = parameter.name == "tok.weight" || parameter.name == "pos.weight";
    if (parameter.shape.size() >= 2 && !is_table) weights += static_cast<double>(parameter.size());
  }
  const double head_rows = static_cast<double>(config.train.batch * targets_per_row(config));
  const double head = static_cast<double>(config.model.vocab_size) * d_model;
  const HeadDims dims{.batch = config.train.batch,
                      .tokens = sequence_length(config),
                      .heads = config.model.n_heads,
                      .d_h = config.model.d_h};
  const Work core = core_work(config.mixers.front(), dims, LatencyPass::forward, sizeof(float));
  const double cores = static_cast<double>(config.model.mixer_layers() * core.flop);
  // Two operations per multiply-add; a backward counts as two forwards.
  return 3.0 * (2.0 * (rows * weights + head_rows * head) + cores);
}

/// Bytes moved: activations written and read once; value, gradient and two moments read, value and
/// moments written.
double counted_bytes(const RunConfig& config, TinyLm<float>& model) {
  constexpr double kPassesOverParameters = 7.0;
  return 2.0 * static_cast<double>(model.activation_bytes(
                   config.train.batch, sequence_length(config), targets_per_row(config))) +
         kPassesOverParameters * sizeof(float) * static_cast<double>(model.values().size());
}

struct Ceilings {
  double flop_per_s = 0.0, bytes_per_s = 0.0;
};

/// Times of `blocks` blocks of kStepsPerBlock calls, in milliseconds a call.
template <class Request>
std::vector<double> block_milliseconds(const Request& request, int blocks = kBlocks) {
  for (int i = 0; i < kWarmUpSteps; ++i) request();
  device_wait(Device::cuda);
  std::vector<double> milliseconds;
  for (int block = 0; block < blocks; ++block) {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < kStepsPerBlock; ++i) request();
    device_wait(Device::cuda);
    milliseconds.push_back(seconds_since(start) * 1e3 / kStepsPerBlock);
  }
  return milliseconds;
}

struct StepTimes {
  double median_ms = 0.0, p10_ms = 0.0, p90_ms = 0.0;
  double gflop = 0.0, megabytes = 0.0, floor_ms = 0.0;
};

/// Times steps of the config's first mixer; throws RunError when they are not all counted.
StepTimes time_steps(const Context& context, const RunConfig& config, const Ceilings& ceilings,
                     int blocks) {
  TinyLm<float> model(config.model, config.mixers.front(), context);
  model.initialise(42);
  OptimiserState<float> optimiser(context, model.values().size());
  TrainingStep<float> step(context, config, model, optimiser);

  const std::vector<double> milliseconds = block_milliseconds([&] { step.request(); }, blocks);

  const ops::TrainingState state = optimiser.read();
  const Index steps = kWarmUpSteps + blocks * kStepsPerBlock;
  if (state.diverged != 0 || state.step != steps) {
    throw RunError(
        fmt::format("{} of {} steps counted, loss {}", state.step, steps, state.loss.loss));
  }
  const double flop = counted_flop(config, model);
  const double bytes = counted_bytes(config, model);
  return {.median_ms = quantile(milliseconds, 0.5),
          .p10_ms = quantile(milliseconds, 0.1),
          .p90_ms = quantile(milliseconds, 0.9),
          .gflop = flop * 1e-9,
          .megabytes = bytes * 1e-6,
          .floor_ms = 1e3 * std::max(flop / ceilings.flop_per_s, bytes / ceilings.bytes_per_s)};
}

/// Times one mixer and prints its row; returns whether a step took at most `most_ms`.
bool time_mixer(const Context& context, const MixerConfig& mixer, double most_ms,
                const Ceilings& ceilings) {
  RunConfig config;
  config.mixers = {mixer};
  config.task.n_pairs = 24;
  const StepTimes times = time_steps(context, config, ceilings, kBlocks);
  const bool in_time = times.median_ms <= most_ms;
  fmt::print(
      "| {:8} | {:9} | {:9.3f} | {:6.3f} | {:6.3f} | {:7.3f} | {:5.2f} | {:5.0f} | {:8.3f} |"
      " {:7} |\n",
      mixer.name(), enum_name(context.precision), times.median_ms, times.p10_ms, times.p90_ms,
      most_ms, times.gflop, times.megabytes, times.floor_ms, in_time ? "ok" : "over");
  return in_time;
}

/// Times each size that the config trains on, once for each mixer and model: cells that differ in
/// the learning rate or seed do the same work.
void time_sizes(const Context& context, const std::string& file, const Ceilings& ceilings) {
  constexpr int kFewBlocks = 5;
  fmt::print(
      "| mixer            | d_model | tokens/pairs | median_ms | GFLOP |    MB | floor_ms |\n"
      "| ---------------- | ------: | -----------: | --------: | ----: | ----: | -------: |\n");
  std::set<std::pair<std::string, Index>> timed;
  for (const CellConfig& cell : expand_cells(read_config(file, {}), Device::cuda)) {
    const std::string label = mixer_label(cell.config.mixers.front());
    const Index d_model = cell.config.model.d_model();
    if (!timed.emplace(label, d_model).second) continue;
    const TrainSizes sizes(cell.config);
    for (const RunConfig& sized : sizes.configs()) {
      const StepTimes times = time_steps(context, sized, ceilings, kFewBlocks);
      fmt::print("| {:16.16} | {:7} | {:>12} | {:9.3f} | {:5.1f} | {:5.0f} | {:8.3f} |\n", label,
                 d_model, slice_name(sequence_length(sized), sized.task.n_pairs), times.median_ms,
                 times.gflop, times.megabytes, times.floor_ms);
      std::fflush(stdout);
    }
  }
}

/// Times the head of M targets in chunks of `chunk` rows, as a replayed graph, and prints its row.
void time_head(const Context& context, Index M, Index V, Index D, Index chunk,
               const Ceilings& ceilings) {
  // Logits of order one: no gradient vanishes.
  const Array<float> x = varied_array(M * D, 1e-4F), weight = varied_array(V * D, 1e-4F);
  const Array<std::int32_t> targets(context.device, M);
  Array<float> logits(context.device, chunk * V), dx(context.device, M * D);
  Array<float> dweight(context.device, V * D);
  Array<ops::LossSums> sums(context.device, 1);
  const auto request = [&] {
    ops::linear_cross_entropy<float>(context, {.x = {x.data(), M, D},
                                               .weight = {weight.data(), V, D},
                                               .targets = targets.data(),
                                               .logits = {logits.data(), chunk, V},
                                               .dx = {dx.data(), M, D},
                                               .dweight = {dweight.data(), V, D},
                                               .sums = sums.data()});
    ops::join_side_streams(context);
  };
  request();
  device_wait(context.device);
  Replay replay(context.device, request);
  const double median = quantile(block_milliseconds([&] { replay.run(); }), 0.5);
  const double flop = 6.0 * static_cast<double>(M * V * D);
  // All logits cross memory five times; those of a chunk stay in the cache.
  const double bytes = chunk < M ? 0.0 : 5.0 * static_cast<double>(logits.bytes());
  const double floor = 1e3 * std::max(flop / ceilings.flop_per_s, bytes / ceilings.bytes_per_s);
  fmt::print("| {:6} | {:5} | {:3} | {:9} | {:10.1f} | {:9.3f} | {:6.1f} | {:8.3f} |\n", M, V, D,
             chunk, static_cast<double>(logits.bytes()) * 1e-6, median, flop * 1e-9, floor);
  std::fflush(stdout);
}

void time_heads(const Context& context, const Ceilings& ceilings) {
  fmt::print(
      "|   rows |     V |   D | chunk     | logits_MB  | median_ms | GFLOP  | floor_ms |\n"
      "| -----: | ----: | --: | --------: | ---------: | --------: | -----: | -------: |\n");
  struct Head {
    Index M, V, D;
  };
  for (const auto& [M, V, D] :
       {Head{64 * 24, 128, 128}, Head{256 * 64, 8192, 64}, Head{256 * 64, 8192, 128}}) {
    const Index own = ops::logit_chunk_rows(context.device, V);
    for (const Index chunk : {own / 8, own / 4, own / 2, own, 2 * own, M}) {
      if (chunk <= M) time_head(context, M, V, D, chunk, ceilings);
    }
  }
}

Precision read_precision(int argc, char** argv) {
  if (argc < 2) return Precision::float32;
  for (const auto& [precision, name] : enum_names<Precision>) {
    if (name == argv[1]) return precision;
  }
  throw BadInput(fmt::format("expected float32, tf32 or bf16, got \"{}\"", argv[1]));
}

int run(int argc, char** argv) {
  const Context context{.device = resolve_device(DeviceRequest::cuda),
                        .precision = read_precision(argc, argv)};
  const Ceilings ceilings{.flop_per_s = product_rate(context), .bytes_per_s = copy_rate()};
  fmt::print("{}\nproducts of 4096^3: {:.1f} TFLOP/s, copies: {:.2f} TB/s\n\n",
             cuda_status().detail, ceilings.flop_per_s * 1e-12, ceilings.bytes_per_s * 1e-12);
  if (argc > 2) {
    if (argv[2] == std::string_view("head")) {
      time_heads(context, ceilings);
    } else {
      time_sizes(context, argv[2], ceilings);
    }
    return kExitDone;
  }
  fmt::print(
      "| mixer    | precision | median_ms | p10_ms | p90_ms | most_ms | GFLOP |    MB | floor_ms |"
      " verdict |\n"
      "| -------- | --------- | --------: | -----: | -----: | ------: | ----: | ----: | -------: |"
      " ------- |\n");
  bool in_time = true;
  Mixers::for_each([&]<class Options>() {
    try {
      const MixerConfig mixer{.options = Options{}};
      in_time = time_mixer(context, mixer, Options::most_step_ms, ceilings) && in_time;
    } catch (const RunError& error) {
      fmt::print(stderr, "[{}] {}\n", Options::name, error.what());
      in_time = false;
    }
    std::fflush(stdout);
  });
  return in_time ? kExitDone : kExitFailedRun;
}

}  // namespace
}  // namespace vla_bench

int main(int argc, char** argv) {
  try {
    return vla_bench::run(argc, argv);
  } catch (const vla_bench::BadInput& error) {
    fmt::print(stderr, "{}\n", error.what());
    return vla_bench::kExitBadInput;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return vla_bench::kExitFailedRun;
  }
}
