// The scans that the recurrence consists of on the CPU, over consecutive tokens and a matrix M of d
// rows, which is S, its gradient dS, or the transpose of one of them. Each makes one pass over M
// per token (per four tokens in `plain_scan`) and keeps all sums in registers. Columns are
// independent of each other: a block of columns runs through all tokens of a tile before the next
// one starts, and stays in L1.
//
// Row t of an array of rows belongs to token t of the tile, in the order in which tokens are
// visited.
#pragma once

#include "core/vectors.h"
#include "mixers/recurrence/form.h"

namespace vla_bench::mixers {

/// What multiplies M: nothing, a factor per token, per column or per row.
enum class Factor { none, all, columns, rows };

/// The factors of token t on N vectors of columns from `column` on, held in registers: a store
/// through a vector may alias anything, so the compiler would load them again for every row of M.
/// Rows of `factors`: (count) for Factor::all, else (count, stride).
template <Factor kFactor, int N, class T>
struct FactorAt {
  FactorAt() = default;
  FactorAt(const T* factors, Index stride, Index t, Index column) {
    if constexpr (kFactor == Factor::all) held[0] = broadcast(factors[t]);
    if constexpr (kFactor == Factor::columns) {
      for (int n = 0; n < N; ++n) {
        held[n] = load(factors + t * stride + column + n * kVectorLength<T>);
      }
    }
    if constexpr (kFactor == Factor::rows) row = factors + t * stride;
  }

  /// Of row j and vector n of its columns.
  void apply(Vector<T>& m, Index j, int n) const {
    if constexpr (kFactor == Factor::all) m *= held[0];
    if constexpr (kFactor == Factor::columns) m *= held[n];
    if constexpr (kFactor == Factor::rows) m *= broadcast(row[j]);
  }

  Vector<T> held[kFactor == Factor::columns ? N : 1];
  const T* row = nullptr;
};

/// Tokens that share a pass over M in plain_scan: a row is loaded and stored once for four updates
/// and four reads.
inline constexpr Index kPlainTokens = 4;

/// For t = 0, 1, ...: M <- M + x_t y_t^T (in time: M <- D_t M + x_t y_t^T); out_t = c_t^T M;
/// against time: M <- D_t M. Nothing depends on what M holds, so tokens can share passes.
template <class T>
struct PlainScan {
  Index d, stride;
  Index coefficient_stride = stride;
  Index count;       // a multiple of kPlainTokens; tokens beyond the last have x = 0 and D = 1
  T* m;              // (d, stride)
  const T* x;        // (count, coefficient_stride), coefficients of rows
  const T* y;        // (count, stride)
  const T* c;        // (count, coefficient_stride), coefficients of rows
  T* out;            // (count, stride)
  const T* factors;  // rows of D, unused for Factor::none
};

template <Factor kFactor, bool kAgainstTime, class T>
void plain_scan(const PlainScan<T>& args) {
  constexpr Index W = kVectorLength<T>;
  constexpr Index U = kPlainTokens;
  for_column_blocks<T>(args.stride, [&]<int N>(Index column) {
    // Copied, for the compiler would load a captured reference again after every store.
    const Index d = args.d;
    const Index stride = args.stride;
    const Index across = args.coefficient_stride;
    for (Index t = 0; t < args.count; t += U) {
      const T* x = args.x + t * across;
      const T* c = args.c + t * across;
      // Two vectors of columns at a time: their four updates and four sums fill 16 registers.
      constexpr int P = N < 2 ? N : 2;
      for (int part = 0; part < N; part += P) {
        const Index at = column + part * W;
        Vector<T> y[U][P];
        Vector<T> sum[U][P] = {};
        FactorAt<kFactor, P, T> factors[U];
#pragma GCC unroll 4
        for (Index u = 0; u < U; ++u) {
          factors[u] = {args.factors, stride, t + u, at};
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) y[u][n] = load(args.y + (t + u) * stride + at + n * W);
        }
        T* const block = args.m + at;
        for (Index j = 0; j < d; ++j) {
          T* row = block + j * stride;
          Vector<T> m[P];
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) m[n] = load(row + n * W);
#pragma GCC unroll 4
          for (Index u = 0; u < U; ++u) {
            const Vector<T> xj = broadcast(x[u * across + j]);
            const Vector<T> cj = broadcast(c[u * across + j]);
#pragma GCC unroll 2
            for (int n = 0; n < P; ++n) {
              if constexpr (!kAgainstTime) factors[u].apply(m[n], j, n);
              m[n] += xj * y[u][n];
              sum[u][n] += cj * m[n];
              if constexpr (kAgainstTime) factors[u].apply(m[n], j, n);
            }
          }
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) store(row + n * W, m[n]);
        }
#pragma GCC unroll 4
        for (Index u = 0; u < U; ++u) {
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) store(args.out + (t + u) * stride + at + n * W, sum[u][n]);
        }
      }
    }
  });
}

/// For t = 0, 1, ...: M <- D_t M + x_t y_t^T;  out_t = c_t^T M;  and ahead_{t+1} = next_{t+1}^T M,
/// what the next token reads before its own update (ahead_0 is read first).
template <class T>
struct WriteScan {
  Index d, stride, count;
  T* m;              // (d, stride)
  const T* factors;  // rows of D, unused for Factor::none
  const T* x;        // (count, stride), coefficients of rows
  const T* c;        // (count, stride), coefficients of rows
  const T* next;     // (count + 1, stride), coefficients of rows; the last row's product is dropped
  T* out;            // (count, stride)
};

/// `prepare(t, column, ahead, y)` receives N vectors of ahead_t from `column` on and sets y_t.
template <Factor kFactor, class T, class Prepare>
void write_scan(const WriteScan<T>& args, const Prepare& prepare) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(args.stride, [&]<int N>(Index column) {
    const Index d = args.d;
    const Index stride = args.stride;
    Vector<T> ahead[N] = {};
    for (Index j = 0; j < d; ++j) {
      const Vector<T> cj = broadcast(args.next[j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) ahead[n] += cj * load(args.m + j * stride + column + n * W);
    }
    T* const m = args.m + column;
    for (Index t = 0; t < args.count; ++t) {
      Vector<T> y[N];
      prepare(t, column, ahead, y);
      const FactorAt<kFactor, N, T> factor(args.factors, stride, t, column);
      Vector<T> sum[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n] = ahead[n] = Vector<T>{};
      const T* x = args.x + t * stride;
      const T* c = args.c + t * stride;
      const T* next = args.next + (t + 1) * stride;
      for (Index j = 0; j < d; ++j) {
        T* row = m + j * stride;
        const Vector<T> xj = broadcast(x[j]);
        const Vector<T> cj = broadcast(c[j]);
        const Vector<T> nj = broadcast(next[j]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          Vector<T> fresh = load(row + n * W);
          factor.apply(fresh, j, n);
          fresh += xj * y[n];
          store(row + n * W, fresh);
          sum[n] += cj * fresh;
          ahead[n] += nj * fresh;
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store(args.out + t * stride + column + n * W, sum[n]);
    }
  });
}

/// For t = 1, 2, ..., `count`: M <- D_{t-1} M - x_{t-1} y_{t-1}^T + p_t s_t^T;  out_t = c_t^T M.
/// Row 0 belongs to the token visited before this tile. Without a residual x and y are left out.
/// With `history` also dfactor_t: M times the state before token t, elementwise, summed over rows.
template <class T>
struct AdjointScan {
  Index d, stride, count;
  T* m;                        // (d, stride)
  const T* factors;            // count + 1 rows of D, unused for Factor::none
  const T* x;                  // (count + 1, stride), coefficients of rows
  const T* y;                  // (count + 1, stride)
  const T* p;                  // (count + 1, stride), coefficients of rows
  const T* s;                  // (count + 1, stride)
  const T* c;                  // (count + 1, stride), coefficients of rows
  const T* history = nullptr;  // (count, d, stride), in the order of time
  T* dfactor = nullptr;        // (count + 1, stride), with history
};

/// `finish(t, column, out)` receives N vectors of out_t and may write row t of y from them.
template <Factor kFactor, bool kResidual, bool kHistory, class T, class Finish>
void adjoint_scan(const AdjointScan<T>& args, const Finish& finish) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(args.stride, [&]<int N>(Index column) {
    const Index d = args.d;
    const Index stride = args.stride;
    T* const m = args.m + column;
    for (Index t = 1; t <= args.count; ++t) {
      Vector<T> y[N] = {};
      Vector<T> s[N];
      Vector<T> out[N] = {};
      Vector<T> dfactor[N] = {};
      const FactorAt<kFactor, N, T> factor(args.factors, stride, t - 1, column);
      const T* state = nullptr;
      if constexpr (kHistory) state = args.history + (args.count - t) * d * stride + column;
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Index at = t * stride + column + n * W;
        if constexpr (kResidual) y[n] = negative(load(args.y + at - stride));
        s[n] = load(args.s + at);
      }
      const T* x = args.x + (t - 1) * stride;
      const T* p = args.p + t * stride;
      const T* c = args.c + t * stride;
      for (Index j = 0; j < d; ++j) {
        T* row = m + j * stride;
        Vector<T> xj{};
        if constexpr (kResidual) xj = broadcast(x[j]);
        const Vector<T> pj = broadcast(p[j]);
        const Vector<T> cj = broadcast(c[j]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          Vector<T> fresh = load(row + n * W);
          factor.apply(fresh, j, n);
          if constexpr (kResidual) fresh += xj * y[n];
          fresh += pj * s[n];
          store(row + n * W, fresh);
          out[n] += cj * fresh;
          if constexpr (kHistory) dfactor[n] += fresh * load(state + j * stride + n * W);
        }
      }
      if constexpr (kHistory) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(args.dfactor + t * stride + column + n * W, dfactor[n]);
      }
      finish(t, column, out);
    }
  });
}

/// The states of a tile in the order of time: H_0 is given, H_{t+1} = D_t H_t + x_t y_t^T. Rows are
/// those of an AdjointScan: token t of `count` is row count - t.
template <Factor kFactor, class T>
void recompute_history(const AdjointScan<T>& scan, const T* x, const T* y, T* history) {
  constexpr Index W = kVectorLength<T>;
  const Index d = scan.d;
  const Index stride = scan.stride;
  const Index count = scan.count;
  const T* factors = scan.factors;
  for (Index t = 0; t + 1 < count; ++t) {
    const Index at = count - t;
    for_column_blocks<T>(stride, [=]<int N>(Index column) {
      const FactorAt<kFactor, N, T> factor(factors, stride, at, column);
      Vector<T> added[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) added[n] = load(y + at * stride + column + n * W);
      const T* before = history + t * d * stride + column;
      T* after = history + (t + 1) * d * stride + column;
      for (Index j = 0; j < d; ++j) {
        const Vector<T> xj = broadcast(x[at * stride + j]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          Vector<T> state = load(before + j * stride + n * W);
          factor.apply(state, j, n);
          state += xj * added[n];
          store(after + j * stride + n * W, state);
        }
      }
    });
  }
}

}  // namespace vla_bench::mixers
