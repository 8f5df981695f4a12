// mqar: multi-query associative recall. A sequence shows n_pairs key-value pairs, then queries keys
// for their values, in the paper's layout or that of arXiv:2312.04927 (zoology). Pairs may be shown
// several times (passes) and keys then written again with another value (rewrites).
#pragma once

#include <string>

#include "experiments/declaration.h"

namespace vla_bench {

struct Mqar : Training {
  static constexpr std::string_view name = "mqar";
  static constexpr std::string_view reads[] = {"model", "task", "train", "eval"};

  static Index sequence_length(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    const Index rest = has_separator(config) ? n + 1 : 2 * n;
    return config.task.seq_len.value_or(config.task.written_tokens() + rest);
  }
  static Index targets_per_row(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    const Index written = config.task.written_tokens();
    return has_separator(config) ? sequence_length(config) - written - 1 : n;
  }
  static RowKind row_kind(const RunConfig& config) {
    return has_separator(config) ? RowKind::paper : RowKind::zoology;
  }

  static void validate(const RunConfig& config) {
    const Index n = config.task.n_pairs;
    const Index vocab = config.model.vocab_size;
    const Index tokens = sequence_length(config);
    const Index written = config.task.written_tokens();
    const Index rewrites = config.task.rewrites;
    require(rewrites <= n, "/task/rewrites", "at most the {} of task.n_pairs, got {}", n, rewrites);
    if (has_separator(config)) {
      require(n <= vocab - 1, "/task/n_pairs",
              "{} distinct keys and a separator need model.vocab_size of at least {}, got {}", n,
              n + 1, vocab);
      require(tokens >= written + 2, "/task/seq_len",
              "{}, the separator and a query need at least {} tokens, got {}", pairs_text(config),
              written + 2, tokens);
    } else {
      // Keys come from 1 .. V/2 - 1: token 0 is the filler.
      require(n <= vocab / 2 - 1, "/task/n_pairs",
              "{} distinct keys from the lower half of the vocabulary, 0 excepted, need "
              "model.vocab_size of at least {}, got {}",
              n, 2 * (n + 1), vocab);
      require(n + rewrites <= vocab - vocab / 2, "/task/rewrites",
              "{} distinct values from the upper half of the vocabulary need model.vocab_size of "
              "at least {}, got {}",
              n + rewrites, 2 * (n + rewrites) - 1, vocab);
      require(tokens % 2 == 0 && tokens >= written + 2 * n, "/task/seq_len",
              "the zoology layout of {} needs an even number of at least {} tokens, got {}",
              pairs_text(config), written + 2 * n, tokens);
    }
    require_positions(config);
    validate_training(config, has_separator(config));
  }

 private:
  static bool has_separator(const RunConfig& config) {
    return config.task.layout == TaskLayout::paper;
  }

  /// "8 pairs", "8 pairs in 2 passes with 3 rewrites".
  static std::string pairs_text(const RunConfig& config) {
    const TaskConfig& task = config.task;
    std::string text = fmt::format("{} pairs", task.n_pairs);
    if (task.passes > 1) text += fmt::format(" in {} passes", task.passes);
    if (task.rewrites > 0) text += fmt::format(" with {} rewrites", task.rewrites);
    return text;
  }
};

}  // namespace vla_bench
