// One token and head as a rule sees it on the CPU, and the lane that runs a rule over tiles.
//
// A rule is a plain struct (mixers/<name>/<name>.h) with
//   form()           what its recurrence has
//   own_state_size(d)   only where a lane's state is more than S and z (form.h)
//   bind(token)      reads token.q(), k(), more(i), puts the rows r, a, q, f and the decay
//   unbind(token)    reads them again and the rows' gradients, puts the gradients of q, k, more(i)
//   bind_key(token, key)   r, a and the decay of a write whose key is given (HeadMemory::write)
// and serves CPU and CUDA alike.
#pragma once

#include <algorithm>

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
  T* row(T* rows) const { return rows + i_ * rows_.stride; }
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

/// A rule without a state of its own.
template <class T, class Rule>
class CpuRule final : public RecurrentRule<T> {
 public:
  CpuRule(const Rule& rule, Index d) : RecurrentRule<T>(d), rule_(rule), form_(rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<T>> make_lane() const override {
    return std::make_unique<Lane>(rule_, this->d());
  }

 private:
  class Lane final : public LaneRule<T> {
   public:
    Lane(const Rule& rule, Index d) : rule_(rule), d_(d) {}

    // Flattened: a call inside would move a token's channels from registers to memory.
    [[gnu::flatten]] void bind(const Tile& tile, const CoreInputs<T>& inputs,
                               const RecurrenceRows<T>& rows) override {
      with_head_size(d_, [&]<class Size>(Size d) {
        for (Index i = 0; i < tile.count; ++i) {
          rule_.bind(CpuToken<T, Size>(d, tile, i, inputs, rows));
        }
      });
    }
    [[gnu::flatten]] void unbind(const Tile& tile, const CoreInputs<T>& inputs,
                                 const RecurrenceGradients<T>& gradients,
                                 const CoreGradients<T>& out) override {
      with_head_size(d_, [&]<class Size>(Size d) {
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

  Rule rule_;
  RecurrenceForm form_;
};

}  // namespace vla_bench::mixers
