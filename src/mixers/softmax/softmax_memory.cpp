// Softmax attention's memory: a cache that grows by one key and one value per token.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mixers/mixer.h"
#include "mixers/softmax/softmax.h"

namespace vla_bench::mixers {
namespace {

template <class T>
class SoftmaxMemory final : public HeadMemory<T> {
 public:
  explicit SoftmaxMemory(Index d) : d_(d), root_(std::sqrt(static_cast<T>(d))) {}

  void reset() override {
    keys_.clear();
    values_.clear();
  }

  void step(const TokenInputs<T>& token, T* o) override {
    keys_.insert(keys_.end(), token.k, token.k + d_);
    values_.insert(values_.end(), token.v, token.v + d_);
    attend(token.q, 1 / root_, o);
  }

  /// Stores the key at length sqrt(d).
  void write(const T* key, const T* value) override {
    for (Index i = 0; i < d_; ++i) keys_.push_back(root_ * key[i]);
    values_.insert(values_.end(), value, value + d_);
  }

  /// The query's length sqrt(d) and the scale 1 / sqrt(d) of the scores cancel.
  void read(const T* query, T* out) const override { attend(query, T(1), out); }

  double state_norm() const override {
    double sum = 0.0;
    for (const std::vector<T>* cache : {&keys_, &values_}) {
      for (T value : *cache) sum += static_cast<double>(value) * static_cast<double>(value);
    }
    return std::sqrt(sum);
  }
  std::optional<StepJacobian> jacobian() const override { return std::nullopt; }

 private:
  void attend(const T* query, T scale, T* out) const {
    const Index count = static_cast<Index>(keys_.size()) / d_;
    std::vector<T> weights;
    weights.reserve(static_cast<std::size_t>(count));
    T largest = -std::numeric_limits<T>::infinity();
    for (Index j = 0; j < count; ++j) {
      T score = 0;
      for (Index i = 0; i < d_; ++i)
        score += query[i] * keys_[static_cast<std::size_t>(j * d_ + i)];
      weights.push_back(scale * score);
      largest = std::max(largest, weights.back());
    }
    T sum = 0;
    for (T& weight : weights) sum += weight = std::exp(weight - largest);
    for (Index i = 0; i < d_; ++i) out[i] = 0;  // an empty cache reads as zero
    for (Index j = 0; j < count; ++j) {
      const T weight = weights[static_cast<std::size_t>(j)] / sum;
      for (Index i = 0; i < d_; ++i) {
        out[i] += weight * values_[static_cast<std::size_t>(j * d_ + i)];
      }
    }
  }

  Index d_;
  T root_;                        // sqrt(d)
  std::vector<T> keys_, values_;  // (t, d)
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> make_softmax_memory(Index d_h) {
  return std::make_unique<SoftmaxMemory<T>>(d_h);
}
template std::unique_ptr<HeadMemory<float>> make_softmax_memory<float>(Index);
template std::unique_ptr<HeadMemory<double>> make_softmax_memory<double>(Index);

}  // namespace vla_bench::mixers
