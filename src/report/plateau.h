// When a training left the plateau on which a model only guesses among the values it was shown.
#pragma once

#include <optional>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// Loss in nats that a training of mqar has on its plateau: of a batch whose rows show n distinct
/// pairs, -ln(1 / n) = ln n, as each of the n values is as likely as the others. n is that of the
/// step's batch: with task.train_segments of the step's segment, with task.curriculum of the step.
double plateau_loss(Index distinct_pairs);

/// Nats below plateau_loss from which on a batch's loss counts as off the plateau.
inline constexpr double kNatsOffPlateau = 0.5;

/// What a learning curve says about the plateau.
struct Plateau {
  /// The first logged step from which on every logged loss is below plateau_loss - kNatsOffPlateau;
  /// empty when the last one is not. Its resolution is that of the curve: train.log_every steps,
  /// and train.stop_every where train.stop_accuracy is tested.
  std::optional<Index> left{};
};

/// `history` has the rows of history_schema, steps ascending and counted from 1. Rows of batches
/// with a single pair, between whose values there is nothing to guess, say nothing and are left
/// out. Empty when no row is left: the task has no pairs (copy), never more than one, or no curve.
std::optional<Plateau> plateau_of(const RunConfig& config, const Table& history);

}  // namespace vla_bench
