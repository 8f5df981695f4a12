// Production DeltaNet on the CPU, both variants; the numbers are the steps of deltanet.h.
#include <algorithm>

#include "mixers/deltanet/deltanet.h"
#include "mixers/deltanet/deltanet_features.h"
#include "mixers/deltanet/deltanet_scans.h"
#include "mixers/lanes.h"

namespace vla_bench::mixers {
namespace deltanet {

/// One lane's scratch. Rows are (kTileTokens + 1, stride): the scans look one token ahead or back.
template <class T>
struct Scratch {
  static constexpr Index kRows = kTileTokens + 1;
  static constexpr Index kArrays = 10;

  Scratch(T* base, Index d, Index stride) {
    ScratchAllocator<T> allocator(base);
    for (T** rows : {&key, &query, &value, &upstream, &gate, &gate_gradient, &update,
                     &residual_gradient, &out1, &out2}) {
      *rows = allocator.take(kRows * stride);
    }
    state = allocator.take(d * stride);
    other_state = allocator.take(d * stride);
    history = allocator.take(kTileTokens * d * stride);
    // Behind the rows, which stay aligned.
    for (T** scalars : {&strength, &key_length, &query_length}) *scalars = allocator.take(kRows);
  }
  static Index size(Index d, Index stride) {
    return (kArrays * kRows + (2 + kTileTokens) * d) * stride + 3 * kRows;
  }

  T *key, *query, *value;                   // k', q', v
  T* upstream;                              // y
  T *gate, *gate_gradient;                  // g, dg; unused in the standard variant
  T* update;                                // b r
  T* residual_gradient;                     // dr
  T *out1, *out2;                           // products of the scans
  T *strength, *key_length, *query_length;  // (kRows)
  T *state, *other_state;                   // (d, stride)
  T* history;                               // (kTileTokens, d, stride), S^T before each token
};

template <class T, DeltaNetVariant kVariant>
class DeltaNetCore final : public MixerCore<T> {
 public:
  explicit DeltaNetCore(Index d_h) : d_(d_h), stride_(padded<T>(d_h)), features_(kVariant, d_h) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, saved_size(inputs.dims));
    T* const base = saved != nullptr ? saved->data() : nullptr;
    for_each_lane<T>(
        context, inputs.dims, Scratch<T>::size(d_, stride_), [&](Index b, Index head, T* memory) {
          const Scratch<T> scratch(memory, d_, stride_);
          forward_lane(inputs, b, head, o, scratch, lane_saved(base, inputs.dims, b, head));
        });
  }

  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override {
    for_each_lane<T>(context, inputs.dims, Scratch<T>::size(d_, stride_),
                     [&](Index b, Index head, T* memory) {
                       const Scratch<T> scratch(memory, d_, stride_);
                       const T* lane = lane_saved(saved.data(), inputs.dims, b, head);
                       backward_against_time(inputs, gradients, b, head, lane, scratch);
                       backward_in_time(inputs, gradients, b, head, lane, scratch);
                     });
  }

  std::unique_ptr<HeadMemory<T>> memory() const override {
    return make_deltanet_memory<T>(kVariant, d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * d_ * d_ * static_cast<Index>(sizeof(T));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(T));
  }

 private:
  static constexpr bool kGated = kVariant == DeltaNetVariant::paper;
  /// S^T has the gated value channels along its columns, S along its rows.
  static constexpr Gate kValueColumns = kGated ? Gate::columns : Gate::none;
  static constexpr Gate kValueRows = kGated ? Gate::rows : Gate::none;

  /// Saved for each lane: r (T, stride), then, where there are gates, S^T before every tile
  /// (tiles, d, stride).
  Index lane_size(const HeadDims& dims) const {
    const Index tiles = (dims.tokens + kTileTokens - 1) / kTileTokens;
    return (dims.tokens + (kGated ? tiles * d_ : 0)) * stride_;
  }
  Index saved_size(const HeadDims& dims) const { return dims.lanes() * lane_size(dims); }

  /// Null when nothing is saved.
  template <class U>
  U* lane_saved(U* saved, const HeadDims& dims, Index b, Index head) const {
    return saved == nullptr ? nullptr : saved + (b * dims.heads + head) * lane_size(dims);
  }
  /// S^T before the tile that holds `token`.
  template <class U>
  U* checkpoint(U* lane, Index tokens, Index token) const {
    return lane + (tokens + token / kTileTokens * d_) * stride_;
  }

  /// Step 1 for the tokens of a tile, into rows `offset`, offset + 1, ...
  void gather_features(const Tile& tile, const CoreInputs<T>& inputs, Index offset,
                       const Scratch<T>& scratch) const {
    for (Index i = 0; i < tile.count; ++i) {
      const Index row = tile.row(i);
      const Index to = offset + i;
      scratch.key_length[to] =
          features_.key(inputs.k.at(row, tile.head), scratch.key + to * stride_);
      scratch.query_length[to] =
          features_.query(inputs.q.at(row, tile.head), scratch.query + to * stride_);
      const T* aux = inputs.aux.at(row, tile.head);
      if constexpr (kGated) {
        features_.gate(aux, scratch.gate + to * stride_);
      } else {
        scratch.strength[to] = features_.strength(aux);
      }
    }
  }

  /// update = b r for the tokens of a tile, into rows `offset`, offset + 1, ...
  void gather_updates(const Tile& tile, const T* residuals, Index offset,
                      const Scratch<T>& scratch) const {
    for (Index i = 0; i < tile.count; ++i) {
      const T* r = residuals + (tile.row(i) - tile.batch * tile.tokens) * stride_;
      T* to = scratch.update + (offset + i) * stride_;
      const T b = kGated ? T(1) : scratch.strength[offset + i];
      for (Index j = 0; j < stride_; ++j) to[j] = b * r[j];
    }
  }

  void forward_lane(const CoreInputs<T>& inputs, Index b, Index head, HeadView<T> o,
                    const Scratch<T>& scratch, T* residuals) const {
    std::fill_n(scratch.state, d_ * stride_, T(0));
    for_each_tile(b, head, inputs.dims.tokens, false, [&](const Tile& tile) {
      if (kGated && residuals != nullptr) {
        std::copy_n(scratch.state, d_ * stride_, checkpoint(residuals, tile.tokens, tile.first));
      }
      gather_features(tile, inputs, 0, scratch);
      gather(tile, inputs.v, d_, scratch.value, stride_);
      T* const r = residuals != nullptr ? residuals + tile.first * stride_ : scratch.update;
      const auto write = [&]<int N>(Index t, Index column, const Vector<T>(&prediction)[N],
                                    Vector<T>(&y)[N]) {
        for (int n = 0; n < N; ++n) {
          const Index at = t * stride_ + column + n * kVectorLength<T>;
          const Vector<T> residual = load(scratch.value + at) - prediction[n];  // 2
          store(r + at, residual);
          y[n] = kGated ? residual : broadcast(scratch.strength[t]) * residual;
        }
      };
      write_scan<kValueColumns>(WriteScan<T>{.d = d_,
                                             .stride = stride_,
                                             .count = tile.count,
                                             .m = scratch.state,
                                             .gate = scratch.gate,
                                             .x = scratch.key,
                                             .c = scratch.query,
                                             .next = scratch.key,
                                             .out = scratch.out1},
                                write);  // 3, 4
      for (Index i = 0; i < tile.count; ++i) {
        std::copy_n(scratch.out1 + i * stride_, d_, o.at(tile.row(i), head));
      }
    });
  }

  /// dS against time, once with value channels along its columns (dr, hence dv) and once with key
  /// channels (the part b dS^T r of dk', left in dk). Overwrites dv, dk, daux.
  void backward_against_time(const CoreInputs<T>& inputs, const CoreGradients<T>& gradients,
                             Index b, Index head, const T* residuals,
                             const Scratch<T>& scratch) const {
    std::fill_n(scratch.state, d_ * stride_, T(0));
    std::fill_n(scratch.other_state, d_ * stride_, T(0));
    for (T* rows : {scratch.key, scratch.gate, scratch.residual_gradient}) {
      std::fill_n(rows, stride_, T(0));
    }
    for_each_tile(b, head, inputs.dims.tokens, true, [&](const Tile& tile) {
      gather_features(tile, inputs, 1, scratch);
      gather_updates(tile, residuals, 1, scratch);
      gather(tile, gradients.d_o, d_, scratch.upstream + stride_, stride_);

      AdjointScan<T> scan{.d = d_,
                          .stride = stride_,
                          .count = tile.count,
                          .m = scratch.state,
                          .gate = scratch.gate,
                          .x = scratch.key,
                          .y = scratch.residual_gradient,
                          .p = scratch.query,
                          .s = scratch.upstream,
                          .c = scratch.key,
                          .history = scratch.history,
                          .dgate = scratch.gate_gradient};
      if constexpr (kGated) {
        std::copy_n(checkpoint(residuals, tile.tokens, tile.first), d_ * stride_, scratch.history);
        recompute_history(scan, scratch.update, scratch.history);
      }
      adjoint_scan<kValueColumns>(
          scan, [&]<int N>(Index t, Index column, const Vector<T>(&dS_key)[N]) {
            for (int n = 0; n < N; ++n) {
              const Index at = t * stride_ + column + n * kVectorLength<T>;
              if constexpr (kGated) {
                store(scratch.residual_gradient + at, dS_key[n]);
              } else {
                store(scratch.out1 + at, dS_key[n]);
                store(scratch.residual_gradient + at, broadcast(scratch.strength[t]) * dS_key[n]);
              }
            }
          });

      scan.m = scratch.other_state;
      scan.x = scratch.residual_gradient;
      scan.y = scratch.key;
      scan.p = scratch.upstream;
      scan.s = scratch.query;
      scan.c = scratch.update;
      adjoint_scan<kValueRows>(scan, [&]<int N>(Index t, Index column, const Vector<T>(&dkey)[N]) {
        for (int n = 0; n < N; ++n) {
          store(scratch.out2 + t * stride_ + column + n * kVectorLength<T>, dkey[n]);
        }
      });

      for (Index i = 0; i < tile.count; ++i) {
        const Index row = tile.row(i);
        const Index at = (i + 1) * stride_;
        std::copy_n(scratch.residual_gradient + at, d_, gradients.dv.at(row, head));
        std::copy_n(scratch.out2 + at, d_, gradients.dk.at(row, head));
        if constexpr (kGated) {
          const T* g = scratch.gate + at;
          T* daux = gradients.daux.at(row, head);
          for (Index j = 0; j < d_; ++j)
            daux[j] = scratch.gate_gradient[at + j] * g[j] * (1 - g[j]);
        } else {
          const T* r = residuals + (tile.first - i) * stride_;
          T dstrength = 0;
#pragma omp simd reduction(+ : dstrength)
          for (Index j = 0; j < d_; ++j) dstrength += r[j] * scratch.out1[at + j];
          const T strength = scratch.strength[i + 1];
          gradients.daux.at(row, head)[0] = dstrength * strength * (1 - strength);
        }
      }
      for (T* rows : {scratch.key, scratch.gate, scratch.residual_gradient}) {
        std::copy_n(rows + tile.count * stride_, stride_, rows);
      }
    });
  }

  /// S in time: dq' = S_t^T y and the part -S_{t-1}^T dr of dk', then step 1. Overwrites dq, dk
  /// (which brings the other part of dk').
  void backward_in_time(const CoreInputs<T>& inputs, const CoreGradients<T>& gradients, Index b,
                        Index head, const T* residuals, const Scratch<T>& scratch) const {
    std::fill_n(scratch.state, d_ * stride_, T(0));
    for_each_tile(b, head, inputs.dims.tokens, false, [&](const Tile& tile) {
      gather_features(tile, inputs, 0, scratch);
      gather_updates(tile, residuals, 0, scratch);
      gather(tile, gradients.d_o, d_, scratch.upstream, stride_);
      gather<T>(tile, gradients.dv, d_, scratch.residual_gradient, stride_);
      const auto next_key = [&]<int N>(Index t, Index column, const Vector<T>(&from_state)[N],
                                       Vector<T>(&y)[N]) {
        for (int n = 0; n < N; ++n) {
          const Index at = t * stride_ + column + n * kVectorLength<T>;
          store(scratch.out2 + at, from_state[n]);
          y[n] = load(scratch.key + at);
        }
      };
      write_scan<kValueRows>(WriteScan<T>{.d = d_,
                                          .stride = stride_,
                                          .count = tile.count,
                                          .m = scratch.state,
                                          .gate = scratch.gate,
                                          .x = scratch.update,
                                          .c = scratch.upstream,
                                          .next = scratch.residual_gradient,
                                          .out = scratch.out1},
                             next_key);
      for (Index i = 0; i < tile.count; ++i) {
        const Index row = tile.row(i);
        T* dkey = scratch.out2 + i * stride_;
        T* dk = gradients.dk.at(row, head);
        for (Index j = 0; j < d_; ++j) dkey[j] = dk[j] - dkey[j];
        features_.key_backward(inputs.k.at(row, head), scratch.key + i * stride_,
                               scratch.key_length[i], dkey, dk);
        features_.query_backward(inputs.q.at(row, head), scratch.query + i * stride_,
                                 scratch.query_length[i], scratch.out1 + i * stride_,
                                 gradients.dq.at(row, head));
      }
    });
  }

  Index d_, stride_;
  DeltaNetFeatures<T> features_;
};

}  // namespace deltanet

template <class T>
std::unique_ptr<MixerCore<T>> make_deltanet_core(const MixerConfig& config, Index d_h) {
  if (config.get<DeltaNetOptions>().variant == DeltaNetVariant::paper) {
    return std::make_unique<deltanet::DeltaNetCore<T, DeltaNetVariant::paper>>(d_h);
  }
  return std::make_unique<deltanet::DeltaNetCore<T, DeltaNetVariant::standard>>(d_h);
}
template std::unique_ptr<MixerCore<float>> make_deltanet_core<float>(const MixerConfig&, Index);
template std::unique_ptr<MixerCore<double>> make_deltanet_core<double>(const MixerConfig&, Index);

}  // namespace vla_bench::mixers
