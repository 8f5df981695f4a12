// The contract of a sequence mixer. A mixer is a *core* (a recurrence or attention, over heads)
// between the projections of its layer (mixers/layer.h). Its folder holds
//   options.h   its keys in a config, name and colour
//   <name>.h    the mathematics in numbered steps, cost, source, layout; of a recurrence the rule
//   that
//               binds it to recurrence/recurrence.h
// and mixers/list.h names it once. Other code includes this header and mixers/registry.h, which
// chooses the device.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/array.h"
#include "mixers/heads.h"
#include "mixers/layout.h"
#include "ops/ops.h"

namespace vla_bench {

/// Sequences in a model's heads.
inline HeadDims head_dims(const ModelConfig& model, Index batch, Index tokens) {
  return {.batch = batch,
          .tokens = tokens,
          .heads = model.n_heads,
          .d_h = model.d_h,
          .d_v = model.value_channels()};
}

/// A core's inputs: the raw projections (the core applies feature maps, normalisation and gates)
/// and its parameters, in the order of the mixer's layout; unused ones are empty.
template <class T>
struct CoreInputs {
  HeadDims dims;
  HeadView<const T> q, k;  // (B, T, H, d), or as many channels as the layout's keys have
  HeadView<const T> v;     // (B, T, H, d_v); wider than d, heads stand side by side
  std::array<HeadView<const T>, kMostMore> more{};  // (B, T, H, w)
  std::array<const T*, kMostMore> parameters{};     // (H, ...)
};

template <class T>
struct CoreGradients {
  HeadView<const T> o;                         // (B, T, H, d_v), what forward wrote
  HeadView<const T> d_o;                       // (B, T, H, d_v), upstream
  HeadView<T> dq, dk, dv;                      // as q, k and v, overwritten
  std::array<HeadView<T>, kMostMore> dmore{};  // (B, T, H, w), overwritten; as CoreInputs::more
  std::array<T*, kMostMore> dparameters{};     // accumulate
};

/// One token and head of CoreInputs.
template <class T>
struct TokenInputs {
  const T *q = nullptr, *k = nullptr, *v = nullptr;  // as CoreInputs'
  std::array<const T*, kMostMore> more{};            // (w)
  std::array<const T*, kMostMore> parameters{};      // as CoreInputs::parameters, of all heads
};

/// One token of a core's inputs on the CPU.
template <class T>
TokenInputs<T> token_inputs(const CoreInputs<T>& inputs, Index row, Index head) {
  TokenInputs<T> token{inputs.q.at(row, head), inputs.k.at(row, head), inputs.v.at(row, head)};
  for (std::size_t i = 0; i < kMostMore; ++i) {
    if (!inputs.more[i].empty()) token.more[i] = inputs.more[i].at(row, head);
  }
  token.parameters = inputs.parameters;
  return token;
}

/// J_t of S_t = S_{t-1} J_t + ... for the last token written: J = diag(decay) (I - k a^T); without
/// decay that of Proposition 2.
struct StepJacobian {
  std::vector<double> k;      // (d)
  std::vector<double> a;      // (d)
  std::vector<double> decay;  // (d); empty: ones
};

/// One head's memory with an explicit state, one token at a time: for probes and for inference in
/// constant memory. CPU only.
template <class T>
class HeadMemory {
 public:
  virtual ~HeadMemory() = default;
  virtual void reset() = 0;

  /// Takes a token's raw projections and writes the read-out o (d_v), equal to the core's forward
  /// at that position.
  virtual void step(const TokenInputs<T>& token, T* o) = 0;

  /// Only the rule, for the recall probe: writes `value` under `key` as given, without feature map,
  /// with open gates and beta 1; keys must have unit length.
  virtual void write(const T* key, const T* value) = 0;
  /// Reads S query without normaliser; softmax scales key and query to length sqrt(d), that of a
  /// standard Gaussian key.
  virtual void read(const T* query, T* out) const = 0;

  virtual double state_norm() const = 0;  // |S_t|_F; softmax: the norm of its cache
  /// The Jacobian of the last step or write; empty where the map is not of this form.
  virtual std::optional<StepJacobian> jacobian() const = 0;
};

template <class T>
class MixerCore {
 public:
  virtual ~MixerCore() = default;

  /// Overwrites o (B, T, H, d_v). Resizes `saved` and writes to it what backward needs; null at
  /// inference.
  virtual void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                       Array<T>* saved) = 0;
  /// After a forward with `saved` on the same inputs.
  virtual void backward(const Context& context, const CoreInputs<T>& inputs,
                        const CoreGradients<T>& gradients, const Array<T>& saved) = 0;

  /// For values of d channels; head_memory (value_groups.h) for any.
  virtual std::unique_ptr<HeadMemory<T>> memory(Index head = 0) const = 0;

  /// Bytes of recurrent state for all lanes at the end of a sequence (softmax: its K V cache).
  virtual Index state_bytes(const HeadDims& dims) const = 0;
  /// Bytes of `saved`.
  virtual Index saved_bytes(const HeadDims& dims) const = 0;

  /// What its user should know of all passes so far, or nothing. Waits for the device.
  virtual std::string warning() const { return {}; }
};

/// A core that computes on tensors of another type than T, as its users would store them.
template <class T>
class CopyingCore : public MixerCore<T> {
 public:
  /// Call before passes over these arrays: copies the inputs and the upstream gradient (null at
  /// inference) into that type, and prepares what depends only on the shape. From then on forward
  /// and backward work on the copies of the inputs that start at inputs.q.data, and do not write o
  /// and the gradients. Not part of timings.
  virtual void prepare(const Context& context, const CoreInputs<T>& inputs,
                       const CoreGradients<T>* gradients) = 0;
  /// Call after the passes: copies the results to o and (unless null) the gradients.
  virtual void deliver(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                       const CoreGradients<T>* gradients) = 0;
};
/// Call prepare() and deliver() of a core that copies; do nothing for other cores.
template <class T>
void prepare_core(MixerCore<T>& core, const Context& context, const CoreInputs<T>& inputs,
                  const CoreGradients<T>* gradients) {
  if (auto* copying = dynamic_cast<CopyingCore<T>*>(&core)) {
    copying->prepare(context, inputs, gradients);
  }
}
template <class T>
void deliver_core(MixerCore<T>& core, const Context& context, const CoreInputs<T>& inputs,
                  HeadView<T> o, const CoreGradients<T>* gradients) {
  if (auto* copying = dynamic_cast<CopyingCore<T>*>(&core)) {
    copying->deliver(context, inputs, o, gradients);
  }
}

/// The layout of the mixer's layer, with the config's output norm.
MixerLayout mixer_layout(const MixerConfig& config, Index d_h);

/// Whether this build can run something; `reason` says why not.
struct Support {
  bool ok = true;
  std::string reason;
};

}  // namespace vla_bench
