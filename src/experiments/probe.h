// Shared by state_norm and jacobian: the source of keys and values, and stepping every head's
// memory through them.
//
// Source "model": the raw projections that the last layer of the untrained TinyLM (production code
// in float on the cell's device, initialised as for training) reads on one row of random tokens.
// Source "gaussian": all projections are standard normal, drawn per (token, head) when needed, so
// that memory does not grow with T; parameters have initial values.
// Memories run in double on the CPU, to measure the recurrence and not its rounding.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "experiments/experiment.h"
#include "mixers/mixer.h"

namespace vla_bench {

/// Tokens (counted from 1, ascending) that a probe of `tokens` tokens records: 16 per decade, every
/// 10th up to 1,000, and the last.
std::vector<Index> recorded_tokens(Index tokens);

/// One token of one head: raw projections, and the parameters that a core reads with them.
struct ProbeToken {
  std::vector<double> q, k, v;                  // as TokenInputs'
  std::vector<std::vector<double>> more;        // (w) each, as the mixer's layout says
  std::vector<std::vector<double>> parameters;  // the core's, (H, ...) each

  TokenInputs<double> view() const;
};

/// What the core of a layer reads, in double on the host.
class LayerTokens {
 public:
  LayerTokens() = default;
  /// `inputs` are in the memory of `device`; the mixer's.
  LayerTokens(const MixerConfig& mixer, const CoreInputs<float>& inputs, Device device);

  /// Returns token `row` of (B T), from 0. Thread-safe.
  void read(Index row, Index head, ProbeToken& out) const;

 private:
  struct Projected {
    Index width = 0;
    std::vector<double> values{};  // (B, T, H, width)
  };

  Index heads_ = 0;
  Projected q_, k_, v_;
  std::vector<Projected> more_;
  std::vector<std::vector<double>> parameters_;
};

class ProbeInputs {
 public:
  ProbeInputs(const RunConfig& config, const Context& context);

  /// Returns token `t`, counted from 1. Thread-safe.
  void read(Index t, Index head, ProbeToken& out) const;

 private:
  ProbeSource source_;
  std::uint64_t seed_;
  Index value_channels_;
  Index key_channels_ = 0;                       // of q and k
  std::vector<Index> widths_;                    // w of every projection beyond q, k and v
  std::vector<std::vector<double>> parameters_;  // of the core, for source gaussian
  LayerTokens tokens_;                           // only for source model
};

/// Called after every token; calls for one head come in order from one thread. At recorded tokens
/// `measured` has one number per measured column, else it is empty. Returns false when a value is
/// not finite: the head ends there.
using ProbeObserver =
    std::function<bool(Index head, const HeadMemory<double>& memory, std::span<double> measured)>;

/// Steps a fresh memory per head through the config's sequence, heads in parallel. The table has
/// one row per recorded token: means over heads, added in head order, empty where that is NaN; it
/// ends where a head does. A head whose read-out is not finite has diverged, since a value of S
/// that is not finite makes its row of S q not finite.
CellResult run_probe(const CellConfig& cell, const CellEnvironment& environment,
                     const MixerCore<double>& core, std::span<const Column> measured,
                     const ProbeObserver& observer);

/// The reason why `config` cannot be probed on `device` (unsupported mixer; a growing memory and a
/// long sequence), or "".
Support probe_support(const RunConfig& config, Device device);

}  // namespace vla_bench
