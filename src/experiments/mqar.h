// mqar: multi-query associative recall. A sequence shows n_pairs key-value pairs, then queries keys
// for their values, in the paper's layout or that of arXiv:2312.04927 (zoology).
#pragma once

#include "experiments/declaration.h"

namespace vla_bench {

struct Mqar : Training {
  static constexpr std::string_view name = "mqar";
  static constexpr std::string_view reads[] = {"model", "task", "train", "eval"};

  static Index sequence_length(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    return config.task.seq_len.value_or(has_separator(config) ? 3 * n + 1 : 4 * n);
  }
  static Index targets_per_row(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    return has_separator(config) ? sequence_length(config) - 2 * n - 1 : n;
  }
  static RowKind row_kind(const RunConfig& config) {
    return has_separator(config) ? RowKind::paper : RowKind::zoology;
  }

  static void validate(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    const Index vocab = config.model.vocab_size;
    const Index tokens = sequence_length(config);
    if (has_separator(config)) {
      require(n <= vocab - 1, "/task/n_pairs",
              "{} distinct keys and a separator need model.vocab_size of at least {}, got {}", n,
              n + 1, vocab);
      require(tokens >= 2 * n + 2, "/task/seq_len",
              "{} pairs, the separator and a query need at least {} tokens, got {}", n, 2 * n + 2,
              tokens);
    } else {
      // Keys come from 1 .. V/2 - 1: token 0 is the filler.
      require(n <= vocab / 2 - 1, "/task/n_pairs",
              "{} distinct keys from the lower half of the vocabulary, 0 excepted, need "
              "model.vocab_size of at least {}, got {}",
              n, 2 * (n + 1), vocab);
      require(tokens % 2 == 0 && tokens >= 4 * n, "/task/seq_len",
              "the zoology layout of {} pairs needs an even number of at least {} tokens, got {}",
              n, 4 * n, tokens);
    }
    require_positions(config);
    validate_training(config, has_separator(config));
  }

 private:
  static bool has_separator(const RunConfig& config) {
    return config.task.layout == TaskLayout::paper;
  }
};

}  // namespace vla_bench
