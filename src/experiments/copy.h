// copy: a sequence of random tokens, a separator, and the same tokens again.
#pragma once

#include "experiments/declaration.h"

namespace vla_bench {

struct Copy : Training {
  static constexpr std::string_view name = "copy";
  static constexpr std::string_view reads[] = {"model", "task.seq_len", "train", "eval"};

  static Index sequence_length(const RunConfig& config) {
    return 2 * ((config.task.seq_len.value_or(64) - 1) / 2) + 1;
  }
  static Index targets_per_row(const RunConfig& config) { return sequence_length(config) / 2; }
  static RowKind row_kind(const RunConfig&) { return RowKind::copy; }

  static void validate(const RunConfig& config) {
    require(sequence_length(config) >= 3, "/task/seq_len",
            "a token, the separator and the copy need at least 3 tokens, got {}",
            config.task.seq_len.value_or(0));
    require_positions(config);
    require(config.eval.probe_sequences == 0, "/eval/probe_sequences",
            "only mqar has values to probe a memory with, got {}", config.eval.probe_sequences);
    validate_training(config, false);
  }
};

}  // namespace vla_bench
