// The declarations of experiments, one header each; experiments/list.h lists them.
//
// Every folder from config upwards reads the declarations, so they are plain data and pure
// functions of a config and include nothing above config. Each experiment has
//   name             its spelling in configs
//   reads            sections of the config, or single keys of them, that can change its result
//   sequence_length  tokens a row: task.seq_len or its default
//   table()          the table of its cells; mqar and copy share one
// and, defined in higher folders,
//   summarise        the summaries of that table (report)
//   work, run        the operations of a cell (experiments/cost.h), and the cell itself
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "config/read.h"
#include "core/error.h"
#include "core/rng.h"
#include "experiments/columns.h"

namespace vla_bench {

struct CellEnvironment;
struct CellGroup;
struct CellResult;
struct Table;

/// Throws BadInput "POINTER: ..." unless the condition holds.
template <class... Args>
void require(bool condition, std::string_view pointer, fmt::format_string<Args...> format,
             Args&&... args) {
  if (condition) return;
  throw BadInput(fmt::format("{}: {}", pointer, fmt::format(format, std::forward<Args>(args)...)));
}

/// Checks that the model has an embedding for every position of a row; `pointer` is that of the
/// object with the key seq_len.
inline void require_positions(const RunConfig& config, std::string_view pointer = "/task") {
  const Index tokens = sequence_length(config);
  require(!config.model.positions || tokens <= config.model.max_seq_len,
          fmt::format("{}/seq_len", pointer), "{} tokens exceed model.max_seq_len of {}", tokens,
          config.model.max_seq_len);
}

/// Defaults of an experiment: it steps memories on the CPU.
struct Experiment : Columns {
  static constexpr bool trains = false;  // has steps, a checkpoint and a learning curve
  // Its results are seconds: cells do not share a device, and cells of different processors or
  // numbers of threads are never averaged.
  static constexpr bool is_timed = false;
  static constexpr Index cells_per_gpu = 0;  // at a time; 0: one in total, for any number of GPUs

  /// Checks keys against each other; throws BadInput.
  static void validate(const RunConfig&) {}
  static Index targets_per_row(const RunConfig&) { return 0; }
  static RowKind row_kind(const RunConfig&) { return RowKind::random; }
  /// Distinct key-value pairs that the rows of a training batch (counted from 0) show, for a config
  /// of one size; 0: its rows show none.
  static Index distinct_pairs(const RunConfig&, Index /*batch*/) { return 0; }
  /// The random stream of its first tokens; empty when it works on vectors.
  static std::optional<RngStream> token_stream(const RunConfig&) { return std::nullopt; }
  /// Whether its numbers are computed in double precision for any config.
  static bool in_float64(const RunConfig&) { return false; }
  /// Estimated from the operations of the cell.
  static double seconds(const RunConfig& config, double flop, Device device, int threads);
};

/// Shared by mqar and copy: a TinyLM trained by the protocol.
struct Training : Experiment {
  static constexpr bool trains = true;
  static constexpr Index cells_per_gpu = 4;  // one small model leaves most of a GPU idle

  static Index targets_per_row(const RunConfig&) = delete;  // each has its own
  static std::optional<RngStream> token_stream(const RunConfig&) { return RngStream::train_batch; }
  static const Schema& table() {
    static const Schema schema{
        "accuracy",
        {experiment, label,     mixer,      n_pairs,       d_h,         n_heads,
         seq_len,    layout,    short_conv, seed,          steps,       learning_rate,
         queries,    accuracy,  loss,       train_seconds, state_bytes, conv_state_bytes,
         device,     precision, status,     reason}};
    return schema;
  }
  /// What table() has besides in some cells.
  struct Extras {
    // With task.eval_segments. A cell that is ok has a row for each slice and, before them, the
    // mean of slices, without n_pairs and seq_len.
    bool slice = false;
    bool probe_accuracy = false;  // with eval.probe_sequences
  };
  static const Schema& table_with(Extras extras) {
    const auto make = [](bool with_slice, bool with_probe) {
      Schema schema = table();
      const auto add = [&columns = schema.columns](const Column& column, const Column& before) {
        columns.insert(std::find(columns.begin(), columns.end(), before.name), column.name);
      };
      if (with_slice) add(slice, layout);
      if (with_probe) add(probe_accuracy, loss);
      return schema;
    };
    static const Schema schemas[] = {make(false, false), make(false, true), make(true, false),
                                     make(true, true)};
    return schemas[2 * extras.slice + extras.probe_accuracy];
  }
  static Extras extras_of(const RunConfig& config) {
    return {.slice = has_slices(config), .probe_accuracy = config.eval.probe_sequences > 0};
  }
  /// What some group has.
  static Extras extras_of(std::span<const CellGroup> groups);
  /// "accuracy_summary": for each slice, mean, deviation and interval over the cells that are ok,
  /// of accuracy (over `queries` draws per seed), loss and train_seconds; loss_median. Where the
  /// row is that of the whole training (the only one, or the mean of slices), how many of these
  /// cells left their plateau (left_plateau), and plateau_step_median, _min and _max over those
  /// that did (report/plateau.h).
  /// train_seconds is empty, with a note, when these cells ran on several processors or with
  /// different numbers of threads or jobs, whose times are not comparable; state_bytes and
  /// conv_state_bytes (report/cell_columns.h).
  static std::vector<Table> summarise(std::span<const CellGroup> groups);
  static Index work(const RunConfig& config);
  static double seconds(const RunConfig& config, double flop, Device device, int threads);
  static CellResult run(const CellConfig& cell, const CellEnvironment& environment);

 protected:
  static void validate_training(const RunConfig& config, bool has_curriculum) {
    const TaskConfig& task = config.task;
    const TrainConfig& train = config.train;
    require(task.curriculum == 0 || has_curriculum, "/task/curriculum",
            "only the paper layout of mqar has one, got {}", task.curriculum);
    require(task.curriculum <= train.steps, "/task/curriculum", "at most train.steps ({}), got {}",
            train.steps, task.curriculum);
    require(train.warmup <= train.steps, "/train/warmup", "at most train.steps ({}), got {}",
            train.steps, train.warmup);
    // Batches of an evaluation are numbered over all slices, in 32 bits.
    constexpr Index kMostBatches = Index{1} << 32;
    const auto slices = static_cast<Index>(has_slices(config) ? task.eval_segments.size() : 1);
    require(config.eval.batches <= kMostBatches / slices, "/eval/batches",
            "at most {} over all of task.eval_segments, got {} for each of {}", kMostBatches,
            config.eval.batches, slices);
    require_penalties(config);
  }

 private:
  /// Checks that every mixer has a penalty matrix to hold.
  static void require_penalties(const RunConfig& config) {
    if (config.eval.hold_penalty_after == 0) return;
    for (const MixerConfig& mixer : config.mixers) {
      const bool has_penalty = std::visit(
          [](const auto& own) {
            if constexpr (requires { own.hold_after; }) {
              return own.penalty != Penalty::frozen;
            } else {
              return false;
            }
          },
          mixer.options);
      require(has_penalty, "/eval/hold_penalty_after",
              "only vla with penalty learned or key has a matrix to hold, got the mixer {}",
              mixer_label(mixer));
    }
  }
};

/// Shared by state_norm and jacobian: the memory of every head along one sequence.
struct Probe : Experiment {
  static constexpr std::string_view reads[] = {"model", "task.seq_len", "probe"};

  static Index sequence_length(const RunConfig& config) {
    return config.task.seq_len.value_or(1000);
  }
  static void validate(const RunConfig& config) {
    // A Gaussian stream has no position embedding, so any length is valid.
    if (!in_float64(config)) require_positions(config);
  }
  static bool in_float64(const RunConfig& config) {
    return config.probe.source == ProbeSource::gaussian;
  }
  static std::optional<RngStream> token_stream(const RunConfig& config) {
    if (in_float64(config)) return std::nullopt;
    return RngStream::probe_tokens;
  }
};

}  // namespace vla_bench
