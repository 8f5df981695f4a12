#include "experiments/latency.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "bench/stopwatch.h"
#include "core/error.h"
#include "experiments/core_buffers.h"
#include "experiments/experiment.h"
#include "experiments/record.h"
#include "experiments/reference_range.h"
#include "mixers/registry.h"

namespace vla_bench {
namespace {

constexpr Index kVerifiedTokens = 64;

// binary32 rounding (6e-8) summed over 64 tokens and amplified by the conditioning of a step (a few
// hundred at the published lambda_0) stays below 1e-3; a wrong kernel is off by order 1.
constexpr double kVerifyTolerance = 1e-3;

// Some gradients vanish but for rounding; measure them against the file's largest instead.
constexpr double kGradientFloor = 1e-3;

// Plain double loops: longer sequences would cost minutes and say nothing new.
constexpr Index kLongestReference = 1024;

HeadDims head_dims(const RunConfig& config, Index tokens) {
  return {.batch = config.latency.batch,
          .tokens = tokens,
          .heads = config.model.n_heads,
          .d_h = config.model.d_h};
}

std::uint64_t input_seed(const RunConfig& config) {
  return static_cast<std::uint64_t>(config.seeds.front());
}

double largest(const std::vector<double>& values) {
  double result = 0.0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// max |actual - expected| / max(max |expected|, floor); infinity when a value is not a number.
double relative_error(const std::vector<float>& actual, const std::vector<double>& expected,
                      double floor) {
  const double scale = std::max({largest(expected), floor, 1e-300});
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]) / scale;
    if (!std::isfinite(error)) return HUGE_VAL;
    worst = std::max(worst, error);
  }
  return worst;
}

template <class T>
void run_both_passes(const Context& context, MixerCore<T>& core, CoreBuffers<T>& buffers) {
  core.forward(context, buffers.inputs(), buffers.output(), &buffers.saved);
  core.backward(context, buffers.inputs(), buffers.gradients(), buffers.saved);
}

/// Waits for the device: copies are synchronous and come after the work before them.
template <class T>
void wait_for(const Array<T>& result) {
  T first{};
  device_copy(Device::cpu, &first, result.device(), result.data(), sizeof(T));
}

template <class T>
Timing time_pass(const RunConfig& config, const CellEnvironment& environment, LatencyPass pass,
                 MixerCore<T>& core, CoreBuffers<T>& buffers) {
  const Context& context = environment.context;
  const LatencyConfig& latency = config.latency;
  const TimingRule rule{.warmup = latency.warmup,
                        .min_repeats = latency.min_repeats,
                        .max_repeats = latency.max_repeats,
                        .relative_error = latency.relative_error,
                        .max_seconds = latency.max_seconds,
                        .stop = environment.stop};
  if (pass == LatencyPass::forward) {
    return measure(rule, [&] {
      core.forward(context, buffers.inputs(), buffers.output(), nullptr);
      wait_for(buffers.o);
    });
  }
  core.forward(context, buffers.inputs(), buffers.output(), &buffers.saved);
  return measure(rule, [&] {
    core.backward(context, buffers.inputs(), buffers.gradients(), buffers.saved);
    wait_for(buffers.d_projections);
  });
}

/// A failed row fails the cell; others that are not ok decide when nothing was timed.
void summarise_rows(CellResult& result) {
  const std::size_t status = result.table.column("status");
  const std::size_t reason = result.table.column("reason");
  for (const CellStatus candidate :
       {CellStatus::failed, CellStatus::ok, CellStatus::diverged, CellStatus::skipped}) {
    for (const std::vector<Value>& row : result.table.rows) {
      if (std::get<std::string>(row[status]) != status_name(candidate)) continue;
      result.status = candidate;
      if (const auto* text = std::get_if<std::string>(&row[reason])) result.reason = *text;
      return;
    }
  }
}

/// The rows of one implementation, one per pass.
class ImplementationRows {
 public:
  ImplementationRows(const RunConfig& config, const CellEnvironment& environment,
                     Implementation implementation, CellResult& result)
      : config_(config),
        environment_(environment),
        implementation_(implementation),
        result_(result) {}

  /// Times every pass of `core`; false when the user stopped the run.
  template <class T>
  bool time(MixerCore<T>& core) {
    const Context& context = environment_.context;
    const HeadDims dims = head_dims(config_, sequence_length(config_));
    CoreBuffers<T> buffers(config_.mixers.front(), dims, context, input_seed(config_));
    for (const LatencyPass pass : config_.latency.passes) {
      const Timing timing = time_pass(config_, environment_, pass, core, buffers);
      if (environment_.stop && environment_.stop->load()) return false;
      Record record = row(pass);
      record.set("median_s", timing.median_s)
          .set("p10_s", timing.p10_s)
          .set("p90_s", timing.p90_s)
          .set("repeats", timing.repeats)
          .set("state_bytes", core.state_bytes(dims))
          .set("activation_bytes", core.saved_bytes(dims));
      result_.table.add(record.values());
      timed_.push_back(pass);
    }
    return true;
  }

  /// One row with the reason for every pass not timed.
  void refuse(CellStatus status, const std::string& reason) {
    for (const LatencyPass pass : config_.latency.passes) {
      if (std::find(timed_.begin(), timed_.end(), pass) != timed_.end()) continue;
      result_.table.add(row(pass).set_status(status, reason).values());
    }
  }

 private:
  Record row(LatencyPass pass) const {
    Record record(latency_schema(), config_, environment_.context.device);
    record
        .set("implementation",
             std::string(implementation_label(config_.mixers.front(), implementation_)))
        .set("pass", std::string(enum_name(pass)));
    return record;
  }

  const RunConfig& config_;
  const CellEnvironment& environment_;
  Implementation implementation_;
  CellResult& result_;
  std::vector<LatencyPass> timed_;
};

/// False when the user stopped the run.
bool run_implementation(const RunConfig& config, const CellEnvironment& environment,
                        Implementation implementation, ImplementationRows& rows) {
  const MixerConfig& mixer = config.mixers.front();
  const Context& context = environment.context;
  const Index d_h = config.model.d_h;
  const Support support = mixer_support(mixer, d_h, context.device, implementation);
  if (!support.ok) {
    rows.refuse(CellStatus::skipped, support.reason);
    return true;
  }
  if (implementation == Implementation::reference) {
    if (sequence_length(config) > kLongestReference) {
      rows.refuse(CellStatus::skipped,
                  fmt::format("the reference is timed up to {} tokens", kLongestReference));
      return true;
    }
    if (const std::string excess = beyond_float32(config, context); !excess.empty()) {
      rows.refuse(CellStatus::diverged, excess);
      return true;
    }
    return rows.time(*make_mixer_core<double>(mixer, d_h, context.device, implementation));
  }
  const auto core = make_mixer_core<float>(mixer, d_h, context.device, implementation);
  const std::string difference = verify_against_reference(config, context, *core);
  if (!difference.empty()) {
    const std::string excess = beyond_float32(config, context);
    if (!excess.empty()) {
      rows.refuse(CellStatus::diverged, excess);
    } else {
      rows.refuse(CellStatus::failed, difference);
    }
    return true;
  }
  return rows.time(*core);
}

}  // namespace

std::string verify_against_reference(const RunConfig& config, const Context& context,
                                     MixerCore<float>& production) {
  const MixerConfig& mixer = config.mixers.front();
  const Context cpu{Device::cpu, context.threads};
  const HeadDims dims = head_dims(config, std::min(sequence_length(config), kVerifiedTokens));
  CoreBuffers<float> actual(mixer, dims, context, input_seed(config));
  CoreBuffers<double> expected(mixer, dims, cpu, input_seed(config));
  run_both_passes(context, production, actual);
  const auto reference =
      make_mixer_core<double>(mixer, config.model.d_h, Device::cpu, Implementation::reference);
  run_both_passes(cpu, *reference, expected);

  const std::vector<double> d_projections = to_host(expected.d_projections);
  const double floor = kGradientFloor * largest(d_projections);
  const struct {
    const char* name;
    double error;
  } comparisons[] = {
      {"o", relative_error(to_host(actual.o), to_host(expected.o), 0.0)},
      {"dq, dk, dv", relative_error(to_host(actual.d_projections), d_projections, floor)},
      {"daux", relative_error(to_host(actual.d_aux), to_host(expected.d_aux), floor)},
  };
  for (const auto& [name, error] : comparisons) {
    if (!(error <= kVerifyTolerance)) {
      return fmt::format(
          "[{}] {}: relative error {:.3g} against the reference over {} tokens, over "
          "{:g}",
          enum_name(mixer.mixer), name, error, dims.tokens, kVerifyTolerance);
    }
  }
  return {};
}

CellResult run_latency(const CellConfig& cell, const CellEnvironment& environment) {
  CellResult result;
  result.table = Table(latency_schema());
  for (const Implementation implementation : cell.config.latency.implementations) {
    ImplementationRows rows(cell.config, environment, implementation, result);
    bool going_on = true;
    try {
      going_on = run_implementation(cell.config, environment, implementation, rows);
    } catch (const std::bad_alloc&) {
      rows.refuse(CellStatus::failed, "out of memory");
    } catch (const RunError& error) {
      rows.refuse(CellStatus::failed, error.what());
    }
    if (!going_on) return unmeasured(cell, environment, CellStatus::interrupted, "stopped");
  }
  summarise_rows(result);
  return result;
}

}  // namespace vla_bench
