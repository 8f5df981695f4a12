// A chunk's tokens where the rows of M decay apart, as those of S^T and dS^T do that belong to key
// channels. With Gamma of a row, the product of its decays and never a quotient of two, and places
// p and s of tokens in the order of the pass,
//   in time        o_p = Gamma(0, p) M q_p + sum over s <= p of Gamma(s, p) v_s P(p, s)
//                  e_p = -Gamma(0, p - 1) M r_p - sum over s < p of Gamma(s, p - 1) v_s X(p, s)
//   against time   o_p = Gamma(p, C) M a_p + sum over s <= p of Gamma(p, s) v_s P(p, s)
//                                          - sum over s < p of Gamma(p, s - 1) w_s X(p, s)
// P and X are Gram matrices of vectors along the rows: the sums would be products with them if
// Gamma were one for all rows. A thread takes them for its two rows and four tokens, s falling from
// p, with Gamma grown by a decay a step: 16 tokens a chunk keep that below the products with M.
#pragma once

#include "mixers/recurrence/chunk_channels.cuh"

namespace vla_bench::mixers::cuda {

/// The decays of a thread's two rows, 2 g and 2 g + 1 of its warp's.
template <class Rule>
struct RowDecays {
  static constexpr int C = Rule::C;
  static constexpr int kStride = kRowWords<Rule::D>;
  static constexpr int kReads = Rule::kInTime && Rule::kHasR ? 2 : 1;
  using Rows = typename Rule::Rows;
  using Tiles = float[C / 8][4];
  static_assert(C == 16 && !Rule::kSolves);

  const Place& at;
  const int row;
  // Of the thread's tokens: the decays between the chunk's start and the token, its own, and those
  // between the token and the chunk's end; in the order of the pass.
  float before[C / 8][2][2], own[C / 8][2][2], behind[C / 8][2][2];

  __device__ RowDecays(const Place& at_, int first_row, const Rows& rows)
      : at(at_), row(first_row + 2 * at_.g) {
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        set(own[b][h], pair_of(rows.decays + place(b, h) * kStride + row));
        set(before[b][h], make_float2(1.0F, 1.0F));
        set(behind[b][h], make_float2(1.0F, 1.0F));
      }
    }
#pragma unroll
    for (int s = 0; s < C; ++s) {
      float decay[2];
      set(decay, pair_of(rows.decays + s * kStride + row));
#pragma unroll
      for (int b = 0; b < C / 8; ++b) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (s < place(b, h)) before[b][h][i] *= decay[i];
            if (s > place(b, h)) behind[b][h][i] *= decay[i];
          }
        }
      }
    }
  }

  /// n: M times the tokens' vectors, becomes what the pass puts out. x: v of the thread's tokens,
  /// times their scale.
  __device__ void read(const Rows& rows, const typename Rule::Products& products, const Tiles& x,
                       Tiles (&n)[kReads]) const {
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
      float earlier[kReads][2][2] = {};
      add_earlier(b, rows, products, earlier);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int place_of_own = 4 * at.t + 2 * b + h;  // the token's word in its row
        const float weight = products.p[place(b, h) * kRowWords<C> + place_of_own];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int c = 2 * i + h;
          float sum = fmaf(before[b][h][i], n[0][b][c], earlier[0][h][i]);
          if constexpr (Rule::kInTime) sum *= own[b][h][i];
          n[0][b][c] = fmaf(weight, x[b][c], sum);
          if constexpr (kReads == 2) {
            n[1][b][c] = fmaf(-before[b][h][i], n[1][b][c], earlier[1][h][i]);
          }
        }
      }
    }
  }
  /// What the chunk's end has of x, v of the thread's tokens, and against time of w, which is taken
  /// away.
  __device__ void decay_writes(Tiles& x, Tiles& w) const {
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float left = behind[b][c % 2][c / 2];
        x[b][c] *= Rule::kInTime ? left : left * own[b][c % 2][c / 2];
        if constexpr (Rule::kHasW) w[b][c] *= -left;
      }
    }
  }
  /// M from the chunk's start to its end.
  __device__ void decay_state(TileRow<Rule::D / 8>& s) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float left = before[0][0][i] * own[0][0][i] * behind[0][0][i];
#pragma unroll
      for (int tile = 0; tile < Rule::D / 8; ++tile) {
        s[tile][2 * i] *= left;
        s[tile][2 * i + 1] *= left;
      }
    }
  }

 private:
  __device__ static void set(float (&to)[2], const float2& pair) {
    to[0] = pair.x;
    to[1] = pair.y;
  }
  /// Of token h of the thread's two in tile b.
  __device__ int place(int b, int h) const { return 8 * b + at.token(h); }

  /// The sums over s < p for the tokens of tile b; in time without the decay of p.
  __device__ void add_earlier(int b, const Rows& rows, const typename Rule::Products& products,
                              float (&sums)[kReads][2][2]) const {
    float gamma[2][2] = {{1.0F, 1.0F}, {1.0F, 1.0F}};
#pragma unroll
    for (int s = C - 2; s >= 0; --s) {
      if (s > 8 * b + 6) continue;
      float decay[2], v[2], w[2];
      set(decay, pair_of(rows.decays + s * kStride + row));
      set(v, pair_of(rows.v + s * kStride + row));
      if constexpr (!Rule::kInTime) {
        v[0] *= rows.scale[s];
        v[1] *= rows.scale[s];
      }
      if constexpr (Rule::kHasW) set(w, pair_of(rows.w + s * kStride + row));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (s >= place(b, h)) continue;
        const int at_pair = place(b, h) * kRowWords<C> + word_of_token(s);
        const float p = products.p[at_pair];
        float x = 0.0F;  // X is put down with its sign
        if constexpr (Rule::kHasR) x = products.x[at_pair];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& left = gamma[h][i];
          if constexpr (Rule::kInTime) {
            const float now = left * v[i];
            sums[0][h][i] = fmaf(now, p, sums[0][h][i]);
            if constexpr (kReads == 2) sums[1][h][i] = fmaf(now, x, sums[1][h][i]);
            left *= decay[i];
          } else {
            if constexpr (Rule::kHasW) sums[0][h][i] = fmaf(left * w[i], x, sums[0][h][i]);
            left *= decay[i];
            sums[0][h][i] = fmaf(left * v[i], p, sums[0][h][i]);
          }
        }
      }
    }
  }
};

}  // namespace vla_bench::mixers::cuda
