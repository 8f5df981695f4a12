// Linear attention's memory, one token at a time; the numbers are the steps of linear.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/feature_map.h"
#include "mixers/linear/linear.h"
#include "mixers/state_kernels.h"

namespace vla_bench::mixers {
namespace {

template <class T>
class LinearMemory final : public HeadMemory<T> {
 public:
  explicit LinearMemory(Index d)
      : d_(d),
        stride_(padded<T>(d)),
        state_(size(d * stride_)),
        z_(size(stride_)),
        f_(size(stride_)),
        p_(size(stride_)),
        v_(size(stride_)),
        n_(size(stride_)) {}

  void reset() override {
    std::fill(state_.begin(), state_.end(), T(0));
    std::fill(z_.begin(), z_.end(), T(0));
  }

  void step(const T* q, const T* k, const T* v, const T* /*aux*/, T* o) override {
    apply_feature_map(FeatureMap::elu1, k, f_.data(), d_);  // 1
    apply_feature_map(FeatureMap::elu1, q, p_.data(), d_);
    add(f_.data(), v);                                               // 2
    for (Index i = 0; i < stride_; ++i) z_[size(i)] += f_[size(i)];  // 3
    read_rows(d_, stride_, state_.data(), p_.data(), n_.data());     // 4
    const T c = std::max(dot(z_.data(), p_.data(), stride_), static_cast<T>(kLinearEpsilon));
    for (Index i = 0; i < d_; ++i) o[i] = n_[size(i)] / c;  // 5
  }

  void write(const T* key, const T* value, const T* /*direction*/) override { add(key, value); }

  void read(const T* query, T* out) const override {
    for (Index i = 0; i < d_; ++i) out[i] = 0;
    for (Index j = 0; j < d_; ++j) {
      for (Index i = 0; i < d_; ++i) out[i] += query[j] * state_[size(j * stride_ + i)];
    }
  }

  double state_norm() const override {
    double sum = 0.0;
    for (T value : state_) sum += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(sum);
  }
  std::optional<double> penalty_norm() const override { return std::nullopt; }
  /// S_t = S_{t-1} + ...: J is the identity.
  std::optional<StepJacobian> jacobian() const override {
    const std::vector<double> none(size(d_), 0.0);
    return StepJacobian{.k = none, .a = none};
  }

 private:
  static std::size_t size(Index i) { return static_cast<std::size_t>(i); }

  /// S^T += key value^T
  void add(const T* key, const T* value) {
    std::copy_n(value, d_, v_.data());
    for (Index j = 0; j < d_; ++j) {
      T* row = state_.data() + j * stride_;
      for (Index i = 0; i < stride_; ++i) row[i] += key[j] * v_[size(i)];
    }
  }

  Index d_, stride_;
  std::vector<T> state_;  // (d, stride): S transposed
  std::vector<T> z_, f_, p_, v_, n_;
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> make_linear_memory(Index d_h) {
  return std::make_unique<LinearMemory<T>>(d_h);
}
template std::unique_ptr<HeadMemory<float>> make_linear_memory<float>(Index);
template std::unique_ptr<HeadMemory<double>> make_linear_memory<double>(Index);

}  // namespace vla_bench::mixers
