// The check of what latency times, over the whole length it times: the very kernels, sizes and
// buffers. Kernels are verified against the whole reference over 64 tokens only
// (verify_against_reference); what goes wrong beyond them would be timed as if it were right.
//
// Every output and, where backward is timed, every gradient has to be finite. The outputs of one
// lane, the last (its elements lie furthest from the start of the arrays), are compared with the
// mixer's memory stepped in float64, two tokens an octave and the last token.
//
// Cost: a call of the pass for each set of buffers, a copy of its results to the host, and the
// steps of one lane. Those are few microseconds a token at d_h = 64, so they end after
// compared_tokens; finiteness is looked at whatever the length.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "experiments/experiment.h"
#include "experiments/lane_memory.h"

namespace vla_bench {

/// How many tokens of `tokens` are stepped to compare values: at most 2^17, and 2^29 / d_h^2 where
/// that is less (but 64). Of softmax, whose rows are computed directly, as many as take 2 GiB of
/// keys and values.
Index compared_tokens(const MixerConfig& mixer, Index d_h, Index tokens);

/// Tokens, from 1, at which outputs are compared: two an octave up to `tokens`, and `tokens`.
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

  /// Runs the pass on `buffers`, which `core` has prepared, and looks at all that it wrote. What is
  /// not finite has diverged where float32 cannot follow the lane to that token, or the core is the
  /// reference; otherwise the core has failed.
  PassVerdict finite(MixerCore<T>& core, LatencyPass pass, CoreBuffers<T>& buffers) const;

  /// Compares the outputs of the last pass. An error counts where it is 32 times that of the memory
  /// stepped in float32: some configs amplify rounding.
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
