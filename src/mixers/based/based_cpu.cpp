// based.h on the CPU with its distinct features, a tile of tokens at a time; numbers are its steps.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/based/based.h"
#include "mixers/lanes.h"
#include "mixers/mixer.h"
#include "mixers/recurrence/scans.h"

namespace vla_bench {
namespace mixers {
namespace {

/// Step 1 and its backward for one token. Rows of features have `stride` elements, whole vectors.
template <class T>
class Features {
 public:
  explicit Features(Index n)
      : n_(n),
        count_(taylor_features(n)),
        stride_(padded<T>(count_)),
        linear_(static_cast<T>(TaylorWeights(n).linear)),
        square_(static_cast<T>(TaylorWeights(n).square)),
        product_(static_cast<T>(TaylorWeights(n).product)) {}

  Index channels() const { return n_; }
  Index count() const { return count_; }
  Index stride() const { return stride_; }

  void forward(const T* x, T* phi) const {
    *phi++ = 1;
    for (Index i = 0; i < n_; ++i) *phi++ = linear_ * x[i];
    for (Index i = 0; i < n_; ++i) {
      *phi++ = square_ * x[i] * x[i];
      for (Index j = i + 1; j < n_; ++j) *phi++ = product_ * x[i] * x[j];
    }
    std::fill_n(phi, stride_ - count_, T(0));
  }
  void backward(const T* x, const T* dphi, T* dx) const {
    ++dphi;
    for (Index i = 0; i < n_; ++i) dx[i] = linear_ * *dphi++;
    for (Index i = 0; i < n_; ++i) {
      dx[i] += 2 * square_ * *dphi++ * x[i];
      for (Index j = i + 1; j < n_; ++j) {
        const T d = product_ * *dphi++;
        dx[i] += d * x[j];
        dx[j] += d * x[i];
      }
    }
  }

 private:
  Index n_, count_, stride_;
  T linear_, square_, product_;
};

/// A tile's rows, and matrices of a lane.
template <class T>
struct Scratch {
  Scratch(const Features<T>& features, Index d, T* base) {
    ScratchAllocator<T> allocator(base);
    const Index wide = features.stride(), stride = padded<T>(d);
    for (T** rows : {&phi_q, &phi_k, &d_phi}) *rows = allocator.take(kTileTokens * wide);
    for (T** rows : {&values, &reads}) *rows = allocator.take(kTileTokens * stride);
    c = allocator.take(kTileTokens);
    z = allocator.take(wide);
    state = allocator.take(matrix_size(features, d));
  }
  static Index matrix_size(const Features<T>& features, Index d) {
    return std::max(features.count() * padded<T>(d), d * features.stride());
  }
  static Index size(const Features<T>& features, Index d) {
    return kTileTokens * (3 * features.stride() + 2 * padded<T>(d) + 1) + features.stride() +
           matrix_size(features, d);
  }

  T *phi_q, *phi_k, *d_phi;  // (kTileTokens, F stride)
  T *values, *reads;         // (kTileTokens, d stride)
  T* c;                      // (kTileTokens): of the forward 1 / c, of the backward dc
  T* z;                      // (F stride)
  T* state;                  // (F, d stride) or (d, F stride)
};

/// The number of rows that a scan takes for `count` tokens; rows beyond are set to 0.
template <class T>
Index round_up(Index count, T* x, Index x_stride, T* y, Index y_stride) {
  const Index rounded = (count + kPlainTokens - 1) / kPlainTokens * kPlainTokens;
  std::fill_n(x + count * x_stride, (rounded - count) * x_stride, T(0));
  std::fill_n(y + count * y_stride, (rounded - count) * y_stride, T(0));
  return rounded;
}

template <class T>
class BasedMemory final : public HeadMemory<T> {
 public:
  BasedMemory(const Features<T>& features, Index d)
      : features_(features),
        d_(d),
        state_(static_cast<std::size_t>(features.count() * d)),
        z_(static_cast<std::size_t>(features.count())) {}

  void reset() override {
    std::ranges::fill(state_, T(0));
    std::ranges::fill(z_, T(0));
  }
  void step(const TokenInputs<T>& token, T* o) override {
    const std::vector<T> key = phi(token.k, 1), query = phi(token.q, 1);
    add(key, token.v);
    T c = 0;
    for (std::size_t f = 0; f < z_.size(); ++f) c += (z_[f] += key[f]) * query[f];
    read_along(query, o);
    for (Index i = 0; i < d_; ++i) o[i] /= c;
  }
  void write(const T* key, const T* value) override { add(phi(key, length()), value); }
  void read(const T* query, T* out) const override { read_along(phi(query, length()), out); }

  double state_norm() const override {
    double sum = 0.0;
    for (const T value : state_) sum += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(sum);
  }
  /// The identity; on features, of which only their number differs.
  std::optional<StepJacobian> jacobian() const override {
    const std::vector<double> none(static_cast<std::size_t>(d_), 0.0);
    return StepJacobian{.k = none, .a = none, .decay = {}};
  }

 private:
  /// Of a key or query of unit length in the probe.
  T length() const { return std::sqrt(static_cast<T>(features_.channels())); }

  std::vector<T> phi(const T* x, T scale) const {
    std::vector<T> scaled(x, x + features_.channels());
    for (T& value : scaled) value *= scale;
    std::vector<T> features(static_cast<std::size_t>(features_.stride()));
    features_.forward(scaled.data(), features.data());
    return features;
  }
  void add(const std::vector<T>& key, const T* value) {
    for (Index f = 0; f < features_.count(); ++f) {
      T* row = state_.data() + f * d_;
      for (Index i = 0; i < d_; ++i) row[i] += key[static_cast<std::size_t>(f)] * value[i];
    }
  }
  void read_along(const std::vector<T>& query, T* out) const {
    std::fill_n(out, d_, T(0));
    for (Index f = 0; f < features_.count(); ++f) {
      const T* row = state_.data() + f * d_;
      for (Index i = 0; i < d_; ++i) out[i] += query[static_cast<std::size_t>(f)] * row[i];
    }
  }

  Features<T> features_;
  Index d_;
  std::vector<T> state_;  // (F', d)
  std::vector<T> z_;      // (F')
};

template <class T>
class BasedCore final : public MixerCore<T> {
 public:
  BasedCore(Index n, Index d) : features_(n), d_(d), stride_(padded<T>(d)) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override {
    const HeadDims& dims = inputs.dims;
    if (saved != nullptr) saved->resize(Device::cpu, dims.rows() * dims.heads);
    for_each_lane<T>(context, dims, scratch_size(), [&](Index batch, Index head, T* base) {
      const Scratch<T> scratch(features_, d_, base);
      clear(scratch);
      for_each_tile(batch, head, dims.tokens, false, [&](const Tile& tile) {
        forward_tile(inputs, tile, scratch, o, saved != nullptr ? saved->data() : nullptr);
      });
    });
  }

  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override {
    const HeadDims& dims = inputs.dims;
    for_each_lane<T>(context, dims, scratch_size(), [&](Index batch, Index head, T* base) {
      const Lane lane{inputs, gradients, saved.data(), Scratch<T>(features_, d_, base)};
      for (const auto walk :
           {&BasedCore::values_tile, &BasedCore::keys_tile, &BasedCore::queries_tile}) {
        clear(lane.scratch);
        const bool against_time = walk != &BasedCore::queries_tile;
        for_each_tile(batch, head, dims.tokens, against_time, [&](const Tile& tile) {
          take_features(inputs, tile, lane.scratch);
          take_upstream(lane, tile);
          (this->*walk)(lane, tile);
        });
      }
    });
  }

  std::unique_ptr<HeadMemory<T>> memory(Index /*head*/) const override {
    return std::make_unique<BasedMemory<T>>(features_, d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * features_.count() * (d_ + 1) * static_cast<Index>(sizeof(T));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return dims.rows() * dims.heads * static_cast<Index>(sizeof(T));
  }

 private:
  /// One lane's backward.
  struct Lane {
    const CoreInputs<T>& inputs;
    const CoreGradients<T>& gradients;
    const T* denominators;  // (B, T, H)
    Scratch<T> scratch;
  };

  Index scratch_size() const { return Scratch<T>::size(features_, d_); }
  void clear(const Scratch<T>& scratch) const {
    std::fill_n(scratch.z, features_.stride(), T(0));
    std::fill_n(scratch.state, Scratch<T>::matrix_size(features_, d_), T(0));
  }

  void take_features(const CoreInputs<T>& inputs, const Tile& tile,
                     const Scratch<T>& scratch) const {
    for (Index i = 0; i < tile.count; ++i) {
      const Index row = tile.row(i);
      features_.forward(inputs.q.at(row, tile.head), scratch.phi_q + i * features_.stride());
      features_.forward(inputs.k.at(row, tile.head), scratch.phi_k + i * features_.stride());
    }
  }

  void forward_tile(const CoreInputs<T>& inputs, const Tile& tile, const Scratch<T>& scratch,
                    HeadView<T> o, T* denominators) const {
    take_features(inputs, tile, scratch);  // 1
    gather(tile, inputs.v, d_, scratch.values, stride_);
    const Index wide = features_.stride();
    plain_scan<Factor::none, false>(
        PlainScan<T>{.d = features_.count(),
                     .stride = stride_,
                     .coefficient_stride = wide,
                     .count = round_up(tile.count, scratch.phi_k, wide, scratch.values, stride_),
                     .m = scratch.state,
                     .x = scratch.phi_k,  // 2
                     .y = scratch.values,
                     .c = scratch.phi_q,
                     .out = scratch.reads,
                     .factors = nullptr});
    for (Index i = 0; i < tile.count; ++i) {
      const T* phi_k = scratch.phi_k + i * wide;
      for (Index f = 0; f < wide; ++f) scratch.z[f] += phi_k[f];   // 3
      const T c = dot(scratch.z, scratch.phi_q + i * wide, wide);  // 4
      const Index row = tile.row(i);
      if (denominators != nullptr) denominators[row * inputs.dims.heads + tile.head] = c;
      T* to = o.at(row, tile.head);
      for (Index j = 0; j < d_; ++j) to[j] = scratch.reads[i * stride_ + j] / c;
    }
  }

  /// dn of a tile into `reads`, dc into `c`.
  void take_upstream(const Lane& lane, const Tile& tile) const {
    for (Index i = 0; i < tile.count; ++i) {
      const Index row = tile.row(i);
      const T* g = lane.gradients.d_o.at(row, tile.head);
      const T* o = lane.gradients.o.at(row, tile.head);
      const T c = lane.denominators[row * lane.inputs.dims.heads + tile.head];
      T along = 0;
      for (Index j = 0; j < d_; ++j) {
        along += g[j] * o[j];
        lane.scratch.reads[i * stride_ + j] = g[j] / c;
      }
      lane.scratch.c[i] = -along / c;
    }
  }

  /// dv = dS phi(k), against time, dS^T (F, d).
  void values_tile(const Lane& lane, const Tile& tile) const {
    const Scratch<T>& scratch = lane.scratch;
    const Index wide = features_.stride();
    plain_scan<Factor::none, true>(
        PlainScan<T>{.d = features_.count(),
                     .stride = stride_,
                     .coefficient_stride = wide,
                     .count = round_up(tile.count, scratch.phi_q, wide, scratch.reads, stride_),
                     .m = scratch.state,
                     .x = scratch.phi_q,
                     .y = scratch.reads,
                     .c = scratch.phi_k,
                     .out = scratch.values,
                     .factors = nullptr});
    for (Index i = 0; i < tile.count; ++i) {
      std::copy_n(scratch.values + i * stride_, d_, lane.gradients.dv.at(tile.row(i), tile.head));
    }
  }

  /// dphi(k) = dS^T v + dz, against time, dS (d, F).
  void keys_tile(const Lane& lane, const Tile& tile) const {
    const Scratch<T>& scratch = lane.scratch;
    gather(tile, lane.inputs.v, d_, scratch.values, stride_);
    scan_features<true>(tile, scratch, scratch.reads, scratch.phi_q, scratch.values);
    add_normaliser(
        tile, scratch, scratch.phi_q, [&](Index i) { return scratch.c[i]; },
        [](Index) { return T(1); });
    put(tile, lane.inputs.k, lane.gradients.dk, scratch);
  }

  /// dphi(q) = S_t^T dn + dc z_t, in time, S (d, F).
  void queries_tile(const Lane& lane, const Tile& tile) const {
    const Scratch<T>& scratch = lane.scratch;
    gather(tile, lane.inputs.v, d_, scratch.values, stride_);
    scan_features<false>(tile, scratch, scratch.values, scratch.phi_k, scratch.reads);
    add_normaliser(
        tile, scratch, scratch.phi_k, [](Index) { return T(1); },
        [&](Index i) { return scratch.c[i]; });
    put(tile, lane.inputs.q, lane.gradients.dq, scratch);
  }

  /// d_phi_i = M^T c_i after M += x_i phi_i^T.
  template <bool kAgainstTime>
  void scan_features(const Tile& tile, const Scratch<T>& scratch, T* x, T* phi, const T* c) const {
    const Index wide = features_.stride();
    plain_scan<Factor::none, kAgainstTime>(
        PlainScan<T>{.d = d_,
                     .stride = wide,
                     .coefficient_stride = stride_,
                     .count = round_up(tile.count, x, stride_, phi, wide),
                     .m = scratch.state,
                     .x = x,
                     .y = phi,
                     .c = c,
                     .out = scratch.d_phi,
                     .factors = nullptr});
  }

  /// z += in(i) phi_i;  d_phi_i += out(i) z.
  template <class In, class Out>
  void add_normaliser(const Tile& tile, const Scratch<T>& scratch, const T* phi, const In& in,
                      const Out& out) const {
    const Index wide = features_.stride();
    for (Index i = 0; i < tile.count; ++i) {
      const T inner = in(i), outer = out(i);
      for (Index f = 0; f < wide; ++f) {
        scratch.z[f] += inner * phi[i * wide + f];
        scratch.d_phi[i * wide + f] += outer * scratch.z[f];
      }
    }
  }

  /// 1, backward
  void put(const Tile& tile, HeadView<const T> raw, HeadView<T> gradient,
           const Scratch<T>& scratch) const {
    for (Index i = 0; i < tile.count; ++i) {
      const Index row = tile.row(i);
      features_.backward(raw.at(row, tile.head), scratch.d_phi + i * features_.stride(),
                         gradient.at(row, tile.head));
    }
  }

  Features<T> features_;
  Index d_, stride_;
};

}  // namespace
}  // namespace mixers

template <class T>
std::unique_ptr<MixerCore<T>> make_attention_core(const BasedOptions& options, Index d_h) {
  return std::make_unique<mixers::BasedCore<T>>(options.feature_dim, d_h);
}
template std::unique_ptr<MixerCore<float>> make_attention_core<float>(const BasedOptions&, Index);
template std::unique_ptr<MixerCore<double>> make_attention_core<double>(const BasedOptions&, Index);

}  // namespace vla_bench
