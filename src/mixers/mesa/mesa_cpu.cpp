// Mesa on the CPU: H and the solves of its read-outs, forward and backward. G is recurrence.h's.
// Numbers are the steps of mesa.h.
#include <algorithm>
#include <vector>

#include "mixers/mesa/mesa.h"
#include "mixers/recurrence/cpu_token.h"
#include "mixers/recurrence/memory.h"

namespace vla_bench {
namespace mixers {
namespace {

/// Solves (H + diag(lambda)) x = b by H + diag(lambda) = L D L^T. Rows have `stride` elements with
/// zero tails.
template <class T>
class RidgeSolver {
 public:
  RidgeSolver(Index d, Index stride)
      : d_(d), stride_(stride), block_(Device::cpu, d * stride + d) {}

  /// h (d, stride), lambda (d); x (stride) holds b and then x.
  void solve(const T* h, const T* lambda, T* x) {
    factorise(h, lambda);
    for (Index j = 0; j < d_; ++j) {  // L z = b
      const T share = x[j] * inverse_pivots()[j];
      add(j, -share, row(j), x);
    }
    for (Index j = d_ - 1; j >= 0; --j) {  // D L^T x = z
      const T* upper = row(j);
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (Index i = start(j); i < stride_; ++i) sum += upper[i] * x[i];
      x[j] = (x[j] - sum) * inverse_pivots()[j];
    }
  }

 private:
  T* row(Index j) { return block_.data() + j * stride_; }
  T* inverse_pivots() { return block_.data() + d_ * stride_; }
  /// The first column of the vector that column j stands in.
  static Index start(Index j) { return j / kVectorLength<T> * kVectorLength<T>; }

  /// y += factor x from the vector of column j on.
  void add(Index j, T factor, const T* x, T* y) const {
#pragma omp simd
    for (Index i = start(j); i < stride_; ++i) y[i] += factor * x[i];
  }

  /// Row j becomes D L^T's behind its diagonal, and 0 up to there.
  void factorise(const T* h, const T* lambda) {
    std::copy_n(h, d_ * stride_, block_.data());
    for (Index j = 0; j < d_; ++j) row(j)[j] += lambda[j];
    for (Index j = 0; j < d_; ++j) {
      T* const pivot_row = row(j);
      const T inverse = 1 / pivot_row[j];
      inverse_pivots()[j] = inverse;
      std::fill_n(pivot_row + start(j), j + 1 - start(j), T(0));
      for (Index i = j + 1; i < d_; ++i) add(i, -pivot_row[i] * inverse, pivot_row, row(i));
    }
  }

  Index d_, stride_;
  Array<T> block_;
};

template <class T>
class MesaLane final : public LaneRule<T> {
 public:
  MesaLane(const MesaRule& rule, Index d)
      : rule_(rule), d_(d), stride_(padded<T>(d)), matrix_size_(d * stride_), solver_(d, stride_) {
    block_.resize(Device::cpu, (kTileTokens + 1) * stride_ + matrix_size_);
    rhs_ = block_.data();
    lambda_ = rhs_ + kTileTokens * stride_;
    h_ = lambda_ + stride_;
  }

  /// x (T, stride), and H before every tile (tiles, d, stride).
  static Index kept_size(Index d, Index tokens) {
    return (tokens + (tokens + kTileTokens - 1) / kTileTokens * d) * padded<T>(d);
  }

  void start(Index tokens, T* kept) override {
    tokens_ = tokens;
    kept_x_ = kept;
    checkpoints_ = kept != nullptr ? kept + tokens * stride_ : nullptr;
    std::fill_n(h_, matrix_size_, T(0));
  }

  void bind(const Tile& tile, const CoreInputs<T>& inputs, const RecurrenceRows<T>& rows) override {
    bind_rows(tile, inputs, rows);
    if (checkpoints_ != nullptr) std::copy_n(h_, matrix_size_, checkpoint(tile.first));
    for (Index i = 0; i < tile.count; ++i) {
      advance(rows, i, h_, h_);  // 3
      T* const x = rows.q + i * rows.stride;
      std::copy_n(rhs_ + i * stride_, d_, x);
      solver_.solve(h_, lambda_, x);  // 4
      if (kept_x_ != nullptr) std::copy_n(x, d_, kept_x_ + (tile.first + i) * stride_);
    }
  }
  void rebind(const Tile& tile, const CoreInputs<T>& inputs,
              const RecurrenceRows<T>& rows) override {
    bind_rows(tile, inputs, rows);
    for (Index i = 0; i < tile.count; ++i) {
      const Index token = tile.row(i) - tile.batch * tile.tokens;
      std::copy_n(kept_x_ + token * stride_, d_, rows.q + i * rows.stride);
    }
  }
  void bind_key(const Tile& tile, const T* key, const RecurrenceRows<T>& rows) override {
    const CoreInputs<T> none{};
    const CpuToken<T> token(d_, tile, 0, none, rows);
    typename CpuToken<T>::Channels channels;
    std::copy_n(key, d_, channels.values);
    rule_.bind_key(token, channels);
    advance(rows, 0, h_, h_);
  }
  /// x for lambda = 1.
  std::vector<T> answer(const T* query) const {
    std::vector<T> x(static_cast<std::size_t>(stride_), T(0));
    std::copy_n(query, d_, x.begin());
    const std::vector<T> ones(static_cast<std::size_t>(d_), T(1));
    RidgeSolver<T>(d_, stride_).solve(h_, ones.data(), x.data());
    return x;
  }

  /// H's gradient runs against time, after this has seen all tokens.
  void unbind(const Tile& tile, const CoreInputs<T>& /*inputs*/,
              const RecurrenceGradients<T>& gradients, const CoreGradients<T>& /*out*/) override {
    make_backward();
    lane_ = tile;
    for (Index i = 0; i < tile.count; ++i) {
      const Index at = (tile.first + i) * stride_;
      std::copy_n(gradients.dq + i * gradients.stride, d_, dx_ + at);
      std::copy_n(gradients.da + i * gradients.stride, d_, da_ + at);
      ddecay_[tile.first + i] = gradients.ddecay[i];
    }
  }
  void finish(const CoreInputs<T>& inputs, const CoreGradients<T>& out) override {
    std::fill_n(dh_, matrix_size_, T(0));
    for_each_tile(lane_.batch, lane_.head, tokens_, true, [&](const Tile& reversed) {
      const Tile tile{reversed.batch, reversed.head, reversed.tokens,
                      reversed.first - reversed.count + 1, reversed.count};
      bind_rows(tile, inputs, rows_);
      std::copy_n(checkpoint(tile.first), matrix_size_, history_);
      for (Index i = 0; i < tile.count; ++i) advance(rows_, i, history(i), history(i + 1));
      for (Index i = tile.count - 1; i >= 0; --i) token_backward(tile, i, inputs, out);
    });
  }

 private:
  T* checkpoint(Index token) const { return checkpoints_ + token / kTileTokens * matrix_size_; }
  T* history(Index i) const { return history_ + i * matrix_size_; }

  /// 1 and 2: k', beta k', gamma, and q' into rhs_.
  [[gnu::flatten]] void bind_rows(const Tile& tile, const CoreInputs<T>& inputs,
                                  const RecurrenceRows<T>& rows) {
    RecurrenceRows<T> with_rhs = rows;
    with_rhs.own = rhs_;
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      for (Index i = 0; i < tile.count; ++i) {
        const CpuToken<T, Size> token(d, tile, i, inputs, with_rhs);
        rule_.bind(token);
        if (i > 0) continue;
        const Ridge<CpuToken<T, Size>> ridge(token, token.parameter_channels(0), rule_.as_given);
        std::copy_n(ridge.lambda.values, d_, lambda_);
      }
    });
  }

  /// to = gamma from + beta k' k'^T
  void advance(const RecurrenceRows<T>& rows, Index i, const T* from, T* to) const {
    const T* k = rows.r + i * rows.stride;
    const T* a = rows.a + i * rows.stride;
    const T gamma = rows.decay[i];
    for (Index j = 0; j < d_; ++j) {
      const T* source = from + j * stride_;
      T* const target = to + j * stride_;
      const T a_j = a[j];
#pragma omp simd
      for (Index l = 0; l < d_; ++l) target[l] = gamma * source[l] + a_j * k[l];
    }
  }

  /// 4 and 3 against time; dh_ moves to the token before.
  void token_backward(const Tile& tile, Index i, const CoreInputs<T>& inputs,
                      const CoreGradients<T>& out) {
    const Index token = tile.first + i;
    T* const x = kept_x_ + token * stride_;
    T* const da = da_ + token * stride_;
    T* const y = dx_ + token * stride_;
    solver_.solve(history(i + 1), lambda_, y);
    const T* k = rows_.r + i * stride_;
    const T* a = rows_.a + i * stride_;
    std::fill_n(dk_, stride_, T(0));
    T dgamma = ddecay_[token];
    for (Index j = 0; j < d_; ++j) {
      T* const gradient = dh_ + j * stride_;
      const T* before = history(i) + j * stride_;
      const T half_x = x[j] / 2, half_y = y[j] / 2, k_j = k[j], a_j = a[j], gamma = rows_.decay[i];
#pragma omp simd reduction(+ : dgamma)
      for (Index l = 0; l < d_; ++l) {
        const T fresh = gradient[l] - half_y * x[l] - half_x * y[l];
        da[l] += k_j * fresh;
        dk_[l] += a_j * fresh;
        dgamma += fresh * before[l];
        gradient[l] = gamma * fresh;
      }
    }
    for (Index l = 0; l < d_; ++l) y[l] = -y[l];
    const Tile one{tile.batch, tile.head, tile.tokens, token, 1};
    RecurrenceRows<T> answer;
    answer.own = x;
    with_head_size<T>(d_, [&]<class Size>(Size d) {
      const RecurrenceGradients<T> gradients{
          .stride = 0, .dr = dk_, .da = da, .dq = y, .ddecay = &dgamma};
      rule_.unbind(CpuToken<T, Size>(d, one, 0, inputs, answer, gradients, &out));
    });
  }

  void make_backward() {
    if (backward_tokens_ == tokens_) return;
    backward_tokens_ = tokens_;
    backward_.resize(Device::cpu, (kTileTokens + 2) * matrix_size_ +
                                      (4 * kTileTokens + 1) * stride_ + 2 * tokens_ * stride_ +
                                      padded<T>(kTileTokens) + tokens_);
    ScratchAllocator<T> allocator(backward_.data());
    history_ = allocator.take((kTileTokens + 1) * matrix_size_);
    dh_ = allocator.take(matrix_size_);
    rows_.stride = stride_;
    for (T** row : {&rows_.r, &rows_.a, &rows_.q, &rows_.f}) {
      *row = allocator.take(kTileTokens * stride_);
    }
    rows_.decay = allocator.take(padded<T>(kTileTokens));
    dk_ = allocator.take(stride_);
    // Last, since only they depend on the length: the tails of the others stay zero.
    dx_ = allocator.take(tokens_ * stride_);
    da_ = allocator.take(tokens_ * stride_);
    ddecay_ = allocator.take(tokens_);
  }

  MesaRule rule_;
  Index d_, stride_, matrix_size_;
  RidgeSolver<T> solver_;
  Index tokens_ = 0;
  Tile lane_{};  // the last tile: batch and head are the lane's
  T *kept_x_ = nullptr, *checkpoints_ = nullptr;

  Array<T> block_;
  T* rhs_;     // (kTileTokens, stride): q'
  T* lambda_;  // (stride)
  T* h_;       // (d, stride)

  Array<T> backward_;
  Index backward_tokens_ = -1;
  T* history_ = nullptr;             // (kTileTokens + 1, d, stride): H before each token of a tile
  T* dh_ = nullptr;                  // (d, stride)
  RecurrenceRows<T> rows_{};         // of a tile
  T* dk_ = nullptr;                  // (stride)
  T *dx_ = nullptr, *da_ = nullptr;  // (T, stride); dx becomes y, then -y
  T* ddecay_ = nullptr;              // (T)
};

/// G and H of a head; reads solve.
template <class T>
class MesaMemory final : public RecurrentMemory<T> {
 public:
  MesaMemory(const RecurrenceForm& form, Index d, Index head, std::unique_ptr<MesaLane<T>> lane)
      : RecurrentMemory<T>(form, d, head, std::move(lane)) {}

  void read(const T* query, T* out) const override {
    const std::vector<T> x = static_cast<const MesaLane<T>&>(this->rule()).answer(query);
    RecurrentMemory<T>::read(x.data(), out);
  }
};

template <class T>
class MesaRecurrence final : public RecurrentRule<T> {
 public:
  MesaRecurrence(const MesaRule& rule, Index d)
      : RecurrentRule<T>(d), rule_(rule), form_(rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<T>> make_lane() const override {
    return std::make_unique<MesaLane<T>>(rule_, this->d());
  }
  std::unique_ptr<HeadMemory<T>> make_memory(Index head) const override {
    return std::make_unique<MesaMemory<T>>(form_, this->d(), head,
                                           std::make_unique<MesaLane<T>>(rule_, this->d()));
  }
  Index kept_size(Index tokens) const override { return MesaLane<T>::kept_size(this->d(), tokens); }
  Index own_state_size(Index d) const override { return rule_.own_state_size(d); }

 private:
  MesaRule rule_;
  RecurrenceForm form_;
};

}  // namespace
}  // namespace mixers

template <class T>
std::unique_ptr<mixers::RecurrentRule<T>> make_chain_rule(const MesaOptions& options, Index d_h) {
  return std::make_unique<mixers::MesaRecurrence<T>>(mixers::MesaRule{options.as_given}, d_h);
}
template std::unique_ptr<mixers::RecurrentRule<float>> make_chain_rule(const MesaOptions&, Index);
template std::unique_ptr<mixers::RecurrentRule<double>> make_chain_rule(const MesaOptions&, Index);

}  // namespace vla_bench
