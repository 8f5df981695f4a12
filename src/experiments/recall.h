// recall: how much a memory rule holds without training.
//
// One trial, n = n_pairs and d = d_h, for one memory:
//   1. n raw keys kappa_i ~ N(0, I_d); a codebook of unit vectors (normalised N(0, I_d)); n value
//      ids, drawn uniformly with replacement.
//   2. Stored key: k_i = norm(phi(kappa_i)) with keys "feature" (phi: the mixer's own feature map
//      for vla, ELU + 1 for every other mixer); k_i = norm(kappa_i) with keys "gaussian".
//   3. Penalty direction, vla with penalty "learned": u_i = u_scale norm(kappa_i), the raw key's
//      direction (what an identity W_u gives), u_scale by default 1 / sqrt(d). Penalty "key" takes
//      u_scale k_i inside the memory.
//   4. recall.stream other pairs, drawn in the same way, are written and not asked for.
//   5. All n pairs are written in order, then each k_i is read back and decoded to the codebook entry
//      of largest inner product (the first among equals). Accuracy: fraction of ids decoded right.
// Trial j draws only from (seed, j), the stream from draws of its own: every mixer sees the same
// trials, for any number of threads, and the same n pairs behind any stream.
//
// At d = 32 and a codebook of 128 this gives, for n = 8, 32, 64, 128: linear .36 .07 .05 .03;
// DeltaNet's rule .15 .07 .04 .02; vla with penalty key at scale 1: 1.00 1.00 .89 .38.
#pragma once

#include <atomic>
#include <vector>

#include "experiments/declaration.h"

namespace vla_bench {

struct Context;

struct Recall : Experiment {
  static constexpr std::string_view name = "recall";
  static constexpr std::string_view reads[] = {"model.d_h", "model.d_v", "task.n_pairs", "recall"};

  static Index sequence_length(const RunConfig& config) { return config.task.n_pairs; }
  static bool in_float64(const RunConfig&) { return true; }
  static const Schema& table() {
    static const Schema schema{
        name,
        {label, mixer, d_h, n_pairs, seed, trials, accuracy, low, high, precision, status, reason}};
    return schema;
  }
  /// "recall_summary": mean, deviation and interval over the seeds that are ok; a seed has
  /// trials x n_pairs draws. With one seed the interval is over its trials; interval_over says
  /// which.
  static std::vector<Table> summarise(std::span<const CellGroup> groups);
  static Index work(const RunConfig& config);
  static double seconds(const RunConfig& config, double flop, Device device, int threads);
  static CellResult run(const CellConfig& cell, const CellEnvironment& environment);
};

/// Returns the accuracy of each trial, (trials), for the config's first mixer and first seed.
/// Trials that had not begun when *stop was set (`stop` may be null) are 0.
std::vector<double> recall_accuracies(const RunConfig& config, const Context& context,
                                      const std::atomic<bool>* stop = nullptr);

}  // namespace vla_bench
