// The recurrence of linear attention, DeltaNet, VLA and their kin on a GPU, forward and backward.
// Mixers differ in what they pass for r, a, q and the decay.
//
// One lane (batch element and head), S (d, d) with value rows i and key columns j, S_0 = 0:
//   1. e_t = v_t - S_{t-1} r_t            residual (e_t = v_t without r)
//   2. S_t = D_t(S_{t-1}) + e_t a_t^T     write; D_t as form.h says
//   3. n_t = S_t q_t;  o_t = c_t n_t      read (c = 1 without a scale)
// Backward, upstream y = dL/do, dn = c y, t = T .. 1, dS carried against time:
//   3. dS += dn q^T;            dq = S_t^T dn
//   2. de = dS a;               da = dS^T e;    dD = sums of dS_ij (S_{t-1})_ij;  dS <- D_t(dS)
//   1. dv = de;  dS -= de r^T;  dr = -S_{t-1}^T de
// dD of a head is the sum over i and j, of row i over j, of column j over i.
//
// Rows of S are independent in 1 and 2, as are rows of dS in the chain of de: both passes give a
// row to a few threads and need no barrier between tokens. Once every de is known, columns are
// independent too: S is computed once more for dq and dr, in time, and dS for da, against time,
// with a column on a few threads. So only e (T, d) is saved from forward to backward, no state.
//
// The decay's gradient needs S and dS of the same token. It takes S from checkpoints every
// checkpoint_tokens tokens: to divide S by its decay on the way back would blow up where the decay
// is near 0, and the identity D dD = <dS_t, S_t> - e_t . de_t, a sum over all later tokens, loses
// its digits where those cancel. A column's is summed up in the column pass, whose threads have
// whole columns, the others in the row pass.
//
// Multiply-adds per token and head: forward 3 d^2; backward 9 d^2, with the decay's gradient 2 d^2
// more; without r 1 d^2 and 3 d^2 less. A decay multiplies each element once more a run: d^2.
//
// Floor on a GPU. A lane's tokens follow each other: the chain of one token is a dot product of d /
// 4 channels, two shuffles and an update, about 80 cycles. At the published size (T = 73, 256 lanes
// on 132 multiprocessors) that is 73 x 80 cycles = 3 us a pass whatever the arithmetic (57 million
// multiply-adds: 2 us) and the bytes (256 lanes x 73 x 5 vectors of 32 floats: 12 MB, in L2).
#pragma once

#include <cuda_runtime_api.h>

#include "mixers/recurrence/form.h"
#include "mixers/recurrence/normaliser.h"
#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

/// Tokens between two checkpoints of S: as many as registers hold states of, a line on a few
/// threads.
constexpr int checkpoint_tokens(Index d) { return d > 128 ? 4 : 8; }

/// Elements of the checkpoints of all lanes.
inline Index checkpoint_size(const HeadDims& dims) {
  const Index d = kernel_head_size(dims.d_h);
  const Index tokens = checkpoint_tokens(d);
  return dims.lanes() * ((dims.tokens + tokens - 1) / tokens) * d * d;
}

/// Inputs of the recurrence, vectors stored as T. d: a head size up to kLargestHead.
template <class T>
struct RecurrenceInputsOf {
  HeadDims dims;
  TokenView<const T> r;  // (B, T, H, d); empty: no residual
  TokenView<const T> a;  // (B, T, H, d)
  TokenView<const T> q;  // (B, T, H, d)
  Decay decay_kind = Decay::none;
  // head: (B, T, H, 1), strides of 0 for a constant; rows, columns: (B, T, H, d)
  TokenView<const float> decay;
  const float* scale = nullptr;  // (B, T, H): c, or null
};
using RecurrenceInputs = RecurrenceInputsOf<float>;

template <class T>
struct RecurrenceForwardOf {
  TokenView<const T> v;          // (B, T, H, d)
  TokenView<T> o;                // (B, T, H, d)
  TokenView<T> e;                // (B, T, H, d); empty: not wanted
  float* checkpoints = nullptr;  // (lanes, segments, d, d): S before each segment; null: not wanted
  // Without r and decay (linear attention) the pass can be its normaliser's as well, in place of
  // the inputs' scale: z_t = z_{t-1} + a_t, c_t = z_t . q_t, o_t = n_t / max(c_t, floor).
  float* denominator = nullptr;  // (B, T, H): c before its floor; null: no normaliser
  float floor = 0.0F;
};
using RecurrenceForward = RecurrenceForwardOf<float>;

struct RecurrenceBackward {
  TokenView<const float> e;    // (B, T, H, d): the forward's; without r: v
  TokenView<const float> d_o;  // (B, T, H, d)
  TokenView<float> de;         // (B, T, H, d): dv as well
  TokenView<float> dq, da;     // (B, T, H, d)
  TokenView<float> dr;         // (B, T, H, d); empty iff r is
  // The decay's gradient, shaped as the decay, with the forward's checkpoints; empty: not wanted.
  TokenView<float> ddecay;
  const float* checkpoints = nullptr;
  NormaliserWalks normaliser{};  // left out when its d_denominator is null
};

void recurrence_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceForward& args);
void recurrence_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& args);

/// Of one head size: recurrence_*.cu are compiled once for each.
template <int D>
void recurrence_forward(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceForward& args);
/// The chain of de and dD of a head or of rows; dq holds a head's row sums in between.
template <int D>
void recurrence_backward_rows(cudaStream_t stream, const RecurrenceInputs& inputs,
                              const RecurrenceBackward& args);
/// dq, dr, da and dD of columns, once de is known.
template <int D>
void recurrence_backward_columns(cudaStream_t stream, const RecurrenceInputs& inputs,
                                 const RecurrenceBackward& args);

/// Calls body(kind of decay, whether there is a residual), both compile-time constants.
template <class Body>
void with_rule(const RecurrenceInputs& inputs, const Body& body) {
  const auto with_residual = [&](auto decay) {
    if (inputs.r.data != nullptr) {
      body(decay, std::true_type());
    } else {
      body(decay, std::false_type());
    }
  };
  switch (inputs.decay_kind) {
    case Decay::none:
      return with_residual(std::integral_constant<Decay, Decay::none>());
    case Decay::head:
      return with_residual(std::integral_constant<Decay, Decay::head>());
    case Decay::rows:
      return with_residual(std::integral_constant<Decay, Decay::rows>());
    case Decay::columns:
      return with_residual(std::integral_constant<Decay, Decay::columns>());
  }
}

}  // namespace vla_bench::mixers::cuda
