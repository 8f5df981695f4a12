// VLA on the CPU: the penalty matrix A, from the features to the write direction a and back. The
// memory S is recurrence.h's. Numbers in parentheses are the steps of vla.h.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "mixers/recurrence/cpu_token.h"
#include "mixers/vla/penalty_rows.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_memory.h"
#include "mixers/vla/vla_rule.h"

namespace vla_bench {
namespace mixers {
namespace vla {
namespace {

template <class T>
struct Settings {
  explicit Settings(const VlaOptions& config, Index d_h)
      : d(d_h),
        stride(padded<T>(d_h)),
        rule(config, d_h),
        inverse_lambda(static_cast<T>(1.0 / config.lambda_0)),
        per_eps(static_cast<T>(config.per_eps)),
        stab_eps(static_cast<T>(config.stab_eps)),
        period(config.period),
        hold_after(config.hold_after) {}

  bool has_penalty() const { return rule.penalty != Penalty::frozen; }
  bool held(Index token) const { return hold_after > 0 && token >= hold_after; }
  bool nudged(Index token) const { return period > 0 && (token + 1) % period == 0 && !held(token); }
  Index matrix() const { return d * stride; }

  Index d, stride;
  VlaRule rule;
  T inverse_lambda, per_eps, stab_eps;
  Index period, hold_after;
};

/// What a lane keeps for the backward: a, w / sqrt(delta) (T, stride), |b|, delta before its floor
/// (T), and A before every tile (tiles, d, stride). A frozen A has nothing to keep.
template <class T>
struct Kept {
  static Index size(const Settings<T>& settings, Index tokens) {
    if (!settings.has_penalty()) return 0;
    const Index tiles = (tokens + kTileTokens - 1) / kTileTokens;
    return 2 * tokens * settings.stride + 2 * padded<T>(tokens) + tiles * settings.matrix();
  }
  Kept() = default;
  Kept(const Settings<T>& settings, Index tokens, T* base) {
    ScratchAllocator<T> allocator(base);
    a = allocator.take(tokens * settings.stride);
    w = allocator.take(tokens * settings.stride);
    b_norm = allocator.take(padded<T>(tokens));
    delta = allocator.take(padded<T>(tokens));
    checkpoints = allocator.take(0);
  }

  T *a = nullptr, *w = nullptr, *b_norm = nullptr, *delta = nullptr, *checkpoints = nullptr;
};

template <class T>
class VlaLane final : public LaneRule<T> {
 public:
  explicit VlaLane(const Settings<T>& settings);

  void start(Index tokens, T* kept) override;
  void bind(const Tile& tile, const CoreInputs<T>& inputs, const RecurrenceRows<T>& rows) override;
  void rebind(const Tile& tile, const CoreInputs<T>& inputs,
              const RecurrenceRows<T>& rows) override;
  void unbind(const Tile& tile, const CoreInputs<T>& inputs,
              const RecurrenceGradients<T>& gradients, const CoreGradients<T>& out) override;
  void finish(const CoreInputs<T>& inputs, const CoreGradients<T>& out) override;
  void bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) override;

  /// The penalty direction of the next bind_key (penalty learned).
  void set_direction(const T* direction) { direction_ = direction; }
  std::vector<double> penalty_matrix() const;  // (d, d)

 private:
  void features(const Tile& tile, const CoreInputs<T>& inputs, const RecurrenceRows<T>& rows);
  void hold(const Tile& tile);
  void advance(const Tile& tile, const RecurrenceRows<T>& rows);
  void recompute_history(Index first, Index count);
  void tile_backward(const Tile& tile, const CoreInputs<T>& inputs, const CoreGradients<T>& out);
  void find_db(Index token, const T* a, const T* da);
  void penalty_backward(Index token, const T* a_before, const T* k, const T* u, T* dk,
                        const T* da_of_gain);
  void make_backward(Index tokens);

  Settings<T> settings_;  // a memory may outlive its core
  Kept<T> kept_;
  bool keeps_ = false;
  const T* direction_ = nullptr;
  Index tokens_ = 0;
  Tile lane_{};  // the last tile: batch and head are the lane's

  Array<T> block_;
  T* u_;                            // (kTileTokens + 1, stride)
  T* matrix_;                       // (d, stride): A
  T *w_, *negative_w_, *scaled_w_;  // (stride)

  Array<T> backward_;
  Index backward_tokens_ = -1;
  T* history_;                        // (kTileTokens, d, stride): A before each token of a tile
  T* gradient_;                       // (d, stride): G, symmetric
  T *db_, *dw_, *du_, *gw_, *read_;   // (stride)
  RecurrenceRows<T> rows_;            // of a tile
  T *lane_da_, *lane_dk_, *lane_df_;  // (T, stride)
};

template <class T>
VlaLane<T>::VlaLane(const Settings<T>& settings) : settings_(settings) {
  const Index stride = settings.stride;
  block_.resize(Device::cpu, (kTileTokens + 1 + 3) * stride + settings.matrix());
  ScratchAllocator<T> allocator(block_.data());
  u_ = allocator.take((kTileTokens + 1) * stride);
  matrix_ = allocator.take(settings.matrix());
  for (T** row : {&w_, &negative_w_, &scaled_w_}) *row = allocator.take(stride);
}

template <class T>
void VlaLane<T>::start(Index tokens, T* kept) {
  tokens_ = tokens;
  keeps_ = kept != nullptr;
  if (keeps_) kept_ = Kept<T>(settings_, tokens, kept);
  std::fill_n(matrix_, settings_.matrix(), T(0));
  for (Index j = 0; j < settings_.d; ++j) {
    matrix_[j * settings_.stride + j] = settings_.inverse_lambda;
  }
}

/// (1): q', f, k (in row r) and u.
template <class T>
void VlaLane<T>::features(const Tile& tile, const CoreInputs<T>& inputs,
                          const RecurrenceRows<T>& rows) {
  lane_ = tile;
  RecurrenceRows<T> with_u = rows;
  with_u.own = u_;
  with_head_size<T>(settings_.d, [&]<class Size>(Size d) {
    for (Index i = 0; i < tile.count; ++i) {
      settings_.rule.bind(CpuToken<T, Size>(d, tile, i, inputs, with_u));
    }
  });
}

template <class T>
void VlaLane<T>::bind(const Tile& tile, const CoreInputs<T>& inputs,
                      const RecurrenceRows<T>& rows) {
  features(tile, inputs, rows);
  if (settings_.has_penalty()) advance(tile, rows);
}

/// Tokens that leave A as it is: with u = 0, (2) subtracts 0.
template <class T>
void VlaLane<T>::hold(const Tile& tile) {
  for (Index i = 0; i < tile.count; ++i) {
    if (settings_.held(tile.first + i)) std::fill_n(u_ + i * settings_.stride, settings_.d, T(0));
  }
}

/// (2) to (4) for the tokens of a tile.
template <class T>
void VlaLane<T>::advance(const Tile& tile, const RecurrenceRows<T>& rows) {
  const Index d = settings_.d;
  const Index stride = settings_.stride;
  hold(tile);
  std::fill_n(u_ + tile.count * stride, stride, T(0));
  if (keeps_) {
    std::copy_n(matrix_, settings_.matrix(),
                kept_.checkpoints + tile.first / kTileTokens * settings_.matrix());
  }
  read_rows(d, stride, matrix_, u_, w_);
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.first + i;
    const T* k = rows.r + i * stride;
    T* a = rows.a + i * stride;  // b first, then scaled in place
    const T* next_u = u_ + (i + 1) * stride;
    const T delta = 1 + dot(u_ + i * stride, w_, stride);
    const T scale = 1 / std::sqrt(std::max(delta, settings_.stab_eps));
    T* scaled_w = keeps_ ? kept_.w + token * stride : scaled_w_;
    for (Index j = 0; j < stride; ++j) {
      // Products of this pair commute exactly, so A stays symmetric to the last bit.
      scaled_w[j] = w_[j] * scale;
      negative_w_[j] = -scaled_w[j];
    }
    update_read_rows(d, stride, matrix_, negative_w_, scaled_w, k, a, next_u, w_);
    if (settings_.nudged(token)) {
      for (Index j = 0; j < d; ++j) matrix_[j * stride + j] += settings_.per_eps;
      for (Index j = 0; j < stride; ++j) {
        a[j] += settings_.per_eps * k[j];
        w_[j] += settings_.per_eps * next_u[j];
      }
    }
    if (settings_.rule.gain) {
      for (Index j = 0; j < stride; ++j) a[j] = scaled_w[j] * scale;
    }
    const T b_norm = std::sqrt(dot(a, a, stride));
    if (settings_.rule.unit_write) {
      const T a_scale = 1 / at_least(b_norm, static_cast<T>(kUnitFloor));
      for (Index j = 0; j < stride; ++j) a[j] *= a_scale;
    }
    if (keeps_) {
      kept_.delta[token] = delta;
      kept_.b_norm[token] = b_norm;
      std::copy_n(a, stride, kept_.a + token * stride);
    }
  }
}

template <class T>
void VlaLane<T>::rebind(const Tile& tile, const CoreInputs<T>& inputs,
                        const RecurrenceRows<T>& rows) {
  features(tile, inputs, rows);
  if (!settings_.has_penalty()) return;
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.row(i) - tile.batch * tile.tokens;
    std::copy_n(kept_.a + token * settings_.stride, settings_.stride,
                rows.a + i * settings_.stride);
  }
}

template <class T>
void VlaLane<T>::bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) {
  const Index d = settings_.d;
  std::copy_n(key, d, rows.r);
  if (!settings_.has_penalty()) {
    const CoreInputs<T> none{};
    typename CpuToken<T>::Channels b;
    std::copy_n(key, d, b.values);
    settings_.rule.put_frozen_direction(CpuToken<T>(d, tile, 0, none, rows), b);
    return;
  }
  if (settings_.rule.penalty == Penalty::learned) {
    if (direction_ == nullptr) throw std::logic_error("vla: write needs a penalty direction");
    std::copy_n(direction_, d, u_);
    direction_ = nullptr;
  } else {
    const T u_scale = static_cast<T>(settings_.rule.u_scale);
    for (Index i = 0; i < d; ++i) u_[i] = u_scale * key[i];
  }
  advance(tile, rows);
}

template <class T>
std::vector<double> VlaLane<T>::penalty_matrix() const {
  std::vector<double> values;
  for (Index i = 0; i < settings_.d; ++i) {
    const T* row = matrix_ + i * settings_.stride;
    values.insert(values.end(), row, row + settings_.d);
  }
  return values;
}

// ---- Backward -----------------------------------------------------------------------------------

template <class T>
void VlaLane<T>::make_backward(Index tokens) {
  if (backward_tokens_ == tokens) return;
  backward_tokens_ = tokens;
  const Index stride = settings_.stride;
  const Index matrix = settings_.has_penalty() ? settings_.matrix() : 0;
  backward_.resize(Device::cpu, (kTileTokens + 1) * matrix + 5 * stride + 4 * kTileTokens * stride +
                                    3 * tokens * stride);
  ScratchAllocator<T> allocator(backward_.data());
  history_ = allocator.take(kTileTokens * matrix);
  gradient_ = allocator.take(matrix);
  for (T** row : {&db_, &dw_, &du_, &gw_, &read_}) *row = allocator.take(stride);
  rows_.stride = stride;
  for (T** row : {&rows_.r, &rows_.a, &rows_.q, &rows_.f}) {
    *row = allocator.take(kTileTokens * stride);
  }
  // Last, since only they depend on the length: the tails of the others stay zero.
  for (T** row : {&lane_da_, &lane_dk_, &lane_df_}) *row = allocator.take(tokens * stride);
}

/// The memory's part of da, dk and df waits for A's, which runs against time.
template <class T>
void VlaLane<T>::unbind(const Tile& tile, const CoreInputs<T>& inputs,
                        const RecurrenceGradients<T>& gradients, const CoreGradients<T>& out) {
  make_backward(tile.tokens);
  const Index at = tile.first * settings_.stride;
  const Index size = tile.count * settings_.stride;
  std::copy_n(gradients.da, size, lane_da_ + at);
  if (settings_.rule.form().residual == RecurrenceForm::Residual::along_r) {
    std::copy_n(gradients.dr, size, lane_dk_ + at);
  } else {
    std::fill_n(lane_dk_ + at, size, T(0));
  }
  if (gradients.df != nullptr) {
    std::copy_n(gradients.df, size, lane_df_ + at);
  } else {
    std::fill_n(lane_df_ + at, size, T(0));
  }
  with_head_size<T>(settings_.d, [&]<class Size>(Size d) {
    for (Index i = 0; i < tile.count; ++i) {
      settings_.rule.unbind_query(CpuToken<T, Size>(d, tile, i, inputs, {}, gradients, &out));
    }
  });
}

template <class T>
void VlaLane<T>::finish(const CoreInputs<T>& inputs, const CoreGradients<T>& out) {
  if (settings_.has_penalty()) std::fill_n(gradient_, settings_.matrix(), T(0));
  for_each_tile(lane_.batch, lane_.head, tokens_, true,
                [&](const Tile& tile) { tile_backward(tile, inputs, out); });
}

/// A before every token of a tile, from the checkpoint and the saved factors.
template <class T>
void VlaLane<T>::recompute_history(Index first, Index count) {
  const Index d = settings_.d;
  const Index stride = settings_.stride;
  const Index matrix = settings_.matrix();
  std::copy_n(kept_.checkpoints + first / kTileTokens * matrix, matrix, history_);
  for (Index t = 0; t + 1 < count; ++t) {
    const T* scaled_w = kept_.w + (first + t) * stride;
    T* after = history_ + (t + 1) * matrix;
    for (Index i = 0; i < stride; ++i) read_[i] = -scaled_w[i];
    copy_updated_rows(d, stride, history_ + t * matrix, read_, scaled_w, after);
    if (settings_.nudged(first + t)) {
      for (Index j = 0; j < d; ++j) after[j * stride + j] += settings_.per_eps;
    }
  }
}

/// (4) and (2): adds to dk, leaves du of the token in du_. Where a is the gain (options.h), db is 0
/// and da is given.
template <class T>
void VlaLane<T>::penalty_backward(Index token, const T* a_before, const T* k, const T* u, T* dk,
                                  const T* da_of_gain) {
  const Index d = settings_.d;
  const Index stride = settings_.stride;
  const T* scaled_w = kept_.w + token * stride;  // w' = w / sqrt(delta)
  symmetric_update_read_rows<T>({.d = d,
                                 .stride = stride,
                                 .m = gradient_,
                                 .x = db_,
                                 .y = k,
                                 .c1 = scaled_w,
                                 .out1 = gw_,
                                 .other = a_before,
                                 .out2 = read_});
  // A_t db = A_{t-1} db - w' (w'.db) [+ per_eps db]
  const T w_db = dot(scaled_w, db_, stride);
  const T nudge = settings_.nudged(token) ? settings_.per_eps : T(0);
  for (Index i = 0; i < stride; ++i) dk[i] += read_[i] - scaled_w[i] * w_db + nudge * db_[i];
  // dw = -2 G w / delta = -2 G w' / sqrt(delta);  ddelta = -(w'.dw) / (2 sqrt(delta))
  const T delta = kept_.delta[token];
  const T root = std::sqrt(std::max(delta, settings_.stab_eps));
  const T factor = -2 / root;
  for (Index i = 0; i < stride; ++i) dw_[i] = factor * gw_[i];
  T d_delta = delta < settings_.stab_eps ? T(0) : -dot(scaled_w, dw_, stride) / (2 * root);
  if (da_of_gain != nullptr) {  // a = w / delta
    d_delta -= dot(scaled_w, da_of_gain, stride) / (delta * root);
    for (Index i = 0; i < stride; ++i) dw_[i] += da_of_gain[i] / delta;
  }
  for (Index i = 0; i < stride; ++i) dw_[i] += d_delta * u[i];
  symmetric_update_read_rows<T>({.d = d,
                                 .stride = stride,
                                 .m = gradient_,
                                 .x = dw_,
                                 .y = u,
                                 .c1 = u,
                                 .out1 = gw_,
                                 .other = a_before,
                                 .out2 = du_});
  for (Index i = 0; i < stride; ++i) du_[i] += d_delta * root * scaled_w[i];
}

/// (4) to (1), against time: finishes dk and daux.
template <class T>
void VlaLane<T>::tile_backward(const Tile& tile, const CoreInputs<T>& inputs,
                               const CoreGradients<T>& out) {
  const Index stride = settings_.stride;
  const bool has_penalty = settings_.has_penalty();
  rebind(tile, inputs, rows_);
  const Index first = tile.first - tile.count + 1;
  if (has_penalty) recompute_history(first, tile.count);
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.first - i;
    T* const da = lane_da_ + token * stride;
    T* const dk = lane_dk_ + token * stride;
    if (has_penalty) {
      find_db(token, rows_.a + i * stride, da);
      penalty_backward(token, history_ + (token - first) * settings_.matrix(), rows_.r + i * stride,
                       u_ + i * stride, dk, settings_.rule.gain ? da : nullptr);
    }
    const RecurrenceGradients<T> gradients{
        .stride = 0, .dr = dk, .da = da, .df = lane_df_ + token * stride, .down = du_};
    with_head_size<T>(settings_.d, [&]<class Size>(Size d) {
      settings_.rule.unbind_key(CpuToken<T, Size>(d, tile, i, inputs, {}, gradients, &out));
    });
  }
}

/// (4): db from da, through unit().
template <class T>
void VlaLane<T>::find_db(Index token, const T* a, const T* da) {
  const Index stride = settings_.stride;
  if (settings_.rule.gain) {
    std::fill_n(db_, stride, T(0));
    return;
  }
  if (!settings_.rule.unit_write) {
    std::copy_n(da, stride, db_);
    return;
  }
  const T floor = static_cast<T>(kUnitFloor);
  const T norm = kept_.b_norm[token];
  const T along = norm < floor ? T(0) : dot(a, da, stride);
  const T scale = 1 / at_least(norm, floor);
  for (Index j = 0; j < stride; ++j) db_[j] = (da[j] - a[j] * along) * scale;
}

template <class T>
class VlaRecurrence final : public RecurrentRule<T> {
 public:
  VlaRecurrence(const VlaOptions& config, Index d)
      : RecurrentRule<T>(d), settings_(config, d), form_(settings_.rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<T>> make_lane() const override {
    return std::make_unique<VlaLane<T>>(settings_);
  }
  std::unique_ptr<HeadMemory<T>> make_memory(Index head) const override {
    return std::make_unique<VlaMemory<T, VlaLane<T>>>(form_, this->d(), head,
                                                      std::make_unique<VlaLane<T>>(settings_));
  }
  Index kept_size(Index tokens) const override { return Kept<T>::size(settings_, tokens); }
  Index own_state_size(Index d) const override { return settings_.rule.own_state_size(d); }

 private:
  Settings<T> settings_;
  RecurrenceForm form_;
};

}  // namespace
}  // namespace vla
}  // namespace mixers

template <class T>
std::unique_ptr<mixers::RecurrentRule<T>> make_chain_rule(const VlaOptions& options, Index d_h) {
  return std::make_unique<mixers::vla::VlaRecurrence<T>>(options, d_h);
}
template std::unique_ptr<mixers::RecurrentRule<float>> make_chain_rule(const VlaOptions&, Index);
template std::unique_ptr<mixers::RecurrentRule<double>> make_chain_rule(const VlaOptions&, Index);

}  // namespace vla_bench
