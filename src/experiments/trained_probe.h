// What the memory of a trained model returns, whatever the rest of the model has learned to do with
// it.
//
// config.eval.probe_sequences sequences of a slice, those of its first evaluation batch (beyond
// eval.batch the same stream goes on); c_h(t) a random unit vector (d) for each position t and head
// h. For each mixer layer:
//   1. The memory of every head steps through a sequence, in double, with the projections that the
//      trained model (production code in float) computes; only the direction of its values is
//      replaced: v_t,h = |v_t,h| c_h(t). Keys, queries, gates and the lengths of values are the
//      model's.
//   2. A layer may write pair i, whose value token stands at p_i, some tokens behind it, since
//      convolutions and layers before it move keys and values by a few tokens. For a delay D, the
//      read-out o_t,h at a position with a target is decoded to the pair i with the largest
//      o_t,h . c_h(p_i + D). Each head has the delay, 0 to kMostDelay, at which it decodes most
//      targets right; the heads' products are then added and decoded together.
// Accuracy of a slice: fraction of targets that are decoded to a pair with the right value, in the
// layer where it is highest. Guessing among n pairs gives 1 / n, the best of so many choices a
// little more.
//
// Beside the model's own accuracy it tells memory from learning: a probe far above the accuracy is
// a memory whose content the rest of the model does not use yet; a probe far below it says that no
// state holds the pairs in the way of 1 and 2, as when two layers share the work.
#pragma once

#include <atomic>
#include <vector>

#include "config/config.h"
#include "model/tiny_lm.h"

namespace vla_bench {

/// In tokens: short_conv of four taps behind a gated convolution of three reaches five back.
inline constexpr Index kMostDelay = 5;

/// The accuracy of each slice (config/read.h). `mixer` is the one evaluated. Sequences that had not
/// begun when *stop was set (`stop` may be null) count as wrong.
std::vector<double> probe_accuracies(const RunConfig& config, const MixerConfig& mixer,
                                     const Context& context, TinyLm<float>& model,
                                     const std::atomic<bool>* stop = nullptr);

}  // namespace vla_bench
