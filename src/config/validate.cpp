// Checks that need more than one key, on a config without a sweep.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>

#include "config/read.h"
#include "core/error.h"

namespace vla_bench {
namespace {

template <class... Args>
void require(bool condition, std::string_view pointer, fmt::format_string<Args...> format,
             Args&&... args) {
  if (!condition) {
    throw BadInput(
        fmt::format("{}: {}", pointer, fmt::format(format, std::forward<Args>(args)...)));
  }
}

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

void validate_name(const RunConfig& config) {
  const std::string& name = config.name;
  const bool plain = name != "." && name != ".." && name.size() <= kMaxNameBytes &&
                     name.find_first_of("/\\") == std::string::npos && !has_control_character(name);
  require(plain, "/name", "expected a plain folder name of at most {} bytes", kMaxNameBytes);
}

void validate_mixers(const RunConfig& config) {
  require(!config.mixers.empty(), "/mixers", "expected at least one mixer");
  std::set<std::string> labels;
  for (std::size_t i = 0; i < config.mixers.size(); ++i) {
    const MixerConfig& mixer = config.mixers[i];
    const std::string pointer = fmt::format("/mixers/{}", i);
    const std::string label = mixer_label(mixer);
    require(label.size() <= kMaxNameBytes && !has_control_character(label), pointer + "/label",
            "expected at most {} bytes without control characters", kMaxNameBytes);
    require(labels.insert(label).second, pointer,
            "label \"{}\" is taken by an earlier mixer; give this one its own \"label\"", label);
  }
}

void validate_seeds(const RunConfig& config) {
  require(!config.seeds.empty(), "/seeds", "expected at least one seed");
  std::vector<Index> seeds = config.seeds;
  std::sort(seeds.begin(), seeds.end());
  const auto twice = std::adjacent_find(seeds.begin(), seeds.end());
  require(twice == seeds.end(), "/seeds", "{} stands twice", twice == seeds.end() ? 0 : *twice);
}

template <class E>
void require_distinct(std::vector<E> values, std::string_view pointer) {
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  require(twice == values.end(), pointer, "{} stands twice",
          twice == values.end() ? std::string_view() : enum_name(*twice));
}

void validate_mqar(const TaskConfig& task, Index vocab, Index tokens) {
  const Index n = task.n_pairs;
  if (task.layout == TaskLayout::paper) {
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
            "the zoology layout of {} pairs needs an even number of at least {} tokens, got {}", n,
            4 * n, tokens);
  }
}

void validate_curriculum(const RunConfig& config) {
  const Index curriculum = config.task.curriculum;
  const bool paper =
      config.experiment == ExperimentKind::mqar && config.task.layout == TaskLayout::paper;
  require(curriculum == 0 || paper, "/task/curriculum",
          "the paper layout of mqar alone has one, got {}", curriculum);
  require(curriculum <= config.train.steps, "/task/curriculum", "at most train.steps ({}), got {}",
          config.train.steps, curriculum);
}

void validate_training(const RunConfig& config) {
  validate_curriculum(config);
  require(config.train.warmup <= config.train.steps, "/train/warmup",
          "at most train.steps ({}), got {}", config.train.steps, config.train.warmup);
}

void validate_positions(const RunConfig& config) {
  const Index tokens = sequence_length(config);
  require(tokens <= config.model.max_seq_len, "/task/seq_len",
          "{} tokens exceed model.max_seq_len of {}", tokens, config.model.max_seq_len);
}

}  // namespace

Index sequence_length(const RunConfig& config) {
  const TaskConfig& task = config.task;
  switch (config.experiment) {
    case ExperimentKind::mqar:
      return task.seq_len.value_or(task.layout == TaskLayout::paper ? 3 * task.n_pairs + 1
                                                                    : 4 * task.n_pairs);
    case ExperimentKind::copy:
      return 2 * ((task.seq_len.value_or(64) - 1) / 2) + 1;
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      return task.seq_len.value_or(1000);
    case ExperimentKind::latency:
      return task.seq_len.value_or(1024);
    case ExperimentKind::recall:
      return task.n_pairs;  // one write a pair
  }
  return 0;
}

Index targets_per_row(const RunConfig& config) {
  const Index tokens = sequence_length(config);
  switch (config.experiment) {
    case ExperimentKind::mqar:
      return config.task.layout == TaskLayout::paper ? tokens - 2 * config.task.n_pairs - 1
                                                     : config.task.n_pairs;
    case ExperimentKind::copy:
      return tokens / 2;
    case ExperimentKind::recall:
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
    case ExperimentKind::latency:
      break;
  }
  return 0;
}

void validate(const RunConfig& config) {
  validate_name(config);
  validate_mixers(config);
  validate_seeds(config);
  switch (config.experiment) {
    case ExperimentKind::mqar:
      validate_mqar(config.task, config.model.vocab_size, sequence_length(config));
      validate_positions(config);
      validate_training(config);
      break;
    case ExperimentKind::copy:
      require(sequence_length(config) >= 3, "/task/seq_len",
              "a token, the separator and the copy need at least 3 tokens, got {}",
              config.task.seq_len.value_or(0));
      validate_positions(config);
      validate_training(config);
      break;
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
      // A Gaussian stream passes no position embedding, so any length will do.
      if (config.probe.source == ProbeSource::model) validate_positions(config);
      break;
    case ExperimentKind::latency:
      require(config.latency.min_repeats <= config.latency.max_repeats, "/latency/min_repeats",
              "at most latency.max_repeats ({}), got {}", config.latency.max_repeats,
              config.latency.min_repeats);
      require_distinct(config.latency.passes, "/latency/passes");
      require_distinct(config.latency.implementations, "/latency/implementations");
      break;
    case ExperimentKind::recall:
      break;
  }
}

}  // namespace vla_bench
