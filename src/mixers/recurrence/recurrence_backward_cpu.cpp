// recurrent_core.h: the backward of one lane, against time and in time.
#include "mixers/recurrence/recurrent_core.h"

namespace vla_bench::mixers {

/// dn and dc of a tile.
template <class T>
void RecurrentCore<T>::take_upstream(const Lane& lane, const Tile& tile, T* dn) const {
  gather(tile, lane.gradients.d_o, d_, dn, stride_);
  if (!form_.normalises()) return;
  const T floor = static_cast<T>(form_.floor);
  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    const T denominator = lane.trace.denominators[row - tile.batch * tile.tokens];
    const T scale = 1 / std::max(denominator, floor);
    const T* o = lane.gradients.o.at(row, tile.head);
    T* g = dn + i * stride_;
    T along = 0;
#pragma omp simd reduction(+ : along)
    for (Index j = 0; j < d_; ++j) {
      along += g[j] * o[j];
      g[j] *= scale;
    }
    lane.scratch.d_denominator[i] = denominator < floor ? T(0) : -along * scale;
  }
}

/// e of a tile: saved, or the values.
template <class T>
void RecurrentCore<T>::take_residuals(const Lane& lane, const Tile& tile, T* e) const {
  if (!form_.has_residual()) {
    gather(tile, lane.inputs.v, d_, e, stride_);
    return;
  }
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.row(i) - tile.batch * tile.tokens;
    std::copy_n(lane.trace.e + token * stride_, stride_, e + i * stride_);
  }
}

/// What S needs to be run through again: the rows of a tile against time, kept for the whole
/// lane...
template <class T>
void RecurrentCore<T>::keep_rows(const Lane& lane, const Tile& tile,
                                 const RecurrenceRows<T>& rows) const {
  const BackwardScratch<T>& s = lane.scratch;
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.row(i) - tile.batch * tile.tokens;
    std::copy_n(rows.a + i * stride_, stride_, s.a + token * stride_);
    if (form_.has_f()) std::copy_n(rows.f + i * stride_, stride_, s.f + token * stride_);
    if (form_.decay == Decay::head) {
      s.decay[token] = rows.decay[i];
    } else if (form_.decay != Decay::none) {
      std::copy_n(rows.decay + i * stride_, stride_, s.decay + token * stride_);
    }
  }
}

/// ... and taken from there in time.
template <class T>
void RecurrentCore<T>::take_rows(const Lane& lane, const Tile& tile) const {
  const BackwardScratch<T>& s = lane.scratch;
  const Index at = tile.first * stride_;
  const Index size = tile.count * stride_;
  std::copy_n(s.a + at, size, s.rows.a);
  if (form_.has_f()) std::copy_n(s.f + at, size, s.rows.f);
  if (form_.decay == Decay::head) {
    std::copy_n(s.decay + tile.first, tile.count, s.rows.decay);
  } else if (form_.decay != Decay::none) {
    std::copy_n(s.decay + at, size, s.rows.decay);
  }
}

/// 3, against time: dz, and df (added to da where f is a).
template <class T>
void RecurrentCore<T>::normaliser_backward(const Lane& lane, const Tile& tile, const T* q) const {
  T* const dz = lane.scratch.z;
  for (Index i = 0; i < tile.count; ++i) {
    const Index at = (tile.row(i) - tile.batch * tile.tokens) * stride_;
    const T dc = lane.scratch.d_denominator[i];
    for (Index j = 0; j < stride_; ++j) dz[j] += dc * q[i * stride_ + j];
    T* const df = form_.has_f() ? lane.scratch.df + at : lane.scratch.da + at;
    for (Index j = 0; j < stride_; ++j) df[j] += dz[j];
  }
}

template <class T>
template <bool kAgainstTime>
void RecurrentCore<T>::plain(Factor factor, Index count, T* m, const T* x, const T* y, const T* c,
                             T* out, const T* factors) const {
  const PlainScan<T> scan{.d = d_,
                          .stride = stride_,
                          .count = count,
                          .m = m,
                          .x = x,
                          .y = y,
                          .c = c,
                          .out = out,
                          .factors = factors};
  with_factor(factor, [&]<Factor kFactor>() { plain_scan<kFactor, kAgainstTime>(scan); });
}

/// Without a residual and a gradient of the decay: nothing hangs on what dS holds.
template <class T>
void RecurrentCore<T>::plain_tile_against_time(const Lane& lane, const Tile& tile) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  lane.rule.rebind(tile, lane.inputs, rows);
  keep_rows(lane, tile, rows);
  take_upstream(lane, tile, s.dn);
  take_residuals(lane, tile, s.e);
  const Index rounded =
      round_up_rows<T>(tile.count, stride_, {rows.q, rows.a, s.dn, s.e}, form_.decay, rows.decay);
  plain<true>(factor_of_value_columns(form_.decay), rounded, s.state, rows.q, s.dn, rows.a, s.de,
              rows.decay);
  plain<true>(key_factor_, rounded, s.other_state, s.dn, rows.q, s.e, s.out, rows.decay);
  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    std::copy_n(s.de + i * stride_, d_, lane.gradients.dv.at(row, tile.head));
    add_row(s.out + i * stride_, s.da + (row - tile.batch * tile.tokens) * stride_);
  }
  if (form_.normalises()) normaliser_backward(lane, tile, rows.q);
}

template <class T>
void RecurrentCore<T>::adjoint(Factor factor, bool history, const AdjointScan<T>& scan,
                               T* out) const {
  const auto keep = [out, this]<int N>(Index t, Index column, const Vector<T>(&sums)[N]) {
    for (int n = 0; n < N; ++n) store(out + t * stride_ + column + n * kVectorLength<T>, sums[n]);
  };
  with_factor(factor, [&]<Factor kFactor>() {
    if constexpr (kFactor == Factor::all || kFactor == Factor::columns) {
      if (history) {
        return form_.has_residual() ? adjoint_scan<kFactor, true, true>(scan, keep)
                                    : adjoint_scan<kFactor, false, true>(scan, keep);
      }
    }
    return form_.has_residual() ? adjoint_scan<kFactor, true, false>(scan, keep)
                                : adjoint_scan<kFactor, false, false>(scan, keep);
  });
}

/// dS of a tile, once with value channels along its columns (de) and once with key channels (da).
template <class T>
void RecurrentCore<T>::tile_against_time(const Lane& lane, const Tile& tile) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  lane.rule.rebind(tile, lane.inputs, s.behind_first(form_.decay));
  keep_rows(lane, tile, s.behind_first(form_.decay));
  take_upstream(lane, tile, s.dn + stride_);
  take_residuals(lane, tile, s.e + stride_);
  AdjointScan<T> scan{.d = d_,
                      .stride = stride_,
                      .count = tile.count,
                      .m = s.state,
                      .factors = rows.decay,
                      .x = directions(rows),
                      .y = s.de,
                      .p = rows.q,
                      .s = s.dn,
                      .c = rows.a,
                      .history = s.history,
                      .dfactor = s.dfactor};
  const T* checkpoint = nullptr;
  if (form_.decay_has_gradient) {
    checkpoint =
        lane.trace.checkpoints + (tile.first - tile.count + 1) / kTileTokens * d_ * stride_;
  }
  const bool first_has_history = checkpoint != nullptr && !takes_dD_of_columns();
  if (first_has_history) {
    std::copy_n(checkpoint, d_ * stride_, s.history);
    with_factor(factor_of_value_columns(form_.decay), [&]<Factor kFactor>() {
      recompute_history<kFactor>(scan, rows.a, s.e, s.history);
    });
  }
  adjoint(factor_of_value_columns(form_.decay), first_has_history, scan, s.de);

  scan.m = s.other_state;
  scan.x = s.de;
  scan.y = directions(rows);
  scan.p = s.dn;
  scan.s = rows.q;
  scan.c = s.e;
  const bool second_has_history = checkpoint != nullptr && takes_dD_of_columns();
  if (second_has_history) {
    for (Index i = 0; i < d_; ++i) {
      for (Index j = 0; j < d_; ++j) s.history[i * stride_ + j] = checkpoint[j * stride_ + i];
    }
    recompute_history<Factor::columns>(scan, s.e, rows.a, s.history);
  }
  adjoint(key_factor_, second_has_history, scan, s.out);

  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    const Index token = row - tile.batch * tile.tokens;
    const Index at = (i + 1) * stride_;
    std::copy_n(s.de + at, d_, lane.gradients.dv.at(row, tile.head));
    add_row(s.out + at, s.da + token * stride_);
    if (form_.decay_has_gradient && form_.decay == Decay::head) {
      T sum = 0;
      for (Index j = 0; j < d_; ++j) sum += s.dfactor[at + j];
      s.ddecay[token] += sum;
    } else if (form_.decay_has_gradient) {
      add_row(s.dfactor + at, s.ddecay + token * stride_);
    }
  }
  if (form_.normalises()) normaliser_backward(lane, tile, rows.q + stride_);
  for (T* row : {rows.r, rows.a, s.de}) std::copy_n(row + tile.count * stride_, stride_, row);
  if (form_.decay == Decay::head) {
    rows.decay[0] = rows.decay[tile.count];
  } else {
    std::copy_n(rows.decay + tile.count * stride_, stride_, rows.decay);
  }
}

/// Overwrites dv; adds to da, df and dD.
template <class T>
void RecurrentCore<T>::against_time(const Lane& lane) const {
  BackwardScratch<T>& s = lane.scratch;
  for (T* state : {s.state, s.other_state}) std::fill_n(state, d_ * stride_, T(0));
  std::fill_n(s.z, stride_, T(0));
  // No token was visited before the first.
  for (T* row : {s.rows.r, s.rows.a, s.rows.decay, s.de}) std::fill_n(row, stride_, T(0));
  const bool is_plain = !form_.has_residual() && !form_.decay_has_gradient;
  for_each_tile(lane.batch, lane.head, lane.inputs.dims.tokens, true, [&](const Tile& tile) {
    is_plain ? plain_tile_against_time(lane, tile) : tile_against_time(lane, tile);
  });
}

/// S once more in time, with key channels along its columns: adds to dq and dr.
template <class T>
void RecurrentCore<T>::in_time(const Lane& lane) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  std::fill_n(s.state, d_ * stride_, T(0));
  std::fill_n(s.z, stride_, T(0));
  const auto next_direction = [&]<int N>(Index t, Index column, const Vector<T>(&read)[N],
                                         Vector<T>(&y)[N]) {
    for (int n = 0; n < N; ++n) {
      const Index at = t * stride_ + column + n * kVectorLength<T>;
      store(s.ahead + at, negative(read[n]));
      y[n] = load(rows.a + at);
    }
  };
  for_each_tile(lane.batch, lane.head, lane.inputs.dims.tokens, false, [&](const Tile& tile) {
    take_rows(lane, tile);
    take_upstream(lane, tile, s.dn);
    take_residuals(lane, tile, s.e);
    if (form_.has_residual()) {
      gather<T>(tile, lane.gradients.dv, d_, s.de, stride_);
      const WriteScan<T> scan{.d = d_,
                              .stride = stride_,
                              .count = tile.count,
                              .m = s.state,
                              .factors = rows.decay,
                              .x = s.e,
                              .c = s.dn,
                              .next = s.de,
                              .out = s.out};
      with_factor(key_factor_,
                  [&]<Factor kFactor>() { write_scan<kFactor>(scan, next_direction); });
    } else {
      const Index rounded =
          round_up_rows<T>(tile.count, stride_, {s.e, rows.a, s.dn}, form_.decay, rows.decay);
      plain<false>(key_factor_, rounded, s.state, s.e, rows.a, s.dn, s.out, rows.decay);
    }
    const T* f = form_.has_f() ? rows.f : rows.a;
    for (Index i = 0; form_.normalises() && i < tile.count; ++i) {
      const T dc = s.d_denominator[i];
      for (Index j = 0; j < stride_; ++j) {
        s.z[j] += f[i * stride_ + j];
        s.out[i * stride_ + j] += dc * s.z[j];
      }
    }
    const Index at = tile.first * stride_;
    for (Index i = 0; i < tile.count * stride_; ++i) s.dq[at + i] += s.out[i];
    if (!form_.has_residual()) return;
    T* const dr = form_.residual == RecurrenceForm::Residual::along_a ? s.da : s.dr;
    for (Index i = 0; i < tile.count * stride_; ++i) dr[at + i] += s.ahead[i];
  });
}

template void RecurrentCore<float>::against_time(const Lane&) const;
template void RecurrentCore<float>::in_time(const Lane&) const;
template void RecurrentCore<double>::against_time(const Lane&) const;
template void RecurrentCore<double>::in_time(const Lane&) const;

}  // namespace vla_bench::mixers
