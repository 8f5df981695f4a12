// The contract of a sequence mixer. A mixer is a *core* (the recurrence or attention, over heads)
// between projections that all mixers share (mixers/layer.h). Cores are what a mixer's folder
// holds:
//   <name>.h              the mathematics in numbered steps, cost, source
//   <name>_reference.cpp  plain double loops, forward and backward; the truth
//   <name>_cpu.cpp        production core, float and double
//   <name>_test.cpp
// Callers see this header and mixers/registry.h alone; the device is chosen there.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "config/config.h"
#include "core/array.h"
#include "ops/ops.h"

namespace vla_bench {

struct HeadDims {
  Index batch = 0;   // B
  Index tokens = 0;  // T
  Index heads = 0;   // H
  Index d_h = 0;     // d

  Index rows() const { return batch * tokens; }
  Index lanes() const { return batch * heads; }  // independent recurrences
};

/// A (B, T, H, w) tensor inside a wider row-major one: element (b, t, h, i) stands at
/// data[(b * T + t) * row_stride + h * head_stride + i]. Projections write q, k, v side by side in
/// one buffer; cores read them in place.
template <class T>
struct HeadView {
  T* data = nullptr;
  Index row_stride = 0;
  Index head_stride = 0;

  HeadView() = default;
  HeadView(T* data_, Index row_stride_, Index head_stride_)
      : data(data_), row_stride(row_stride_), head_stride(head_stride_) {}
  template <class U>
  requires std::is_same_v<T, const U> HeadView(const HeadView<U>& other)
      : data(other.data), row_stride(other.row_stride), head_stride(other.head_stride) {}

  bool empty() const { return data == nullptr; }
  T* at(Index row, Index head) const { return data + row * row_stride + head * head_stride; }
};

/// What a core reads: the raw projections (feature maps, normalisation, gates are the core's work).
/// aux is u before normalisation (vla, penalty learned; w = d), gate logits (deltanet paper; w =
/// d), the beta logit (deltanet standard; w = 1), or empty.
template <class T>
struct CoreInputs {
  HeadDims dims;
  HeadView<const T> q, k, v, aux;  // (B, T, H, d), aux (B, T, H, w)
};

template <class T>
struct CoreGradients {
  HeadView<const T> o;     // (B, T, H, d), what forward wrote
  HeadView<const T> d_o;   // (B, T, H, d), upstream
  HeadView<T> dq, dk, dv;  // (B, T, H, d), overwritten
  HeadView<T> daux;        // (B, T, H, w), overwritten; empty iff aux is
};

/// J_t of S_t = S_{t-1} J_t + ... for the last token written: J = I - k a^T (MATHS, Proposition 2).
struct StepJacobian {
  std::vector<double> k;  // (d)
  std::vector<double> a;  // (d)
};

/// One head's memory with its state made explicit, one token at a time: what probes step, and the
/// constant-memory inference path. CPU only.
template <class T>
class HeadMemory {
 public:
  virtual ~HeadMemory() = default;
  virtual void reset() = 0;

  /// A token as the model sees it: raw projections in, read-out out; equal to the core's forward at
  /// that position. q, k, v, o: (d); aux: (w) or null.
  virtual void step(const T* q, const T* k, const T* v, const T* aux, T* o) = 0;

  /// The rule alone, for the recall probe: writes `value` under `key` as given (no feature map;
  /// unit length expected, gates open, beta 1). `direction` is the penalty direction u, already
  /// scaled (vla, penalty learned); null otherwise.
  virtual void write(const T* key, const T* value, const T* direction) = 0;
  /// S query without normaliser; softmax reads with key and query at length sqrt(d), the length a
  /// standard Gaussian key has.
  virtual void read(const T* query, T* out) const = 0;

  virtual double state_norm() const = 0;                   // |S_t|_F; softmax: of its cache
  virtual std::optional<double> penalty_norm() const = 0;  // |A_t|_F after the nudge; vla alone
  /// Of the last step or write; empty where the map is not of this form.
  virtual std::optional<StepJacobian> jacobian() const = 0;
};

template <class T>
class MixerCore {
 public:
  virtual ~MixerCore() = default;

  /// o (B, T, H, d) is overwritten. `saved` receives what backward needs (resized by the core; null
  /// at inference).
  virtual void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                       Array<T>* saved) = 0;
  /// After a forward with `saved` on the same inputs.
  virtual void backward(const Context& context, const CoreInputs<T>& inputs,
                        const CoreGradients<T>& gradients, const Array<T>& saved) = 0;

  /// For cores that compute on tensors of another type than T, as their users would keep them.
  /// Before passes over these arrays: copies the inputs and the upstream gradient (null at
  /// inference) into that type, and makes what depends on the shape alone. From then on forward and
  /// backward work on the copies of the inputs that start at inputs.q.data, and leave o and the
  /// gradients as they are. Timings leave this out. Other cores have nothing to do.
  virtual void prepare(const Context& /*context*/, const CoreInputs<T>& /*inputs*/,
                       const CoreGradients<T>* /*gradients*/) {}
  /// The way back, after the passes: overwrites o and (unless null) the gradients.
  virtual void deliver(const Context& /*context*/, const CoreInputs<T>& /*inputs*/,
                       HeadView<T> /*o*/, const CoreGradients<T>* /*gradients*/) {}

  virtual std::unique_ptr<HeadMemory<T>> memory() const = 0;

  /// Bytes of recurrent state for all lanes at the end of a sequence (softmax: its K V cache).
  virtual Index state_bytes(const HeadDims& dims) const = 0;
  /// Bytes `saved` takes.
  virtual Index saved_bytes(const HeadDims& dims) const = 0;
};

/// Where a mixer's fourth projection reads from.
enum class AuxSource { none, token, key };

/// The projections around a core: names follow the golden files (PyTorch state_dict).
struct MixerTraits {
  bool joint_qkv = false;  // softmax: one "qkv" map and "o"; others Wq, Wk, Wv and Wo
  AuxSource aux_source = AuxSource::none;
  std::string aux_name;  // "Wu", "Wg" or "Wb"
  bool aux_bias = false;
  bool aux_per_head = false;  // one channel a head (Wb) instead of d
  bool output_norm = false;   // "norm_o": LayerNorm over D before the output map
};
MixerTraits mixer_traits(const MixerConfig& config);
/// Channels a head of the fourth projection: d, 1 (a scalar a head) or 0 (none).
Index aux_width(const MixerTraits& traits, Index d_h);

/// Whether this build can run the mixer there; `reason` is set when not.
struct Support {
  bool ok = true;
  std::string reason;
};

}  // namespace vla_bench
