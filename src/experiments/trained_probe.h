// What the memory of a trained model returns, whatever the model has learned to do with it.
//
// The last mixer layer of the model; config.eval.probe_sequences sequences of a slice, those of its
// first evaluation batch (beyond eval.batch the same stream goes on); c_h(x) a random unit vector
// (d) for each token x and head h:
//   1. The memory of every head steps through a sequence, in double, with the projections that the
//      trained model (production code in float) computes; only the direction of its values is
//      replaced: v_t,h = |v_t,h| c_h(x_t). Keys, queries, gates and the lengths of values are the
//      model's.
//   2. The read-out at every position with a target is decoded to that value x, of those written in
//      the sequence, with the largest sum over heads of o_t,h . c_h(x).
// Accuracy: fraction of targets decoded right. Guessing among n written values gives 1 / n.
//
// Beside the model's own accuracy it tells memory from learning: a probe far above the accuracy is
// a memory whose content the output projection and the head do not use yet; a probe as low as the
// accuracy says that keys and queries do not meet, or that the state does not hold the pairs.
#pragma once

#include <atomic>
#include <vector>

#include "config/config.h"
#include "model/tiny_lm.h"

namespace vla_bench {

/// The accuracy of each slice (config/read.h). `mixer` is the one evaluated. Sequences that had not
/// begun when *stop was set (`stop` may be null) count as wrong.
std::vector<double> probe_accuracies(const RunConfig& config, const MixerConfig& mixer,
                                     const Context& context, TinyLm<float>& model,
                                     const std::atomic<bool>* stop = nullptr);

}  // namespace vla_bench
