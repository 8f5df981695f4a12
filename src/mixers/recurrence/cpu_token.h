// One token and head as a rule sees it on the CPU, and the lane that runs a rule over tiles.
//
// A rule is a plain struct (mixers/<name>/<name>.h) with
//   form()           what its recurrence has
//   own_state_size(d)   only where a lane's state is more than S and z (form.h)
//   bind(token)      reads token.q(), k(), more(i), puts the rows r, a, q, f and the decay
//   unbind(token)    reads them again and the rows' gradients, puts the gradients of q, k, more(i)
//   bind_key(token, key)   r, a and the decay of a write whose key is given (HeadMemory::write)
// and serves CPU and CUDA alike. A rule can keep a running sum of its own beside S, a number p per
// key channel with p_t = g_t p_{t-1} + x_t, p_0 = 0. It then says kHasRunningSum and has
//   bind_term(token)           puts x_t (put_own) and returns g_t; bind then finds p_t in own()
//   bind_key_term(token, key)  the same of a write whose key is given
//   unbind_sum(token)          returns the gradient of p_t that comes from what bind made of it;
//                              unbind then finds in down() what comes through later tokens as well
//   unbind(token)              finds p_{t-1} in own_before(): dx = down(), dg = down() . p_{t-1}
#pragma once

#include <algorithm>
#include <array>
#include <type_traits>

#include "mixers/cpu_vector.h"
#include "mixers/features.h"
#include "mixers/recurrence/recurrence.h"

namespace vla_bench::mixers {

/// Channels that a token has room for: d, or the largest d_h of a config and one cache line, so
/// that the same channels of several arrays do not lie a multiple of 4 KiB apart.
template <class T, class Size>
inline constexpr Index kRoom = 1024 + 64 / sizeof(T);
template <class T, Index kD>
inline constexpr Index kRoom<T, std::integral_constant<Index, kD>> = kD;

template <class T, class Size = Index>
class CpuToken : public CpuMath<T, Size> {
 public:
  struct Channels {
    alignas(64) T values[kRoom<T, Size>];  // the first d are set
    T& operator[](Index i) { return values[i]; }
    const T& operator[](Index i) const { return values[i]; }
  };

  /// Token i of a tile. `gradients` and `out` only where the rule goes backward.
  CpuToken(Size channels, const Tile& tile, Index i, const CoreInputs<T>& inputs,
           const RecurrenceRows<T>& rows, const RecurrenceGradients<T>& gradients = {},
           const CoreGradients<T>* out = nullptr)
      : CpuMath<T, Size>{channels},
        tile_(tile),
        i_(i),
        inputs_(inputs),
        rows_(rows),
        gradients_(gradients),
        out_(out) {}

  Index head() const { return tile_.head; }

  // Raw projections.
  Channels q() const { return load(at(inputs_.q)); }
  Channels k() const { return load(at(inputs_.k)); }
  Channels more(std::size_t i) const { return load(at(inputs_.more[i])); }
  T more_scalar(std::size_t i) const { return *at(inputs_.more[i]); }
  /// This head's number of the core's parameter i.
  T parameter(std::size_t i) const { return inputs_.parameters[i][tile_.head]; }
  /// This head's numbers of the core's parameter i, one per channel.
  Channels parameter_channels(std::size_t i) const {
    return load(inputs_.parameters[i] + tile_.head * Index{this->d});
  }

  void put_r(const Channels& x) const { store(x, row(rows_.r)); }
  void put_a(const Channels& x) const { store(x, row(rows_.a)); }
  void put_q(const Channels& x) const { store(x, row(rows_.q)); }
  void put_f(const Channels& x) const { store(x, row(rows_.f)); }
  void put_own(const Channels& x) const { store(x, row(rows_.own)); }
  void put_decay(const Channels& x) const { store(x, row(rows_.decay)); }
  void put_decay(T x) const { rows_.decay[i_] = x; }

  Channels dr() const { return load(gradient(gradients_.dr)); }
  Channels da() const { return load(gradient(gradients_.da)); }
  Channels dq() const { return load(gradient(gradients_.dq)); }
  Channels df() const { return load(gradient(gradients_.df)); }
  Channels down() const { return load(gradient(gradients_.down)); }
  Channels ddecay() const { return load(gradient(gradients_.ddecay)); }
  T ddecay_scalar() const { return gradients_.ddecay[i_]; }

  // The running sum (RecurrenceRows::own) after this token and before it.
  Channels own() const { return load(row(rows_.own)); }
  Channels own_before() const { return load(row(rows_.own_before)); }

  void put_dq(const Channels& x) const { store(x, at(out_->dq)); }
  void put_dk(const Channels& x) const { store(x, at(out_->dk)); }
  void put_dmore(std::size_t i, const Channels& x) const { store(x, at(out_->dmore[i])); }
  void put_dmore(std::size_t i, T x) const { *at(out_->dmore[i]) = x; }
  /// This token's share of the gradient of parameter(i).
  void put_dparameter(std::size_t i, T x) const { out_->dparameters[i][tile_.head] += x; }
  void put_dparameter(std::size_t i, const Channels& x) const {
    T* const sums = out_->dparameters[i] + tile_.head * Index{this->d};
    this->each([&](Index j) { sums[j] += x[j]; });
  }

 private:
  template <class E>
  E* at(const HeadView<E>& view) const {
    return view.at(tile_.row(i_), tile_.head);
  }
  template <class E>
  E* row(E* rows) const {
    return rows + i_ * rows_.stride;
  }
  const T* gradient(const T* rows) const { return rows + i_ * gradients_.stride; }
  Channels load(const T* from) const {
    Channels x;
    std::copy_n(from, this->d, x.values);
    return x;
  }
  void store(const Channels& x, T* to) const { std::copy_n(x.values, this->d, to); }

  const Tile& tile_;
  Index i_;
  const CoreInputs<T>& inputs_;
  RecurrenceRows<T> rows_;
  RecurrenceGradients<T> gradients_;
  const CoreGradients<T>* out_;
};

/// A rule without a state of its own on a lane.
template <class T, class Rule>
class TokenLane final : public LaneRule<T> {
 public:
  TokenLane(const Rule& rule, Index d) : rule_(rule), d_(d) {}

  // Flattened: a call inside would move a token's channels from registers to memory.
  [[gnu::flatten]] void bind(const Tile& tile, const CoreInputs<T>& inputs,
                             const RecurrenceRows<T>& rows) override {
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index i = 0; i < tile.count; ++i) {
        rule_.bind(CpuToken<T, Size>(d, tile, i, inputs, rows));
      }
    });
  }
  [[gnu::flatten]] void unbind(const Tile& tile, const CoreInputs<T>& inputs,
                               const RecurrenceGradients<T>& gradients,
                               const CoreGradients<T>& out) override {
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index i = 0; i < tile.count; ++i) {
        rule_.unbind(CpuToken<T, Size>(d, tile, i, inputs, {}, gradients, &out));
      }
    });
  }
  void bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) override {
    const CoreInputs<T> none{};
    const CpuToken<T> token(d_, tile, 0, none, rows);
    typename CpuToken<T>::Channels channels;
    std::copy_n(key, d_, channels.values);
    rule_.bind_key(token, channels);
  }

 private:
  Rule rule_;
  Index d_;
};

/// A rule with a running sum on a lane. Its gradient runs against time, after unbind has seen all
/// tokens: gradients of rows wait for it.
template <class T, class Rule>
class RunningSumLane final : public LaneRule<T> {
 public:
  RunningSumLane(const Rule& rule, Index d)
      : rule_(rule), decay_(rule.form().decay), d_(d), stride_(padded<T>(d)) {
    memory_.resize(Device::cpu, 2 * stride_);
  }

  /// p before the first token and after each, (T + 1, stride); g (T).
  static Index kept_size(Index d, Index tokens) { return (tokens + 1) * padded<T>(d) + tokens; }

  /// A lane of 0 tokens is a memory: it keeps p only before and after the latest token.
  void start(Index tokens, T* kept) override {
    tokens_ = tokens;
    sums_ = kept != nullptr ? kept : memory_.data();
    factors_ = kept != nullptr ? kept + (tokens + 1) * stride_ : nullptr;
    std::fill_n(sums_, stride_, T(0));
  }
  [[gnu::flatten]] void bind(const Tile& tile, const CoreInputs<T>& inputs,
                             const RecurrenceRows<T>& rows) override {
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index i = 0; i < tile.count; ++i) {
        const Tile one = token_tile(tile, i);
        const CpuToken<T, Size> token(d, one, 0, inputs, token_rows(rows, i, one.first));
        add(one.first, rule_.bind_term(token));
        rule_.bind(token);
        leave(one.first);
      }
    });
  }
  [[gnu::flatten]] void rebind(const Tile& tile, const CoreInputs<T>& inputs,
                               const RecurrenceRows<T>& rows) override {
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index i = 0; i < tile.count; ++i) {
        const Tile one = token_tile(tile, i);
        rule_.bind(CpuToken<T, Size>(d, one, 0, inputs, token_rows(rows, i, one.first)));
      }
    });
  }
  void bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) override {
    const CoreInputs<T> none{};
    const Tile one = token_tile(tile, 0);
    const CpuToken<T> token(d_, one, 0, none, token_rows(rows, 0, one.first));
    typename CpuToken<T>::Channels channels;
    std::copy_n(key, d_, channels.values);
    add(one.first, rule_.bind_key_term(token, channels));
    rule_.bind_key(token, channels);
    leave(one.first);
  }

  void unbind(const Tile& tile, const CoreInputs<T>& /*inputs*/,
              const RecurrenceGradients<T>& gradients, const CoreGradients<T>& /*out*/) override {
    lane_ = tile;
    waiting_.resize(Device::cpu, 5 * tokens_ * stride_);
    const std::array<const T*, 5> rows = {gradients.dr, gradients.da, gradients.dq, gradients.df,
                                          gradients.ddecay};
    for (std::size_t n = 0; n < rows.size(); ++n) {
      const bool is_scalar = n == 4 && decay_ == Decay::head;
      if (rows[n] == nullptr) continue;
      for (Index i = 0; i < tile.count; ++i) {
        std::copy_n(rows[n] + (is_scalar ? i : i * gradients.stride), is_scalar ? 1 : d_,
                    waiting(static_cast<Index>(n), tile.first + i));
      }
    }
  }
  [[gnu::flatten]] void finish(const CoreInputs<T>& inputs, const CoreGradients<T>& out) override {
    T* const down = memory_.data();
    std::fill_n(down, d_, T(0));
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index t = tokens_ - 1; t >= 0; --t) {
        const Tile one{lane_.batch, lane_.head, tokens_, t, 1};
        const RecurrenceGradients<T> gradients{.stride = 0,
                                               .dr = waiting(0, t),
                                               .da = waiting(1, t),
                                               .dq = waiting(2, t),
                                               .df = waiting(3, t),
                                               .ddecay = waiting(4, t),
                                               .down = down};
        const CpuToken<T, Size> token(d, one, 0, inputs, sum_rows(t), gradients, &out);
        const auto direct = rule_.unbind_sum(token);
        for (Index j = 0; j < d; ++j) down[j] += direct[j];
        rule_.unbind(token);
        for (Index j = 0; j < d; ++j) down[j] *= factors_[t];
      }
    });
  }

 private:
  bool keeps() const { return factors_ != nullptr; }
  static Tile token_tile(const Tile& tile, Index i) {
    return {tile.batch, tile.head, tile.tokens, tile.row(i) - tile.batch * tile.tokens, 1};
  }
  T* before(Index token) const { return sums_ + (keeps() ? token * stride_ : 0); }
  T* waiting(Index which, Index token) {
    return waiting_.data() + (which * tokens_ + token) * stride_;
  }
  RecurrenceRows<T> sum_rows(Index token) const {
    RecurrenceRows<T> rows;
    rows.own = before(token) + stride_;
    rows.own_before = before(token);
    return rows;
  }
  RecurrenceRows<T> token_rows(const RecurrenceRows<T>& rows, Index i, Index token) const {
    const Index at = i * rows.stride;
    RecurrenceRows<T> own = sum_rows(token);
    own.r = rows.r + at;
    own.a = rows.a + at;
    own.q = rows.q + at;
    own.f = rows.f + at;
    own.decay = rows.decay_row(decay_, i);
    return own;
  }
  /// Behind the token's p stands its x.
  void add(Index token, T factor) {
    const T* from = before(token);
    T* const to = before(token) + stride_;
    for (Index j = 0; j < d_; ++j) to[j] += factor * from[j];
    if (keeps()) factors_[token] = factor;
  }
  void leave(Index token) {
    if (!keeps()) std::copy_n(before(token) + stride_, stride_, before(token));
  }

  Rule rule_;
  Decay decay_;
  Index d_, stride_;
  Index tokens_ = 0;
  T* sums_ = nullptr;
  T* factors_ = nullptr;
  Tile lane_{};       // the last tile: batch and head are the lane's
  Array<T> memory_;   // (2, stride): p of a memory; in a backward the gradient of p
  Array<T> waiting_;  // (5, T, stride): dr, da, dq, df, ddecay
};

/// A rule whose state beside S is at most a running sum.
template <class T, class Rule>
class CpuRule final : public RecurrentRule<T> {
 public:
  CpuRule(const Rule& rule, Index d) : RecurrentRule<T>(d), rule_(rule), form_(rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<T>> make_lane() const override {
    return std::make_unique<Lane>(rule_, this->d());
  }
  Index kept_size(Index tokens) const override {
    if constexpr (HasRunningSum<Rule>) return Lane::kept_size(this->d(), tokens);
    return RecurrentRule<T>::kept_size(tokens);
  }
  Index own_state_size(Index d) const override {
    return HasRunningSum<Rule> ? d : RecurrentRule<T>::own_state_size(d);
  }

 private:
  using Lane = std::conditional_t<HasRunningSum<Rule>, RunningSumLane<T, Rule>, TokenLane<T, Rule>>;

  Rule rule_;
  RecurrenceForm form_;
};

}  // namespace vla_bench::mixers
