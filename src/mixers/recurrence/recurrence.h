// The recurrence that every mixer with a matrix-valued state shares. A mixer is a rule: it says how
// its projections become r, a, q and the decay of a token, and how their gradients go back.
//
// One batch element and head, S (d_v, d) with value rows i and key columns j, S_0 = 0:
//   1. e_t = v_t - S_{t-1} r_t               residual (e_t = v_t without r)        (d_v)
//   2. S_t = D_t(S_{t-1}) + e_t a_t^T        write                                 (d_v, d)
//   3. z_t = z_{t-1} + f_t;  c_t = 1 / max(z_t . q_t, floor)     normaliser (c_t = 1 without)
//   4. o_t = c_t S_t q_t                     read                                  (d_v)
// D_t scales by nothing, by a number per head, per value channel (rows) or per key channel
// (columns). Where a rule decays S before it reads the residual, r carries the decay.
//
// Backward, from the upstream g_t = dL/do_t, t = T .. 1; dS and dz accumulate over tokens, the rest
// overwrites:
//   4. dn = c g;  dS += dn q^T;  dq = S_t^T dn
//   3. dc = -(g . o) c, 0 where z . q < floor;  dz += dc q;  dq += dc z_t;  df = dz
//   2. de = dS a;  da = dS^T e;  dD = sums of dS * S_{t-1} over what D_t scales;  dS <- D_t(dS)
//   1. dv = de;  dS -= de r^T;  dr = -S_{t-1}^T de
//
// Going backward needs no state of the forward pass: de needs only dS, which runs against time;
// after that da needs dS, and dq and dr need S, which is run through once more in time. Only dD
// needs S and dS of the same token: the states of a tile of tokens are computed again from a
// checkpoint. (There is a form of dD without either, from a running sum of dS_t * S_t, compare
// arXiv:2312.06635, but its terms cancel: where a gradient fades to nothing over a few gates the
// rounding noise stays, and Adam makes a step of it.)
//
// Rows of S share r, a, q, c and D (unless it scales rows), and otherwise do not meet. So values of
// d_v = m d channels are computed in m groups with a state (d, d) each; gradients of what the
// groups share are sums over them, in their order.
//
// Cost per token and head, multiply-adds: forward 3 d d_v (2 d d_v without r); backward 9 d d_v (6
// without r), and 2 d d_v for dD. State: d d_v values, and d for z. Saved: e (only with r), c, and
// for dD S before every tile.
#pragma once

#include <memory>

#include "mixers/lanes.h"
#include "mixers/mixer.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// The vectors that a rule computes for the tokens of a tile. Row i belongs to the tile's token i;
/// rows are `stride` elements apart, channels beyond d stay zero. Rows that the form does not have
/// need not be set.
template <class T>
struct RecurrenceRows {
  Index stride = 0;
  T* r = nullptr;
  T* a = nullptr;
  T* q = nullptr;
  T* f = nullptr;
  T* decay = nullptr;  // (count, stride); Decay::head: (count)
  T* own = nullptr;    // what a rule keeps for itself (vla: the penalty direction; a running sum)
  const T* own_before = nullptr;  // a running sum before the token

  T* decay_row(Decay kind, Index i) const { return decay + (kind == Decay::head ? i : i * stride); }
};

/// Gradients of a tile's rows, laid out as the rows. Where r is a, da is the sum of both.
template <class T>
struct RecurrenceGradients {
  Index stride = 0;
  T* dr = nullptr;
  T* da = nullptr;
  T* dq = nullptr;
  T* df = nullptr;
  const T* ddecay = nullptr;
  const T* down = nullptr;  // of RecurrenceRows::own
};

/// A rule applied to one lane, tile by tile. Each thread has its own.
template <class T>
class LaneRule {
 public:
  virtual ~LaneRule() = default;

  /// Before the first tile of a lane. `kept` (kept_size elements) lives from forward to backward;
  /// null where no backward follows.
  virtual void start(Index tokens, T* kept) {
    static_cast<void>(tokens);
    static_cast<void>(kept);
  }
  /// Forward: tiles in the order of time.
  virtual void bind(const Tile& tile, const CoreInputs<T>& inputs,
                    const RecurrenceRows<T>& rows) = 0;
  /// Backward: the same rows once more, tiles in any order and direction.
  virtual void rebind(const Tile& tile, const CoreInputs<T>& inputs,
                      const RecurrenceRows<T>& rows) {
    bind(tile, inputs, rows);
  }
  /// Backward, tiles in the order of time, after the rebind of all: writes every gradient but dv
  /// into `out`, or keeps what it needs for finish().
  virtual void unbind(const Tile& tile, const CoreInputs<T>& inputs,
                      const RecurrenceGradients<T>& gradients, const CoreGradients<T>& out) = 0;
  /// After the last unbind of a lane.
  virtual void finish(const CoreInputs<T>& inputs, const CoreGradients<T>& out) {
    static_cast<void>(inputs);
    static_cast<void>(out);
  }
  /// For HeadMemory::write: r, a and the decay of one token (a tile of one) whose key is given.
  virtual void bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) = 0;
};

/// A rule for heads of d channels, and what the core needs to know of it.
template <class T>
class RecurrentRule {
 public:
  explicit RecurrentRule(Index d) : d_(d) {}
  virtual ~RecurrentRule() = default;
  Index d() const { return d_; }
  virtual const RecurrenceForm& form() const = 0;
  virtual std::unique_ptr<LaneRule<T>> make_lane() const = 0;
  /// Of head `head`; by default S and z stepped with the rule.
  virtual std::unique_ptr<HeadMemory<T>> make_memory(Index head) const;
  /// Elements of a lane that the rule keeps from forward to backward.
  virtual Index kept_size(Index tokens) const {
    static_cast<void>(tokens);
    return 0;
  }
  /// Numbers of a lane's state beside S and z.
  virtual Index own_state_size(Index d) const {
    static_cast<void>(d);
    return 0;
  }

 private:
  Index d_;
};

/// The production core (form `recurrent`) on the CPU: float and double, any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_recurrent_core(std::unique_ptr<RecurrentRule<T>> rule);

/// Plain loops in double precision that keep every state.
std::unique_ptr<MixerCore<double>> make_recurrent_reference(
    std::unique_ptr<RecurrentRule<double>> rule);

}  // namespace vla_bench::mixers
