// DeltaNet's memory, one token at a time; the numbers are the steps of deltanet.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/deltanet/deltanet.h"
#include "mixers/deltanet/deltanet_features.h"
#include "mixers/state_kernels.h"

namespace vla_bench::mixers {
namespace {

template <class T>
class DeltaNetMemory final : public HeadMemory<T> {
 public:
  DeltaNetMemory(DeltaNetVariant variant, Index d)
      : features_(variant, d),
        d_(d),
        stride_(padded<T>(d)),
        state_(size(d * stride_)),
        query_(size(stride_)),
        key_(size(stride_)),
        gate_(size(stride_)),
        residual_(size(stride_)),
        read_(size(stride_)) {}

  void reset() override {
    std::fill(state_.begin(), state_.end(), T(0));
    std::fill(key_.begin(), key_.end(), T(0));
    strength_ = 0;
  }

  void step(const T* q, const T* k, const T* v, const T* aux, T* o) override {
    features_.key(k, key_.data());  // 1
    features_.query(q, query_.data());
    if (features_.gated()) {
      features_.gate(aux, gate_.data());
      gate_open_ = false;
      strength_ = 1;
    } else {
      open_gate();
      strength_ = features_.strength(aux);
    }
    update(v);
    read_rows(d_, stride_, state_.data(), query_.data(), read_.data());  // 4
    std::copy_n(read_.data(), d_, o);
  }

  void write(const T* key, const T* value, const T* /*direction*/) override {
    std::copy_n(key, d_, key_.data());
    open_gate();
    strength_ = 1;
    update(value);
  }

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

  /// With an open gate S_t = S_{t-1} (I - b k k^T) + ...; a closed gate acts from the left.
  std::optional<StepJacobian> jacobian() const override {
    if (!gate_open_) return std::nullopt;
    StepJacobian jacobian;
    for (Index i = 0; i < d_; ++i) {
      jacobian.k.push_back(static_cast<double>(strength_) * static_cast<double>(key_[size(i)]));
      jacobian.a.push_back(static_cast<double>(key_[size(i)]));
    }
    return jacobian;
  }

 private:
  static std::size_t size(Index i) { return static_cast<std::size_t>(i); }

  void open_gate() {
    std::fill(gate_.begin(), gate_.end(), T(1));
    gate_open_ = true;
  }

  void update(const T* v) {
    read_rows(d_, stride_, state_.data(), key_.data(), residual_.data());
    for (Index i = 0; i < d_; ++i) {
      residual_[size(i)] = strength_ * (v[i] - residual_[size(i)]);  // 2, times b
    }
    for (Index j = 0; j < d_; ++j) {
      T* row = state_.data() + j * stride_;
      const T key = key_[size(j)];
      for (Index i = 0; i < stride_; ++i) {
        row[i] = gate_[size(i)] * row[i] + key * residual_[size(i)];  // 3
      }
    }
  }

  DeltaNetFeatures<T> features_;
  Index d_, stride_;
  std::vector<T> state_;  // (d, stride): S transposed
  std::vector<T> query_, key_, gate_, residual_, read_;
  T strength_ = 0;
  bool gate_open_ = true;
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> make_deltanet_memory(DeltaNetVariant variant, Index d_h) {
  return std::make_unique<DeltaNetMemory<T>>(variant, d_h);
}
template std::unique_ptr<HeadMemory<float>> make_deltanet_memory<float>(DeltaNetVariant, Index);
template std::unique_ptr<HeadMemory<double>> make_deltanet_memory<double>(DeltaNetVariant, Index);

}  // namespace vla_bench::mixers
