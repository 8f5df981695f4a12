// Production linear attention on the CPU: one scan, used once forward and three times backward. The
// numbers are the steps of linear.h.
#include "mixers/feature_map.h"
#include "mixers/lanes.h"
#include "mixers/linear/linear.h"

namespace vla_bench::mixers {
namespace linear {

/// Tokens that share a pass over the state: each row is loaded and stored once for four updates and
/// four reads.
inline constexpr Index kUnroll = 4;
static_assert(kTileTokens % kUnroll == 0);

/// For the tokens of a tile in turn: M += key value^T; out = M^T query. M is kept row by row of the
/// key's channels. `count` is a multiple of kUnroll.
template <class T>
struct Scan {
  const T* key;    // (count, stride)
  const T* value;  // (count, stride)
  const T* query;  // (count, stride)
  T* out;          // (count, stride)
  T* state;        // (d, stride)
};

/// The inner loop is a template on the vectors of a column block, which is what keeps its sums in
/// registers; a number of rows known at compile time measured no faster.
template <class T>
void scan(const Scan<T>& args, Index d, Index stride, Index count) {
  constexpr Index W = kVectorLength<T>;
  for_column_blocks<T>(stride, [&]<int N>(Index column) {
    for (Index t = 0; t < count; t += kUnroll) {
      const T* key = args.key + t * stride;
      const T* query = args.query + t * stride;
      // Two vectors of columns at a time: their four updates and four sums fill 16 registers.
      constexpr int P = N < 2 ? N : 2;
      for (int part = 0; part < N; part += P) {
        const Index at = column + part * W;
        Vector<T> value[kUnroll][P];
        Vector<T> sum[kUnroll][P] = {};
#pragma GCC unroll 4
        for (Index u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n)
            value[u][n] = load(args.value + (t + u) * stride + at + n * W);
        }
        for (Index j = 0; j < d; ++j) {
          T* row = args.state + j * stride + at;
          Vector<T> m[P];
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) m[n] = load(row + n * W);
#pragma GCC unroll 4
          for (Index u = 0; u < kUnroll; ++u) {
            const Vector<T> kj = broadcast(key[u * stride + j]);
            const Vector<T> qj = broadcast(query[u * stride + j]);
#pragma GCC unroll 2
            for (int n = 0; n < P; ++n) {
              m[n] += kj * value[u][n];
              sum[u][n] += qj * m[n];
            }
          }
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) store(row + n * W, m[n]);
        }
#pragma GCC unroll 4
        for (Index u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 2
          for (int n = 0; n < P; ++n) store(args.out + (t + u) * stride + at + n * W, sum[u][n]);
        }
      }
    }
  });
}

template <class T>
class LinearCore final : public MixerCore<T> {
 public:
  explicit LinearCore(Index d_h) : d_(d_h), stride_(padded<T>(d_h)) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override;
  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override;
  std::unique_ptr<HeadMemory<T>> memory() const override { return make_linear_memory<T>(d_); }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * (d_ * d_ + d_) * static_cast<Index>(sizeof(T));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return dims.rows() * dims.heads * static_cast<Index>(sizeof(T));
  }

 private:
  /// Scratch of one lane: four tiles of rows, one state, one row.
  struct Scratch {
    Scratch(T* base, Index d, Index stride) {
      ScratchAllocator<T> allocator(base);
      for (T** tile : {&a, &b, &c, &out}) *tile = allocator.take(kTileTokens * stride);
      state = allocator.take(d * stride);
      sum = allocator.take(stride);
    }
    static Index size(Index d, Index stride) { return (4 * kTileTokens + d + 1) * stride; }
    void reset(Index d, Index stride) { std::fill_n(state, (d + 1) * stride, T(0)); }

    T *a, *b, *c, *out;  // (kTileTokens, stride)
    T* state;            // (d, stride)
    T* sum;              // (stride), directly behind the state: z or dz
  };

  /// rows[i] = phi(token i)
  void gather_features(const Tile& tile, HeadView<const T> view, T* rows) const {
    for (Index i = 0; i < tile.count; ++i) {
      apply_feature_map(FeatureMap::elu1, view.at(tile.row(i), tile.head), rows + i * stride_, d_);
    }
  }

  /// Runs the scan over a tile. A lane's last tile is rounded up to a multiple of kUnroll by rows
  /// whose zero keys leave the state alone.
  void run_scan(T* key, const T* value, const T* query, const Scratch& scratch, Index count) const {
    const Index rounded = (count + kUnroll - 1) / kUnroll * kUnroll;
    std::fill_n(key + count * stride_, (rounded - count) * stride_, T(0));
    scan<T>(
        {.key = key, .value = value, .query = query, .out = scratch.out, .state = scratch.state},
        d_, stride_, rounded);
  }

  void forward_lane(const Tile& tile, const CoreInputs<T>& inputs, HeadView<T> o,
                    const Scratch& scratch, T* saved) const;
  void backward_queries(const Tile& tile, const CoreInputs<T>& inputs,
                        const CoreGradients<T>& gradients, const T* saved,
                        const Scratch& scratch) const;
  void backward_values(const Tile& tile, const CoreInputs<T>& inputs,
                       const CoreGradients<T>& gradients, const T* saved,
                       const Scratch& scratch) const;
  void backward_keys(const Tile& tile, const CoreInputs<T>& inputs,
                     const CoreGradients<T>& gradients, const T* saved,
                     const Scratch& scratch) const;

  /// Step 5 backward of token i: dn into `dn`, dc returned.
  T denominator_backward(const Tile& tile, const CoreGradients<T>& gradients, Index heads,
                         const T* saved, Index i, T* dn) const;

  Index d_, stride_;
};

template <class T>
void LinearCore<T>::forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                            Array<T>* saved) {
  const HeadDims& dims = inputs.dims;
  if (saved != nullptr) saved->resize(Device::cpu, dims.rows() * dims.heads);
  T* const c = saved != nullptr ? saved->data() : nullptr;
  for_each_lane<T>(context, dims, Scratch::size(d_, stride_), [&](Index b, Index head, T* base) {
    Scratch scratch(base, d_, stride_);
    scratch.reset(d_, stride_);
    for_each_tile(b, head, dims.tokens, false,
                  [&](const Tile& tile) { forward_lane(tile, inputs, o, scratch, c); });
  });
}

template <class T>
void LinearCore<T>::forward_lane(const Tile& tile, const CoreInputs<T>& inputs, HeadView<T> o,
                                 const Scratch& scratch, T* saved) const {
  T* const f = scratch.a;
  T* const p = scratch.b;
  gather_features(tile, inputs.k, f);  // 1
  gather_features(tile, inputs.q, p);
  gather(tile, inputs.v, d_, scratch.c, stride_);
  run_scan(f, scratch.c, p, scratch, tile.count);  // 2, 4
  for (Index i = 0; i < tile.count; ++i) {
    const T* fi = f + i * stride_;
    for (Index j = 0; j < stride_; ++j) scratch.sum[j] += fi[j];  // 3
    const T c = dot(scratch.sum, p + i * stride_, stride_);       // 5
    if (saved != nullptr) saved[tile.row(i) * inputs.dims.heads + tile.head] = c;
    const T scale = 1 / std::max(c, static_cast<T>(kLinearEpsilon));
    const T* n = scratch.out + i * stride_;
    T* to = o.at(tile.row(i), tile.head);
    for (Index j = 0; j < d_; ++j) to[j] = n[j] * scale;
  }
}

template <class T>
T LinearCore<T>::denominator_backward(const Tile& tile, const CoreGradients<T>& gradients,
                                      Index heads, const T* saved, Index i, T* dn) const {
  constexpr T floor = static_cast<T>(kLinearEpsilon);
  const Index row = tile.row(i);
  const T c = saved[row * heads + tile.head];
  const T scale = 1 / std::max(c, floor);
  const T* g = gradients.d_o.at(row, tile.head);
  const T* o = gradients.o.at(row, tile.head);
  T along = 0;
#pragma omp simd reduction(+ : along)
  for (Index j = 0; j < d_; ++j) {
    dn[j] = g[j] * scale;
    along += g[j] * o[j];
  }
  return c < floor ? T(0) : -along * scale;
}

template <class T>
void LinearCore<T>::backward(const Context& context, const CoreInputs<T>& inputs,
                             const CoreGradients<T>& gradients, const Array<T>& saved) {
  const HeadDims& dims = inputs.dims;
  using Pass = void (LinearCore::*)(const Tile&, const CoreInputs<T>&, const CoreGradients<T>&,
                                    const T*, const Scratch&) const;
  for_each_lane<T>(context, dims, Scratch::size(d_, stride_), [&](Index b, Index head, T* base) {
    Scratch scratch(base, d_, stride_);
    const auto run = [&](Pass pass, bool reversed) {
      scratch.reset(d_, stride_);
      for_each_tile(b, head, dims.tokens, reversed, [&](const Tile& tile) {
        (this->*pass)(tile, inputs, gradients, saved.data(), scratch);
      });
    };
    run(&LinearCore::backward_values, true);
    run(&LinearCore::backward_keys, true);
    run(&LinearCore::backward_queries, false);
  });
}

/// dv_t = sum_{s>=t} dn_s (p_s . f_t). Overwrites dv.
template <class T>
void LinearCore<T>::backward_values(const Tile& tile, const CoreInputs<T>& inputs,
                                    const CoreGradients<T>& gradients, const T* saved,
                                    const Scratch& scratch) const {
  T* const p = scratch.a;
  T* const dn = scratch.b;
  gather_features(tile, inputs.q, p);
  gather_features(tile, inputs.k, scratch.c);
  for (Index i = 0; i < tile.count; ++i) {
    denominator_backward(tile, gradients, inputs.dims.heads, saved, i, dn + i * stride_);
  }
  run_scan(p, dn, scratch.c, scratch, tile.count);
  for (Index i = 0; i < tile.count; ++i) {
    std::copy_n(scratch.out + i * stride_, d_, gradients.dv.at(tile.row(i), tile.head));
  }
}

/// df_t = sum_{s>=t} p_s (dn_s . v_t) + dz_t, then step 1. Overwrites dk.
template <class T>
void LinearCore<T>::backward_keys(const Tile& tile, const CoreInputs<T>& inputs,
                                  const CoreGradients<T>& gradients, const T* saved,
                                  const Scratch& scratch) const {
  T* const dn = scratch.a;
  T* const p = scratch.b;
  gather_features(tile, inputs.q, p);
  gather(tile, inputs.v, d_, scratch.c, stride_);
  T dc[kTileTokens];
  for (Index i = 0; i < tile.count; ++i) {
    dc[i] = denominator_backward(tile, gradients, inputs.dims.heads, saved, i, dn + i * stride_);
  }
  run_scan(dn, p, scratch.c, scratch, tile.count);
  T* const f = scratch.c;  // the values are not needed any more
  gather_features(tile, inputs.k, f);
  for (Index i = 0; i < tile.count; ++i) {
    T* df = scratch.out + i * stride_;
    for (Index j = 0; j < stride_; ++j) {
      scratch.sum[j] += dc[i] * p[i * stride_ + j];  // 5: dz
      df[j] += scratch.sum[j];                       // 3
    }
    const Index row = tile.row(i);
    feature_map_backward(FeatureMap::elu1, inputs.k.at(row, tile.head), f + i * stride_, df,
                         gradients.dk.at(row, tile.head), d_);  // 1
  }
}

/// dp_t = sum_{s<=t} f_s (v_s . dn_t) + dc_t z_t, then step 1. Overwrites dq.
template <class T>
void LinearCore<T>::backward_queries(const Tile& tile, const CoreInputs<T>& inputs,
                                     const CoreGradients<T>& gradients, const T* saved,
                                     const Scratch& scratch) const {
  T* const v = scratch.a;
  T* const f = scratch.b;
  T* const dn = scratch.c;
  gather(tile, inputs.v, d_, v, stride_);
  gather_features(tile, inputs.k, f);
  T dc[kTileTokens];
  for (Index i = 0; i < tile.count; ++i) {
    dc[i] = denominator_backward(tile, gradients, inputs.dims.heads, saved, i, dn + i * stride_);
  }
  run_scan(v, f, dn, scratch, tile.count);
  T* const p = scratch.c;  // dn is not needed any more
  gather_features(tile, inputs.q, p);
  for (Index i = 0; i < tile.count; ++i) {
    T* dp = scratch.out + i * stride_;
    for (Index j = 0; j < stride_; ++j) {
      scratch.sum[j] += f[i * stride_ + j];  // 3: z
      dp[j] += dc[i] * scratch.sum[j];       // 5
    }
    const Index row = tile.row(i);
    feature_map_backward(FeatureMap::elu1, inputs.q.at(row, tile.head), p + i * stride_, dp,
                         gradients.dq.at(row, tile.head), d_);  // 1
  }
}

}  // namespace linear

template <class T>
std::unique_ptr<MixerCore<T>> make_linear_core(const MixerConfig& /*config*/, Index d_h) {
  return std::make_unique<linear::LinearCore<T>>(d_h);
}
template std::unique_ptr<MixerCore<float>> make_linear_core<float>(const MixerConfig&, Index);
template std::unique_ptr<MixerCore<double>> make_linear_core<double>(const MixerConfig&, Index);

}  // namespace vla_bench::mixers
