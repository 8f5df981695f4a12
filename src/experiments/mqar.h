// mqar: multi-query associative recall. A sequence shows n_pairs key-value pairs, then queries keys
// for their values, in the paper's layout or that of arXiv:2312.04927 (zoology). Pairs may be shown
// several times (passes) and keys then written again with another value (rewrites).
#pragma once

#include <set>
#include <string>

#include "config/curriculum.h"
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

  static Index distinct_pairs(const RunConfig& config, Index batch) {
    return vla_bench::distinct_pairs(static_cast<std::int32_t>(config.task.n_pairs),
                                     config.task.curriculum, batch);
  }

  static void validate(const RunConfig& config) {
    const TaskConfig& task = config.task;
    if (task.train_segments.empty() || task.eval_segments.empty()) validate_size(config, "/task");
    validate_segments(config, task.train_segments, "train_segments");
    validate_segments(config, task.eval_segments, "eval_segments");
    require_distinct_slices(task.eval_segments);
    if (task.segment_order == SegmentOrder::shuffled) require_short_cycle(task.train_segments);
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

  template <class Segment>
  static void validate_segments(const RunConfig& config, const std::vector<Segment>& segments,
                                std::string_view key) {
    if (segments.empty()) return;
    RunConfig sized = config;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      sized.task.n_pairs = segments[i].n_pairs;
      sized.task.seq_len = segments[i].seq_len;
      validate_size(sized, fmt::format("/task/{}/{}", key, i));
    }
  }

  static void require_distinct_slices(const std::vector<EvalSegment>& segments) {
    std::set<std::string> names;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const std::string name = slice_name(segments[i].seq_len, segments[i].n_pairs);
      require(names.insert(name).second, fmt::format("/task/eval_segments/{}", i),
              "{} tokens with {} pairs stand twice", segments[i].seq_len, segments[i].n_pairs);
    }
  }

  /// The order of a cycle's steps is shuffled in memory.
  static void require_short_cycle(const std::vector<TrainSegment>& segments) {
    constexpr Index kMost = Index{1} << 20;
    Index cycle = 0;
    for (const TrainSegment& segment : segments) cycle += segment.steps;
    require(cycle <= kMost, "/task/segment_order",
            "at most {} steps of a cycle can be shuffled, got {}", kMost, cycle);
  }

  /// Checks rows of n_pairs and seq_len, which are keys of the object at `pointer`.
  static void validate_size(const RunConfig& config, const std::string& pointer) {
    const Index n = config.task.n_pairs;
    const Index vocab = config.model.vocab_size;
    const Index tokens = sequence_length(config);
    const Index written = config.task.written_tokens();
    const Index rewrites = config.task.rewrites;
    require(rewrites <= n, "/task/rewrites", "at most the {} of {}/n_pairs, got {}", n, pointer,
            rewrites);
    if (has_separator(config)) {
      require(n <= vocab - 1, pointer + "/n_pairs",
              "{} distinct keys and a separator need model.vocab_size of at least {}, got {}", n,
              n + 1, vocab);
      require(tokens >= written + 2, pointer + "/seq_len",
              "{}, the separator and a query need at least {} tokens, got {}", pairs_text(config),
              written + 2, tokens);
    } else {
      // Keys come from 1 .. V/2 - 1: token 0 is the filler.
      require(n <= vocab / 2 - 1, pointer + "/n_pairs",
              "{} distinct keys from the lower half of the vocabulary, 0 excepted, need "
              "model.vocab_size of at least {}, got {}",
              n, 2 * (n + 1), vocab);
      require(n + rewrites <= vocab - vocab / 2, "/task/rewrites",
              "{} distinct values from the upper half of the vocabulary need model.vocab_size of "
              "at least {}, got {}",
              n + rewrites, 2 * (n + rewrites) - 1, vocab);
      require(tokens % 2 == 0 && tokens >= written + 2 * n, pointer + "/seq_len",
              "the zoology layout of {} needs an even number of at least {} tokens, got {}",
              pairs_text(config), written + 2 * n, tokens);
    }
    require_positions(config, pointer);
  }
};

}  // namespace vla_bench
