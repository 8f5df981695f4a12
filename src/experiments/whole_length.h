// Checks what latency times over its whole length, with the same kernels, sizes and buffers. The
// comparison with the whole reference covers only 64 tokens (verify_against_reference); an error
// beyond them would otherwise be timed unnoticed.
//
// Every output and, where backward is timed, every gradient has to be finite. The outputs of one
// lane, the last (its elements lie furthest from the start of the arrays), are compared with the
// mixer's memory stepped in float64, two tokens an octave and the last token.
//
// Cost: one call of the pass for each set of buffers, a copy of its results to the host, and the
// steps of one lane. These take a few microseconds per token at d_h = 64, so they end after
// compared_tokens; finiteness is checked for any length.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "experiments/experiment.h"
#include "experiments/lane_memory.h"

namespace vla_bench {

/// How many of a lane's tokens are stepped to compare values: at most 2^17, and at most 2^29 / (d_h
/// d_v) (but at least 64). For softmax, whose rows are computed directly, as many as fit into 2 GiB
/// of keys and values.
Index compared_tokens(const MixerConfig& mixer, const HeadDims& dims);

/// Tokens, from 1, at which outputs are compared: two per octave up to `tokens`, and `tokens`.
std::vector<Index> compared_rows(Index tokens);

/// ok, failed or diverged.
struct PassVerdict {
  CellStatus status = CellStatus::ok;
  std::string reason;
};

template <class T>
class WholeLengthCheck {
 public:
  /// `allowed` is the largest error of an output relative to the row's largest. Once `stop` is set
  /// checks end early, with ok.
  WholeLengthCheck(const RunConfig& config, const Context& context, double allowed,
                   const std::atomic<bool>* stop = nullptr)
      : mixer_(config.mixers.front()), context_(context), allowed_(allowed), stop_(stop) {}

  /// Runs the pass on `buffers`, which `core` has prepared, and checks that its results are finite.
  /// If not, the row has diverged when float32 cannot follow the lane to that token or the core is
  /// the reference; otherwise the core has failed.
  PassVerdict finite(MixerCore<T>& core, LatencyPass pass, CoreBuffers<T>& buffers) const;

  /// Compares the outputs of the last pass. Since some configs amplify rounding, an error counts
  /// only when it is 32 times that of the memory stepped in float32.
  PassVerdict values(const CoreBuffers<T>& buffers) const;

 private:
  PassVerdict verdict_on(const char* what, const CoreBuffers<T>& buffers, const Lane& lane,
                         Index token) const;

  const MixerConfig& mixer_;
  Context context_;
  double allowed_;
  const std::atomic<bool>* stop_;
};

}  // namespace vla_bench
