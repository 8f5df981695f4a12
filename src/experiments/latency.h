// latency: timing of the mixers' cores without projections, after a check of their results.
//
// What a row measures. Production code runs in float, the reference in double. "forward" is
// inference (nothing kept for a backward), "backward" only the backward, after one forward.
//   CPU  repeated calls on the same buffers, so inputs, outputs and code are as warm as the caches
//        can hold them.
//   GPU  by CUDA events, without the host (bench/device_timer.h), cycling through sets of buffers
//        that together exceed twice the L2 cache: inputs come from memory, as they do in a
//        model whose other layers ran in between. (512 sets at most: of 64 tokens in bfloat16, as
//        cuDNN reads them, that many just exceed the cache once.)
//
// precision: that of the core's products: the config's for softmax on a GPU, bf16 for cuDNN,
// float64 for the reference, else float32. flop, bytes: counted from the mathematics
// (mixers/work.h), the same for every implementation except for the size of a number; flop_per_s
// and bytes_per_s are these over the median. sgemm_flop_per_s, copy_bytes_per_s: the machine's
// rates in the same process (bench/ceilings.h) at the row's precision; none is measured in float64.
// state_bytes: recurrent state (softmax: K V cache) of the whole batch at the end of the sequence.
// activation_bytes: what a forward that trains keeps for its backward, in both passes' rows.
// relative_error: half the width of the median's 95% interval over the median, empty with too few
// repeats. An ok row that did not reach the config's says so in its reason. A core that disagrees
// with the reference has failed; when the mathematics leaves the range of float32 the row is
// diverged. Neither is timed. The check covers all values over 64 tokens
// (verify_against_reference), and part of them over the whole length (whole_length.h).
#pragma once

#include <algorithm>

#include "experiments/declaration.h"

namespace vla_bench {

struct Latency : Experiment {
  static constexpr std::string_view name = "latency";
  static constexpr std::string_view reads[] = {"model.n_heads", "model.d_h", "model.d_v",
                                               "task.seq_len", "latency"};
  static constexpr bool is_timed = true;
  static constexpr Index cells_per_gpu = 1;

  static Index sequence_length(const RunConfig& config) {
    return config.task.seq_len.value_or(1024);
  }
  static void validate(const RunConfig& config) {
    const LatencyConfig& latency = config.latency;
    require(latency.min_repeats <= latency.max_repeats, "/latency/min_repeats",
            "at most latency.max_repeats ({}), got {}", latency.max_repeats, latency.min_repeats);
    require_distinct(latency.passes, "/latency/passes");
    require_distinct(latency.implementations, "/latency/implementations");
  }
  static const Schema& table() {
    static const Schema schema{name,
                               {label,
                                mixer,
                                implementation,
                                device,
                                batch,
                                n_heads,
                                d_h,
                                seq_len,
                                pass,
                                median_s,
                                p10_s,
                                p90_s,
                                repeats,
                                relative_error,
                                state_bytes,
                                activation_bytes,
                                precision,
                                Columns::flop,
                                flop_per_s,
                                bytes,
                                bytes_per_s,
                                sgemm_flop_per_s,
                                copy_bytes_per_s,
                                status,
                                reason}};
    return schema;
  }
  /// "latency_summary", "latency_fit" and "latency_crossover".
  ///
  /// A row of the summary is one pass of one implementation at one length, of cells that differ
  /// only in the seed and ran on one processor (or GPU) with one number of threads, by their
  /// provenance. Over several seeds: the median of the medians, the smallest p10, the largest p90,
  /// the sum of the repeats, the largest relative_error. `note` says when a timing did not reach
  /// its config's relative_error.
  ///
  /// A line of the fit has all lengths of such rows, for any number of repeats and any other
  /// timings in the config; cells that differ in anything else are other lines. `cells` and
  /// `not_ok` of fits and crossovers count all timings behind them, the baseline's included. Each
  /// line except softmax's has a crossover with every softmax of its setting (reference or not,
  /// device, processor, threads, batch, n_heads, d_h, pass): one for each implementation and
  /// precision, if possible one timed like the mixer (repeats and so on), else the first label; the
  /// columns baseline, baseline_implementation and baseline_precision name it. seq_len_low is empty
  /// when the mixer may be cheaper below the shortest length, seq_len_high when there is no upper
  /// bound.
  static std::vector<Table> summarise(std::span<const CellGroup> groups);
  static Index work(const RunConfig& config);
  static double seconds(const RunConfig& config, double flop, Device device, int threads);
  static CellResult run(const CellConfig& cell, const CellEnvironment& environment);

 private:
  template <class E>
  static void require_distinct(std::vector<E> values, std::string_view pointer) {
    std::sort(values.begin(), values.end());
    const auto twice = std::adjacent_find(values.begin(), values.end());
    if (twice != values.end()) require(false, pointer, "{} stands twice", enum_name(*twice));
  }
};

}  // namespace vla_bench
