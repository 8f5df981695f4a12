// One lane's S and z on the CPU and the forward pass over a tile of tokens: what the production
// core runs over a sequence and a memory one token at a time.
#pragma once

#include "mixers/recurrence/recurrence.h"
#include "mixers/recurrence/scans.h"

namespace vla_bench::mixers {

/// What a forward pass saves for the backward pass of a lane. Null pointers: not wanted.
template <class E>
struct LaneTrace {
  E* e = nullptr;  // (T, stride), with a residual
  E* checkpoints =
      nullptr;  // (tiles, d, stride): S^T before every tile, where the decay has a gradient
  E* denominators = nullptr;  // (T): z . q before its floor, with a normaliser
};

template <class T>
class LaneState {
 public:
  LaneState(const RecurrenceForm& form, Index d);

  /// S = 0, z = 0.
  void reset();
  /// Steps 1 to 4 for the tokens of a tile, which come after all that went before. o: (B, T, H, d).
  void advance(const Tile& tile, const CoreInputs<T>& inputs, LaneRule<T>& rule, HeadView<T> o,
               const LaneTrace<T>& trace);
  /// Steps 1 and 2 for one token whose r, a and decay are in rows().
  void write(const T* v);

  const RecurrenceRows<T>& rows() const { return rows_; }
  const T* transposed_state() const { return state_; }  // (d, stride): S^T
  Index stride() const { return rows_.stride; }

 private:
  void scan(const Tile& tile, T* e);

  RecurrenceForm form_;
  Index d_;
  Array<T> scratch_;
  RecurrenceRows<T> rows_;  // (kTileTokens + 1, stride)
  T *value_, *e_, *out_;    // (kTileTokens, stride)
  T* state_;                // (d, stride)
  T* z_;                    // (stride)
};

/// The factor that D is on a matrix whose columns are value channels (S^T, dS^T)...
constexpr Factor factor_of_value_columns(Decay decay) {
  switch (decay) {
    case Decay::none:
      return Factor::none;
    case Decay::head:
      return Factor::all;
    case Decay::rows:
      return Factor::columns;
    case Decay::columns:
      return Factor::rows;
  }
  return Factor::none;
}
/// ... and on one whose columns are key channels (S, dS).
constexpr Factor factor_of_key_columns(Decay decay) {
  if (decay == Decay::rows) return Factor::rows;
  return decay == Decay::columns ? Factor::columns : factor_of_value_columns(decay);
}

/// Calls body.template operator()<Factor>().
template <class Body>
void with_factor(Factor factor, const Body& body) {
  switch (factor) {
    case Factor::none:
      return body.template operator()<Factor::none>();
    case Factor::all:
      return body.template operator()<Factor::all>();
    case Factor::columns:
      return body.template operator()<Factor::columns>();
    case Factor::rows:
      return body.template operator()<Factor::rows>();
  }
}

/// A tile's rows rounded up to a multiple of kPlainTokens by tokens that do not change M: the new
/// elements of `rows` become 0 and the new factors 1. Returns their number.
template <class T>
Index round_up_rows(Index count, Index stride, std::initializer_list<T*> rows, Decay decay,
                    T* factors) {
  const Index rounded = (count + kPlainTokens - 1) / kPlainTokens * kPlainTokens;
  for (T* row : rows) std::fill_n(row + count * stride, (rounded - count) * stride, T(0));
  if (decay == Decay::head) {
    std::fill_n(factors + count, rounded - count, T(1));
  } else if (decay != Decay::none) {
    std::fill_n(factors + count * stride, (rounded - count) * stride, T(1));
  }
  return rounded;
}

}  // namespace vla_bench::mixers
