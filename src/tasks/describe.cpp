#include <fmt/format.h>

#include <algorithm>

#include "config/read.h"
#include "ops/ops.h"
#include "tasks/batch.h"

namespace vla_bench {
namespace {

/// The pair of the key, counted from 1; 0 for no pair's key.
Index pair_of(const RunConfig& config, const std::int32_t* inputs, std::int32_t key) {
  for (Index pair = 0; pair < config.task.n_pairs; ++pair) {
    if (inputs[2 * pair] == key) return pair + 1;
  }
  return 0;
}

/// The role of position t: "k1", "v1" in every pass, "k1'", "v1'" of a rewrite, "SEP", "q3" (the
/// query of key 3), "" for filler.
std::string mqar_role(const RunConfig& config, const std::int32_t* inputs,
                      const std::int32_t* targets, Index t) {
  const TaskConfig& task = config.task;
  const char kind = t % 2 == 0 ? 'k' : 'v';
  if (t < 2 * task.n_pairs * task.passes) {
    return fmt::format("{}{}", kind, t / 2 % task.n_pairs + 1);
  }
  if (t < task.written_tokens()) {
    return fmt::format("{}{}'", kind, pair_of(config, inputs, inputs[t - t % 2]));
  }
  if (targets[t] == kIgnoreTarget) {
    return task.layout == TaskLayout::paper && t == task.written_tokens() ? "SEP" : "";
  }
  const Index pair = pair_of(config, inputs, inputs[t]);
  return pair > 0 ? fmt::format("q{}", pair) : "q?";
}

std::string role(const RunConfig& config, const std::int32_t* inputs, const std::int32_t* targets,
                 Index tokens, Index t) {
  switch (row_kind(config)) {
    case RowKind::paper:
    case RowKind::zoology:
      return mqar_role(config, inputs, targets, t);
    case RowKind::copy: {
      const Index half = (tokens - 1) / 2;
      if (t == half) return "SEP";
      return fmt::format("{}{}", t < half ? 't' : 'c', t < half ? t + 1 : t - half);
    }
    case RowKind::random:
      break;
  }
  return "";
}

}  // namespace

std::string describe_row(const RunConfig& config, const Batch& batch, Index row, Index width) {
  constexpr Index kHeading = 8, kPosition = 6;  // characters
  const Index positions_a_line = std::max<Index>(1, (width - kHeading) / kPosition);
  const std::int32_t* inputs = batch.inputs.data() + row * batch.tokens;
  const std::int32_t* targets = batch.targets.data() + row * batch.tokens;
  std::string text;
  for (Index begin = 0; begin < batch.tokens; begin += positions_a_line) {
    std::string positions = "position", roles = "role    ", tokens = "token   ",
                answers = "target  ";
    for (Index t = begin; t < std::min(begin + positions_a_line, batch.tokens); ++t) {
      positions += fmt::format(" {:>5}", t);
      roles += fmt::format(" {:>5}", role(config, inputs, targets, batch.tokens, t));
      tokens += fmt::format(" {:>5}", inputs[t]);
      answers += fmt::format(
          " {:>5}", targets[t] == kIgnoreTarget ? std::string(".") : std::to_string(targets[t]));
    }
    text += fmt::format("{}{}\n{}\n{}\n{}\n", begin == 0 ? "" : "\n", positions, roles, tokens,
                        answers);
  }
  return text;
}

}  // namespace vla_bench
