#include "experiments/latency.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>
#include <vector>

#include "bench/ceilings.h"
#include "bench/device_timer.h"
#include "bench/stopwatch.h"
#include "core/count.h"
#include "core/error.h"
#include "experiments/core_buffers.h"
#include "experiments/cost.h"
#include "experiments/experiment.h"
#include "experiments/latency_verification.h"
#include "experiments/record.h"
#include "experiments/reference_range.h"
#include "experiments/whole_length.h"
#include "mixers/registry.h"
#include "mixers/work.h"

namespace vla_bench {
namespace {

// For plain double loops: longer sequences would take minutes and give no new information.
constexpr Index kLongestReference = 1024;

// One launch per token, and a stream queues 1,024 launches: more could not all wait behind the
// kernel that holds the stream (bench/device_timer.h).
constexpr Index kLongestSequential = 512;

HeadDims timed_dims(const RunConfig& config) {
  return head_dims(config.model, config.latency.batch, sequence_length(config));
}

/// Most calls of a pass, timed or not: measure_device warms up with at least two, and discards few
/// samples, since each discarded one doubles the hold.
Index most_calls(const LatencyConfig& latency) {
  constexpr Index kLateSamples = 16;
  return std::max<Index>(latency.warmup, 2) + latency.max_repeats + kLateSamples;
}

TimingRule timing_rule(const LatencyConfig& latency, const CellEnvironment& environment) {
  return {.warmup = latency.warmup,
          .min_repeats = latency.min_repeats,
          .max_repeats = latency.max_repeats,
          .relative_error = latency.relative_error,
          .max_seconds = latency.max_seconds,
          .stop = environment.stop};
}

/// The remark on a median whose relative error is larger than requested; else empty.
std::string shortfall(const LatencyConfig& latency, const Timing& timing) {
  const std::optional<double> reached = timing.relative_error;
  if (reached && *reached <= latency.relative_error) return {};
  const std::string missed = fmt::format("relative_error {} not reached: ", latency.relative_error);
  if (!reached) return missed + fmt::format("{} repeats are too few to tell", timing.repeats);
  return missed + fmt::format("{:.2g} after {} repeats", *reached, timing.repeats);
}

/// The precision of a core's products; empty for the reference, which computes in float64.
std::optional<Precision> row_precision(const RunConfig& config, const Context& context,
                                       Implementation implementation, LatencyPass pass) {
  if (implementation == Implementation::reference) return {};
  return implementation_precision(config.mixers.front(), context.device, implementation, pass,
                                  context.precision);
}

/// Bytes of a stored number. Of the implementations that follow bf16 softmax's own stores float32.
Index element_bytes(Implementation implementation, std::optional<Precision> precision) {
  if (!precision) return 8;
  const bool stores_bf16 =
      implementation == Implementation::cudnn || implementation == Implementation::chunked;
  return stores_bf16 && *precision == Precision::bf16 ? 2 : 4;
}

Work work_of(const RunConfig& config, const Context& context, Implementation implementation,
             LatencyPass pass) {
  const auto precision = row_precision(config, context, implementation, pass);
  return core_work(config.mixers.front(), timed_dims(config), pass,
                   element_bytes(implementation, precision));
}

/// The buffers that timed calls cycle through: one set on the CPU, to stay in the caches, else more
/// than the L2 cache holds.
template <class T>
class BufferRound {
 public:
  BufferRound(const RunConfig& config, const Context& context, Implementation implementation,
              const MixerCore<T>& core) {
    const HeadDims dims = timed_dims(config);
    sets_.emplace_back(config.mixers.front(), dims, context,
                       static_cast<std::uint64_t>(config.seeds.front()));
    if (context.device == Device::cpu) return;
    const GpuMemory gpu = gpu_memory();
    // A forward touches less than a backward, so enough sets for it are enough for both.
    const Index touched = work_of(config, context, implementation, LatencyPass::forward).bytes;
    const Index count =
        buffer_sets(gpu.l2_bytes, gpu.free_bytes, touched,
                    sets_.front().bytes() + core.saved_bytes(dims), most_calls(config.latency));
    sets_.reserve(static_cast<std::size_t>(count));
    for (Index i = 1; i < count; ++i) sets_.emplace_back(sets_.front(), i);
  }

  CoreBuffers<T>& at(Index call) { return sets_[static_cast<std::size_t>(call) % sets_.size()]; }
  auto begin() { return sets_.begin(); }
  auto end() { return sets_.end(); }

 private:
  std::vector<CoreBuffers<T>> sets_;
};

template <class T>
Timing time_pass(const RunConfig& config, const CellEnvironment& environment, LatencyPass pass,
                 MixerCore<T>& core, BufferRound<T>& buffers) {
  const Context& context = environment.context;
  const auto forward = [&](Index call) {
    CoreBuffers<T>& set = buffers.at(call);
    core.forward(context, set.inputs(), set.output(), nullptr);
  };
  const auto backward = [&](Index call) {
    CoreBuffers<T>& set = buffers.at(call);
    core.backward(context, set.inputs(), set.gradients(), set.saved);
  };
  if (pass == LatencyPass::backward) {
    for (CoreBuffers<T>& set : buffers) {
      core.forward(context, set.inputs(), set.output(), &set.saved);
    }
  }
  const std::function<void(Index)> body =
      pass == LatencyPass::forward ? std::function<void(Index)>(forward) : backward;
  const TimingRule rule = timing_rule(config.latency, environment);
  if (context.device == Device::cuda) return measure_device(rule, body);
  return measure(rule, [&] { body(0); });
}

/// A failed row fails the cell; other rows that are not ok decide its status when nothing was
/// timed.
void summarise_rows(CellResult& result) {
  const std::size_t status = result.table.column(Columns::status);
  const std::size_t reason = result.table.column(Columns::reason);
  for (const CellStatus candidate :
       {CellStatus::failed, CellStatus::ok, CellStatus::diverged, CellStatus::skipped}) {
    for (const std::vector<Value>& row : result.table.rows) {
      if (std::get<std::string>(row[status]) != status_name(candidate)) continue;
      result.status = candidate;
      if (candidate == CellStatus::ok) return;  // what such a row adds is about itself
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

  /// Checks and times every pass of `core`; false when the user stopped the run.
  template <class T>
  bool time(MixerCore<T>& core) {
    const Context& context = environment_.context;
    BufferRound<T> buffers(config_, context, implementation_, core);
    for (CoreBuffers<T>& set : buffers) {
      const CoreGradients<T> gradients = set.gradients();
      prepare_core(core, context, set.inputs(), &gradients);
    }
    for (const LatencyPass pass : config_.latency.passes) {
      if (const Support support = pass_support(implementation_, pass); !support.ok) {
        add_untimed(pass, CellStatus::skipped, support.reason);
        continue;
      }
      const PassVerdict verdict = check(core, pass, buffers);
      if (verdict.status != CellStatus::ok) {
        add_untimed(pass, verdict.status, verdict.reason);
        continue;
      }
      const Timing timing = time_pass(config_, environment_, pass, core, buffers);
      if (environment_.stop && environment_.stop->load()) return false;
      add_timing(core, pass, timing);
    }
    if (result_.warning.empty()) result_.warning = core.warning();
    return true;
  }

  /// One row with the reason for every pass without one.
  void refuse(CellStatus status, const std::string& reason) {
    for (const LatencyPass pass : config_.latency.passes) {
      if (std::find(finished_.begin(), finished_.end(), pass) != finished_.end()) continue;
      add_untimed(pass, status, reason);
    }
  }

 private:
  /// Checks every set of buffers; compares values of the first, which the others have rotated.
  template <class T>
  PassVerdict check(MixerCore<T>& core, LatencyPass pass, BufferRound<T>& buffers) const {
    const auto precision = row_precision(config_, environment_.context, implementation_, pass);
    const WholeLengthCheck<T> whole(config_, environment_.context,
                                    allowed_error(precision.value_or(Precision::float32)),
                                    environment_.stop);
    for (CoreBuffers<T>& set : buffers) {
      const PassVerdict verdict = whole.finite(core, pass, set);
      if (verdict.status != CellStatus::ok) return verdict;
    }
    return whole.values(buffers.at(0));
  }

  void add_untimed(LatencyPass pass, CellStatus status, const std::string& reason) {
    result_.table.add(row(pass).set_status(status, reason).values());
    finished_.push_back(pass);
  }

  template <class T>
  void add_timing(const MixerCore<T>& core, LatencyPass pass, const Timing& timing) {
    const HeadDims dims = timed_dims(config_);
    const auto precision = row_precision(config_, environment_.context, implementation_, pass);
    Context at_precision = environment_.context;
    at_precision.precision = precision.value_or(Precision::float32);
    const Ceilings& ceilings = measured_ceilings(at_precision);
    Record record = row(pass);
    record.set(Columns::median_s, timing.median_s)
        .set(Columns::p10_s, timing.p10_s)
        .set(Columns::p90_s, timing.p90_s)
        .set(Columns::repeats, timing.repeats)
        .set(Columns::state_bytes, core.state_bytes(dims))
        .set(Columns::activation_bytes, core.saved_bytes(dims))
        .set(Columns::copy_bytes_per_s, ceilings.bytes_per_s);
    const Work work = work_of(config_, environment_.context, implementation_, pass);
    record.set(Columns::flop_per_s, static_cast<double>(work.flop) / timing.median_s)
        .set(Columns::bytes_per_s, static_cast<double>(work.bytes) / timing.median_s);
    if (precision) record.set(Columns::sgemm_flop_per_s, ceilings.flops_per_s);
    if (timing.relative_error) record.set(Columns::relative_error, *timing.relative_error);
    record.set_status(CellStatus::ok, shortfall(config_.latency, timing));
    result_.table.add(record.values());
    finished_.push_back(pass);
  }

  Record row(LatencyPass pass) const {
    const auto precision = row_precision(config_, environment_.context, implementation_, pass);
    const Work work = work_of(config_, environment_.context, implementation_, pass);
    Record record(Latency::table(), config_, environment_.context.device);
    record
        .set(Columns::implementation,
             std::string(implementation_label(config_.mixers.front(), implementation_)))
        .set(Columns::pass, std::string(enum_name(pass)))
        .set(Columns::precision, std::string(precision ? enum_name(*precision) : "float64"))
        .set(Columns::flop, work.flop)
        .set(Columns::bytes, work.bytes);
    return record;
  }

  const RunConfig& config_;
  const CellEnvironment& environment_;
  Implementation implementation_;
  CellResult& result_;
  std::vector<LatencyPass> finished_;
};

/// Each implementation of the config once, `production` by what it is.
std::vector<Implementation> timed_implementations(const RunConfig& config, Device device) {
  std::vector<Implementation> timed;
  for (Implementation implementation : config.latency.implementations) {
    implementation = resolved(implementation, config.mixers.front(), timed_dims(config), device);
    if (std::ranges::find(timed, implementation) == timed.end()) timed.push_back(implementation);
  }
  return timed;
}

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
    return rows.time(*make_mixer_core<double>(mixer, d_h, context.device, implementation));
  }
  if (implementation == Implementation::sequential) {
    if (sequence_length(config) > kLongestSequential) {
      rows.refuse(CellStatus::skipped,
                  fmt::format("sequential is timed up to {} tokens", kLongestSequential));
      return true;
    }
    if (config.model.value_channels() != d_h) {
      rows.refuse(CellStatus::skipped, "sequential has no values wider than its keys");
      return true;
    }
  }
  const auto core = make_mixer_core<float>(mixer, d_h, context.device, implementation);
  const std::string difference = verify_against_reference(config, context, implementation, *core);
  if (!difference.empty()) {
    const std::string excess = beyond_float32(config, context);
    if (!excess.empty()) {
      rows.refuse(CellStatus::diverged, excess);
    } else {
      rows.refuse(CellStatus::failed, difference);
    }
    return true;
  }
  // Before the timings, so that the GPU runs at its sustained clock.
  Context at_precision = context;
  at_precision.precision = implementation_precision(mixer, context.device, implementation,
                                                    LatencyPass::forward, context.precision);
  measured_ceilings(at_precision);
  return rows.time(*core);
}

}  // namespace

Index Latency::work(const RunConfig& config) {
  const LatencyConfig& latency = config.latency;
  Index passes = 0;
  for (const LatencyPass pass : latency.passes) {
    passes = plus({passes, cores_flop(config, pass, latency.batch, 1)});
  }
  return times({static_cast<Index>(latency.implementations.size()),
                plus({latency.warmup, latency.min_repeats}), passes});
}

CellResult Latency::run(const CellConfig& cell, const CellEnvironment& environment) {
  CellResult result;
  result.table = Table(Latency::table());
  for (const Implementation implementation :
       timed_implementations(cell.config, environment.context.device)) {
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
