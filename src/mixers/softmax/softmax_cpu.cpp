// Production softmax attention on the CPU: online softmax over tiles; the numbers are the steps of
// softmax.h.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/tile_product.h"
#include "mixers/lanes.h"
#include "mixers/softmax/softmax_core.h"
#include "ops/cpu/vector_math.h"

namespace vla_bench {
namespace mixers {
namespace softmax {

/// A tile of scores is kQueries x kKeys: 8 KiB in float, so that it fits in L1 together with its
/// rows of queries and keys. Fewer queries than keys waste less above the diagonal.
inline constexpr Index kQueries = 32;
inline constexpr Index kKeys = 64;
/// Rows that products compute together, of which those tiles consist.
inline constexpr int kTileRows = 4;
static_assert(kQueries % kTileRows == 0 && kKeys % kTileRows == 0);
static_assert(kKeys % kQueries == 0,
              "a tile of queries never starts before a tile of keys it sees");

constexpr Index round_up(Index value, Index multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Gathers a lane's rows once: O(T d) scratch per thread.
template <class T>
class Lane {
 public:
  Lane(Index tokens, Index d) : tokens_(tokens), d_(d), stride_(padded<T>(d)) {}

  Index stride() const { return stride_; }
  /// Elements of (T, stride), rows rounded up to whole tiles.
  Index rows_size() const { return round_up(tokens_, kKeys) * stride_; }
  /// Elements of the transposed key tiles.
  Index transposed_size() const { return round_up(tokens_, kKeys) * d_; }
  static constexpr Index kScoresSize = kQueries * kKeys;

  void gather_rows(HeadView<const T> view, Index batch, Index head, T scale, T* rows) const {
    for (Index t = 0; t < tokens_; ++t) {
      const T* from = view.at(batch * tokens_ + t, head);
      T* to = rows + t * stride_;
      for (Index i = 0; i < d_; ++i) to[i] = scale * from[i];
    }
  }
  /// Gathers tiles of kKeys tokens as (d, kKeys); the last one is padded with zeros.
  void gather_transposed(HeadView<const T> view, Index batch, Index head, T* tiles) const {
    std::fill_n(tiles, transposed_size(), T(0));
    for (Index t = 0; t < tokens_; ++t) {
      const T* from = view.at(batch * tokens_ + t, head);
      T* to = transposed_tile(tiles, t / kKeys * kKeys) + t % kKeys;
      for (Index i = 0; i < d_; ++i) to[i * kKeys] = from[i];
    }
  }
  template <class U>
  U* transposed_tile(U* tiles, Index first_key) const {
    return tiles + first_key * d_;
  }

 private:
  Index tokens_, d_, stride_;
};

/// One tile of queries against one tile of keys.
struct Block {
  Index first_query, queries;
  Index first_key, keys;

  /// Rows and columns of products, padding included.
  Index rows() const { return round_up(queries, kTileRows); }
  template <class T>
  Index columns() const {
    return padded<T>(keys);
  }
  /// Number of keys of this tile that query r sees.
  Index visible(Index r) const {
    return std::clamp<Index>(first_query + r + 1 - first_key, 0, keys);
  }
};

template <class T>
class SoftmaxCore final : public AttentionCore<T> {
 public:
  explicit SoftmaxCore(Index d_h)
      : AttentionCore<T>(d_h, kSavedScalars), scale_(1 / std::sqrt(static_cast<T>(d_h))) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override;
  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override;

 private:
  /// Saved (B, T, H, 2): largest score and 1 / sum of exponentials. Their logarithmic sum L would
  /// be one number, but rounding L to float scales a whole row of weights by 1 + 2^-24 |L|, a
  /// visible error in the gradients of keys, which cancel over a row.
  static constexpr Index kSavedScalars = 2;

  struct Forward {
    T *query, *value;  // (T, stride), queries times s
    T* key_tiles;      // (tiles, d, kKeys)
    T* scores;         // (kQueries, kKeys)
    T* sums;           // (kQueries, stride): unnormalised outputs
    T largest[kQueries], total[kQueries];
  };
  struct Backward {
    T *query, *key, *value, *upstream;  // (T, stride), queries times s
    T* dquery;                          // (T, stride)
    T *key_tiles, *value_tiles;         // (tiles, d, kKeys)
    T *weights, *dscores;               // (kQueries, kKeys)
    T *dkey, *dvalue;                   // (kKeys, stride)
    T* delta;                           // (T): D
    T *largest, *scale;                 // (T): of the scores, 1 / sum
    T* rest;                            // (T): sum of dx over the keys so far
  };

  /// Online softmax of a tile of scores: takes exponentials in place, updates running maximum and
  /// sum, and rescales the outputs so far.
  void update_rows(const Block& block, Index stride, Forward& work) const;
  /// Weights and score gradients of a tile: on entry weights hold scores and dscores hold dp.
  void differentiate(const Block& block, const Backward& work) const;
  void backward_key_tile(Index tokens, Index first_key, Index stride, const Backward& work) const;

  using AttentionCore<T>::d_;
  T scale_;
};

template <class T>
void SoftmaxCore<T>::update_rows(const Block& block, Index stride, Forward& work) const {
  for (Index r = 0; r < block.queries; ++r) {
    T* x = work.scores + r * kKeys;
    const Index visible = block.visible(r);
    const Index columns = block.columns<T>();
    T largest = work.largest[r];
#pragma omp simd reduction(max : largest)
    for (Index j = 0; j < visible; ++j) largest = std::max(largest, x[j]);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < columns; ++j) {
      const T weight = j < visible ? ops::cpu::exp(x[j] - largest) : T(0);  // 2, not yet normalised
      x[j] = weight;
      sum += weight;
    }
    const T rescale = std::exp(work.largest[r] - largest);
    work.largest[r] = largest;
    work.total[r] = work.total[r] * rescale + sum;
    if (rescale == 1) continue;
    T* o = work.sums + r * stride;
    for (Index i = 0; i < stride; ++i) o[i] *= rescale;
  }
}

template <class T>
void SoftmaxCore<T>::forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                             Array<T>* saved) {
  const HeadDims& dims = inputs.dims;
  if (saved != nullptr) saved->resize(Device::cpu, this->saved_size(dims));
  const Lane<T> lane(dims.tokens, d_);
  const Index stride = lane.stride();
  const Index scratch_size =
      2 * lane.rows_size() + lane.transposed_size() + lane.kScoresSize + kQueries * stride;
  for_each_lane<T>(context, dims, scratch_size, [&](Index b, Index head, T* base) {
    ScratchAllocator<T> allocator(base);
    Forward work{.query = allocator.take(lane.rows_size()),
                 .value = allocator.take(lane.rows_size()),
                 .key_tiles = allocator.take(lane.transposed_size()),
                 .scores = allocator.take(lane.kScoresSize),
                 .sums = allocator.take(kQueries * stride)};
    lane.gather_rows(inputs.q, b, head, scale_, work.query);
    lane.gather_rows(inputs.v, b, head, T(1), work.value);
    lane.gather_transposed(inputs.k, b, head, work.key_tiles);

    for (Index first = 0; first < dims.tokens; first += kQueries) {
      const Index queries = std::min(kQueries, dims.tokens - first);
      std::fill_n(work.largest, kQueries, -std::numeric_limits<T>::infinity());
      std::fill_n(work.total, kQueries, T(0));
      std::fill_n(work.sums, kQueries * stride, T(0));
      for (Index first_key = 0; first_key < first + queries; first_key += kKeys) {
        const Block block{first, queries, first_key, std::min(kKeys, first + queries - first_key)};
        tile_product<T, kTileRows>({block.rows(), d_, block.template columns<T>()},
                                   {work.query + first * stride, stride, 1},
                                   {lane.transposed_tile(work.key_tiles, first_key), kKeys},
                                   {work.scores, kKeys});  // 1
        update_rows(block, stride, work);
        add_tile_product<T, kTileRows>({block.rows(), block.keys, stride}, {work.scores, kKeys, 1},
                                       {work.value + first_key * stride, stride},
                                       {work.sums, stride});  // 3
      }
      for (Index r = 0; r < queries; ++r) {
        const Index row = b * dims.tokens + first + r;
        const T* sums = work.sums + r * stride;
        T* to = o.at(row, head);
        const T scale = 1 / work.total[r];
        for (Index i = 0; i < d_; ++i) to[i] = sums[i] * scale;
        if (saved != nullptr) {
          T* scalars = saved->data() + kSavedScalars * (row * dims.heads + head);
          scalars[0] = work.largest[r];
          scalars[1] = scale;
        }
      }
    }
  });
}

template <class T>
void SoftmaxCore<T>::differentiate(const Block& block, const Backward& work) const {
  const Index columns = block.columns<T>();
  for (Index r = 0; r < block.queries; ++r) {
    T* p = work.weights + r * kKeys;
    T* dx = work.dscores + r * kKeys;
    const Index visible = block.visible(r);
    const T largest = work.largest[block.first_query + r];
    const T scale = work.scale[block.first_query + r];
    const T delta = work.delta[block.first_query + r];
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < columns; ++j) {
      const T weight = j < visible ? ops::cpu::exp(p[j] - largest) * scale : T(0);
      p[j] = weight;
      dx[j] = weight * (dx[j] - delta);  // 2
      sum += dx[j];
    }
    // A row of dx sums to zero, and the gradient of the key bias is made of these sums. The row's
    // last key absorbs what rounding leaves, which Adam would magnify.
    T& rest = work.rest[block.first_query + r];
    rest += sum;
    const Index diagonal = block.first_query + r - block.first_key;
    if (diagonal < block.keys) dx[diagonal] -= rest;
  }
}

template <class T>
void SoftmaxCore<T>::backward_key_tile(Index tokens, Index first_key, Index stride,
                                       const Backward& work) const {
  const Index keys = std::min(kKeys, tokens - first_key);
  const Lane<T> lane(tokens, d_);
  std::fill_n(work.dkey, kKeys * stride, T(0));
  std::fill_n(work.dvalue, kKeys * stride, T(0));
  // The first tile of queries that sees any of these keys.
  for (Index first = first_key / kQueries * kQueries; first < tokens; first += kQueries) {
    const Index queries = std::min(kQueries, tokens - first);
    const Block block{first, queries, first_key, std::min(keys, first + queries - first_key)};
    const T* query = work.query + first * stride;
    const T* upstream = work.upstream + first * stride;
    const ProductSizes scores{block.rows(), d_, block.template columns<T>()};
    tile_product<T, kTileRows>(scores, {query, stride, 1},
                               {lane.transposed_tile(work.key_tiles, first_key), kKeys},
                               {work.weights, kKeys});  // 1
    tile_product<T, kTileRows>(scores, {upstream, stride, 1},
                               {lane.transposed_tile(work.value_tiles, first_key), kKeys},
                               {work.dscores, kKeys});  // 3: dp
    differentiate(block, work);
    const ProductSizes to_keys{round_up(block.keys, kTileRows), queries, stride};
    add_tile_product<T, kTileRows>(to_keys, {work.weights, 1, kKeys}, {upstream, stride},
                                   {work.dvalue, stride});  // 3
    add_tile_product<T, kTileRows>(to_keys, {work.dscores, 1, kKeys}, {query, stride},
                                   {work.dkey, stride});  // 1, s within the queries
    add_tile_product<T, kTileRows>(
        {block.rows(), block.keys, stride}, {work.dscores, kKeys, 1},
        {work.key + first_key * stride, stride},
        {work.dquery + first * stride, stride});  // 1, s applied at the end
  }
}

template <class T>
void SoftmaxCore<T>::backward(const Context& context, const CoreInputs<T>& inputs,
                              const CoreGradients<T>& gradients, const Array<T>& saved) {
  const HeadDims& dims = inputs.dims;
  const Lane<T> lane(dims.tokens, d_);
  const Index stride = lane.stride();
  const Index scratch_size = 5 * lane.rows_size() + 2 * lane.transposed_size() +
                             2 * lane.kScoresSize + 2 * kKeys * stride + 4 * dims.tokens;
  for_each_lane<T>(context, dims, scratch_size, [&](Index b, Index head, T* base) {
    ScratchAllocator<T> allocator(base);
    Backward work;
    for (T** rows : {&work.query, &work.key, &work.value, &work.upstream, &work.dquery}) {
      *rows = allocator.take(lane.rows_size());
    }
    for (T** tiles : {&work.key_tiles, &work.value_tiles}) {
      *tiles = allocator.take(lane.transposed_size());
    }
    for (T** scores : {&work.weights, &work.dscores}) *scores = allocator.take(lane.kScoresSize);
    for (T** rows : {&work.dkey, &work.dvalue}) *rows = allocator.take(kKeys * stride);
    for (T** scalars : {&work.delta, &work.largest, &work.scale, &work.rest}) {
      *scalars = allocator.take(dims.tokens);
    }

    lane.gather_rows(inputs.q, b, head, scale_, work.query);
    lane.gather_rows(inputs.k, b, head, T(1), work.key);
    lane.gather_rows(gradients.d_o, b, head, T(1), work.upstream);
    lane.gather_transposed(inputs.k, b, head, work.key_tiles);
    lane.gather_transposed(inputs.v, b, head, work.value_tiles);
    std::fill_n(work.dquery, lane.rows_size(), T(0));
    for (Index t = 0; t < dims.tokens; ++t) {
      const Index row = b * dims.tokens + t;
      const T* g = gradients.d_o.at(row, head);
      const T* o = gradients.o.at(row, head);
      T delta = 0;
#pragma omp simd reduction(+ : delta)
      for (Index i = 0; i < d_; ++i) delta += g[i] * o[i];
      work.delta[t] = delta;
      work.rest[t] = 0;
      work.largest[t] = saved[kSavedScalars * (row * dims.heads + head)];
      work.scale[t] = saved[kSavedScalars * (row * dims.heads + head) + 1];
    }
    for (Index first_key = 0; first_key < dims.tokens; first_key += kKeys) {
      backward_key_tile(dims.tokens, first_key, stride, work);
      for (Index j = 0; j < std::min(kKeys, dims.tokens - first_key); ++j) {
        const Index row = b * dims.tokens + first_key + j;
        std::copy_n(work.dkey + j * stride, d_, gradients.dk.at(row, head));
        std::copy_n(work.dvalue + j * stride, d_, gradients.dv.at(row, head));
      }
    }
    for (Index t = 0; t < dims.tokens; ++t) {
      T* to = gradients.dq.at(b * dims.tokens + t, head);
      for (Index i = 0; i < d_; ++i) to[i] = scale_ * work.dquery[t * stride + i];
    }
  });
}

}  // namespace softmax
}  // namespace mixers

template <class T>
std::unique_ptr<MixerCore<T>> make_attention_core(const SoftmaxOptions& /*options*/, Index d_h) {
  return std::make_unique<mixers::softmax::SoftmaxCore<T>>(d_h);
}
template std::unique_ptr<MixerCore<float>> make_attention_core(const SoftmaxOptions&, Index);
template std::unique_ptr<MixerCore<double>> make_attention_core(const SoftmaxOptions&, Index);

}  // namespace vla_bench
