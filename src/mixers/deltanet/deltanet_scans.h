// The two scans that production DeltaNet consists of, over the tokens of one tile and a matrix M of
// d rows. Rows hold either S (then M is S or S^T) or its gradient. Both make one pass over M per
// token and keep all sums in registers; columns are independent of each other, so a block of
// columns runs through all tokens before the next one starts and stays in L1.
//
// Row t of an array of rows belongs to token t of the tile.
#pragma once

#include "mixers/state_kernels.h"

namespace vla_bench::mixers::deltanet {

/// What multiplies M before an update: nothing, a factor per column, or a factor per row.
enum class Gate { none, columns, rows };

/// For t = 0, 1, ...: M <- gate_t M + x_t y_t^T;  out_t = c_t^T M;  and ahead_{t+1} =
/// next_{t+1}^T M, what the next token reads before its own update (ahead_0 is read first).
template <class T>
struct WriteScan {
  Index d, stride, count;
  T* m;           // (d, stride)
  const T* gate;  // (count, stride), unused for Gate::none
  const T* x;     // (count, stride), coefficients of rows
  const T* c;     // (count, stride), coefficients of rows
  const T* next;  // (count + 1, stride), coefficients of rows; the last row's product is dropped
  T* out;         // (count, stride)
};

/// `prepare(t, column, ahead, y)` receives N vectors of ahead_t from `column` on and sets y_t.
template <Gate kGate, class T, class Prepare>
void write_scan(const WriteScan<T>& args, const Prepare& prepare) {
  constexpr Index W = kVectorLength<T>;
  const Index d = args.d;
  const Index stride = args.stride;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    Vector<T> ahead[N] = {};
    for (Index j = 0; j < d; ++j) {
      const Vector<T> cj = broadcast(args.next[j]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) ahead[n] += cj * load(args.m + j * stride + column + n * W);
    }
    for (Index t = 0; t < args.count; ++t) {
      Vector<T> y[N];
      prepare(t, column, ahead, y);
      Vector<T> gate[N];
      Vector<T> sum[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        if constexpr (kGate == Gate::columns) {
          gate[n] = load(args.gate + t * stride + column + n * W);
        }
        sum[n] = Vector<T>{};
        ahead[n] = Vector<T>{};
      }
      const T* x = args.x + t * stride;
      const T* c = args.c + t * stride;
      const T* next = args.next + (t + 1) * stride;
      for (Index j = 0; j < d; ++j) {
        T* row = args.m + j * stride + column;
        const Vector<T> xj = broadcast(x[j]);
        const Vector<T> cj = broadcast(c[j]);
        const Vector<T> nj = broadcast(next[j]);
        Vector<T> gate_row{};
        if constexpr (kGate == Gate::rows) gate_row = broadcast(args.gate[t * stride + j]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          Vector<T> fresh = load(row + n * W);
          if constexpr (kGate == Gate::columns) fresh *= gate[n];
          if constexpr (kGate == Gate::rows) fresh *= gate_row;
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

/// For t = 1, 2, ..., `count`: M <- gate_{t-1} M - x_{t-1} y_{t-1}^T + p_t s_t^T; out_t = c_t^T M.
/// Row 0 belongs to the token visited before this tile (zeros for the first). With Gate::columns
/// also dgate_t, the sums over rows of M times the state before token t, elementwise.
template <class T>
struct AdjointScan {
  Index d, stride, count;
  T* m;                        // (d, stride)
  const T* gate;               // (count + 1, stride), unused for Gate::none
  const T* x;                  // (count + 1, stride), coefficients of rows
  const T* y;                  // (count + 1, stride)
  const T* p;                  // (count + 1, stride), coefficients of rows
  const T* s;                  // (count + 1, stride)
  const T* c;                  // (count + 1, stride), coefficients of rows
  const T* history = nullptr;  // (count, d, stride), in the order of time; Gate::columns alone
  T* dgate = nullptr;          // (count + 1, stride); Gate::columns alone
};

/// The states of a tile in the order of time: H_0 is given, H_{t+1} = gate_t H_t + x_t y_t^T with
/// the gate along columns. Rows are those of an AdjointScan: token t of `count` is row count - t.
template <class T>
void recompute_history(const AdjointScan<T>& scan, const T* updates, T* history) {
  constexpr Index W = kVectorLength<T>;
  const Index size = scan.d * scan.stride;
  for (Index t = 0; t + 1 < scan.count; ++t) {
    const Index at = (scan.count - t) * scan.stride;
    const T* before = history + t * size;
    for (Index j = 0; j < scan.d; ++j) {
      const Vector<T> xj = broadcast(scan.x[at + j]);
      for (Index i = 0; i < scan.stride; i += W) {
        const Index element = j * scan.stride + i;
        store(history + (t + 1) * size + element,
              load(before + element) * load(scan.gate + at + i) + xj * load(updates + at + i));
      }
    }
  }
}

/// `finish(t, column, out)` receives N vectors of out_t and may write row t of y from them.
template <Gate kGate, class T, class Finish>
void adjoint_scan(const AdjointScan<T>& args, const Finish& finish) {
  constexpr Index W = kVectorLength<T>;
  const Index d = args.d;
  const Index stride = args.stride;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    for (Index t = 1; t <= args.count; ++t) {
      Vector<T> gate[N];
      Vector<T> y[N];
      Vector<T> s[N];
      Vector<T> out[N];
      Vector<T> dgate[N];
      const T* state = nullptr;
      if constexpr (kGate == Gate::columns) {
        state = args.history + (args.count - t) * d * stride + column;
      }
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const Index at = t * stride + column + n * W;
        dgate[n] = Vector<T>{};
        if constexpr (kGate == Gate::columns) gate[n] = load(args.gate + at - stride);
        y[n] = -load(args.y + at - stride);
        s[n] = load(args.s + at);
        out[n] = Vector<T>{};
      }
      const T* x = args.x + (t - 1) * stride;
      const T* p = args.p + t * stride;
      const T* c = args.c + t * stride;
      for (Index j = 0; j < d; ++j) {
        T* row = args.m + j * stride + column;
        const Vector<T> xj = broadcast(x[j]);
        const Vector<T> pj = broadcast(p[j]);
        const Vector<T> cj = broadcast(c[j]);
        Vector<T> gate_row{};
        if constexpr (kGate == Gate::rows) gate_row = broadcast(args.gate[(t - 1) * stride + j]);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          Vector<T> fresh = load(row + n * W);
          if constexpr (kGate == Gate::columns) fresh *= gate[n];
          if constexpr (kGate == Gate::rows) fresh *= gate_row;
          fresh += xj * y[n];
          fresh += pj * s[n];
          store(row + n * W, fresh);
          out[n] += cj * fresh;
          if constexpr (kGate == Gate::columns) {
            dgate[n] += fresh * load(state + j * stride + n * W);
          }
        }
      }
      if constexpr (kGate == Gate::columns) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) store(args.dgate + t * stride + column + n * W, dgate[n]);
      }
      finish(t, column, out);
    }
  });
}

}  // namespace vla_bench::mixers::deltanet
