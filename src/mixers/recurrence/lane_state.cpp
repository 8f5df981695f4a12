#include "mixers/recurrence/lane_state.h"

#include <algorithm>

namespace vla_bench::mixers {

template <class T>
LaneState<T>::LaneState(const RecurrenceForm& form, Index d) : form_(form), d_(d) {
  const Index stride = padded<T>(d);
  constexpr Index kRows = kTileTokens + 1;  // a scan looks one token ahead
  scratch_.resize(Device::cpu, (5 * kRows + 3 * kTileTokens + d + 1) * stride);
  ScratchAllocator<T> allocator(scratch_.data());
  rows_.stride = stride;
  for (T** rows : {&rows_.r, &rows_.a, &rows_.q, &rows_.f, &rows_.decay}) {
    *rows = allocator.take(kRows * stride);
  }
  for (T** rows : {&value_, &e_, &out_}) *rows = allocator.take(kTileTokens * stride);
  state_ = allocator.take(d * stride);
  z_ = allocator.take(stride);
}

template <class T>
void LaneState<T>::reset() {
  std::fill_n(state_, (d_ + 1) * stride(), T(0));
}

/// Steps 1, 2 and 4 without c: value_ holds the values; sets e and out_.
template <class T>
void LaneState<T>::scan(const Tile& tile, T* e) {
  const Index stride = rows_.stride;
  with_factor(factor_of_value_columns(form_.decay), [&]<Factor kFactor>() {
    if (!form_.has_residual()) {
      const Index rounded =
          round_up_rows<T>(tile.count, stride, {rows_.a, value_}, form_.decay, rows_.decay);
      plain_scan<kFactor, false>(PlainScan<T>{.d = d_,
                                              .stride = stride,
                                              .count = rounded,
                                              .m = state_,
                                              .x = rows_.a,
                                              .y = value_,
                                              .c = rows_.q,
                                              .out = out_,
                                              .factors = rows_.decay});
      return;
    }
    const bool along_a = form_.residual == RecurrenceForm::Residual::along_a;
    const auto take_residual = [&]<int N>(Index t, Index column, const Vector<T>(&prediction)[N],
                                          Vector<T>(&y)[N]) {
      for (int n = 0; n < N; ++n) {
        const Index at = t * stride + column + n * kVectorLength<T>;
        y[n] = load(value_ + at) - prediction[n];
        store(e + at, y[n]);
      }
    };
    write_scan<kFactor>(WriteScan<T>{.d = d_,
                                     .stride = stride,
                                     .count = tile.count,
                                     .m = state_,
                                     .factors = rows_.decay,
                                     .x = rows_.a,
                                     .c = rows_.q,
                                     .next = along_a ? rows_.a : rows_.r,
                                     .out = out_},
                        take_residual);
  });
}

template <class T>
void LaneState<T>::advance(const Tile& tile, const CoreInputs<T>& inputs, LaneRule<T>& rule,
                           HeadView<T> o, const LaneTrace<T>& trace) {
  const Index stride = rows_.stride;
  if (trace.checkpoints != nullptr) {
    std::copy_n(state_, d_ * stride, trace.checkpoints + tile.first / kTileTokens * d_ * stride);
  }
  rule.bind(tile, inputs, rows_);
  gather(tile, inputs.v, d_, value_, stride);
  scan(tile, trace.e != nullptr ? trace.e + tile.first * stride : e_);
  const T* f = form_.has_f() ? rows_.f : rows_.a;
  for (Index i = 0; i < tile.count; ++i) {
    const T* n = out_ + i * stride;
    T* to = o.at(tile.row(i), tile.head);
    if (!form_.normalises()) {
      std::copy_n(n, d_, to);
      continue;
    }
    for (Index j = 0; j < stride; ++j) z_[j] += f[i * stride + j];  // 3
    const T denominator = dot(z_, rows_.q + i * stride, stride);
    if (trace.denominators != nullptr) trace.denominators[tile.first + i] = denominator;
    const T scale = 1 / std::max(denominator, static_cast<T>(form_.floor));
    for (Index j = 0; j < d_; ++j) to[j] = n[j] * scale;
  }
}

template <class T>
void LaneState<T>::write(const T* v) {
  std::copy_n(v, d_, value_);
  scan(Tile{.batch = 0, .head = 0, .tokens = 1, .first = 0, .count = 1}, e_);
}

template class LaneState<float>;
template class LaneState<double>;

}  // namespace vla_bench::mixers
