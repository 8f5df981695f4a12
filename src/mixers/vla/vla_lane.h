// One lane (batch element and head) of production VLA: state, the tokens of one segment, and the
// two passes over a segment. Numbers in parentheses are the steps of vla.h.
#pragma once

#include "mixers/vla/vla.h"

namespace vla_bench::mixers::vla {

/// Tokens handled together: the penalty path of all of them, then the memory path, so that only one
/// d x d state is hot at a time. Also the distance of the checkpoints the backward restarts from;
/// 16 histories of both states stay within a 1 MiB L2 up to d = 64 in float.
inline constexpr Index kSegment = 16;

template <class T>
struct Settings {
  Index d = 0;
  Index stride = 0;  // padded<T>(d)
  FeatureMap feature_map = FeatureMap::elu1;
  Penalty penalty = Penalty::learned;
  bool unit_write = true;
  bool tied = false;  // residual read along the write direction
  bool normalise = true;
  Index period = 0;
  T u_scale = 0, inverse_lambda = 0, per_eps = 0, stab_eps = 0;

  Settings(const VlaOptions& config, Index d_h);
  bool has_penalty() const { return penalty != Penalty::frozen; }
  bool nudged(Index token) const { return period > 0 && (token + 1) % period == 0; }
  Index state_size() const { return d * stride * (has_penalty() ? 2 : 1) + stride; }
};

/// S transposed (row j = key channel j), z and A in one block, so that a checkpoint is one copy.
/// E is the element type, const for a checkpoint.
template <class E>
struct LaneState {
  E* s;  // (d, stride), S^T
  E* z;  // (stride)
  E* a;  // (d, stride), null when frozen

  template <class T>
  LaneState(const Settings<T>& settings, E* block)
      : s(block),
        z(block + settings.d * settings.stride),
        a(settings.has_penalty() ? z + settings.stride : nullptr) {}
};

/// S = 0, z = 0, A = I / lambda_0.
template <class T>
void reset(const Settings<T>& settings, LaneState<T> state);

/// What the recurrence leaves behind for the backward, consecutive tokens. Scalars are kept before
/// their clamp so that the backward knows which side it was on.
template <class E>
struct Trace {
  E* e;            // (count, stride)
  E* a;            // (count, stride)
  E* w;            // (count, stride), w / sqrt(delta); unused when frozen
  E* b_norm;       // (count), |b|
  E* delta;        // (count), 1 + u.w
  E* denominator;  // (count), z.q'

  Trace from(Index token, Index stride) const {
    return {e + token * stride, a + token * stride, w + token * stride,
            b_norm + token,     delta + token,      denominator + token};
  }
};

/// Features of a segment's tokens (1), zero tails.
template <class T>
struct Features {
  T* q;       // (count, stride), q'
  T* f;       // (count, stride)
  T* k;       // (count, stride)
  T* u;       // (count + 1, stride); the extra row is zero
  T* f_norm;  // (count)
  T* u_norm;  // (count), |aux|
};

/// Where the raw projections of consecutive tokens of one lane stand.
template <class T>
struct LaneInputs {
  const T *q, *k, *v, *aux;                        // first token; aux may be null
  Index q_stride, k_stride, v_stride, aux_stride;  // elements from token to token
};

template <class T>
LaneInputs<T> lane_inputs(const CoreInputs<T>& inputs, Index batch, Index head, Index token);

/// (1)
template <class T>
void compute_features(const Settings<T>& settings, const LaneInputs<T>& inputs, Index count,
                      const Features<T>& features);

/// (2) to (8) for `count` <= kSegment tokens, the first being token `first` (from 0) of its lane.
/// o holds rows of o_stride elements. `work` is 3 * stride elements.
template <class T>
void advance(const Settings<T>& settings, LaneState<T> state, const Features<T>& features,
             const T* v, Index v_stride, Index first, Index count, const Trace<T>& trace, T* o,
             Index o_stride, T* work);

}  // namespace vla_bench::mixers::vla
