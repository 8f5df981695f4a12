#include "mixers/recurrence/memory.h"

#include <algorithm>
#include <cmath>

namespace vla_bench::mixers {

template <class T>
RecurrentMemory<T>::RecurrentMemory(const RecurrenceForm& form, Index d, Index head,
                                    std::unique_ptr<LaneRule<T>> rule)
    : form_(form), d_(d), head_(head), rule_(std::move(rule)), state_(form, d) {
  rule_->start(0, nullptr);
}

template <class T>
void RecurrentMemory<T>::reset() {
  state_.reset();
  rule_->start(0, nullptr);
  token_ = 0;
}

template <class T>
void RecurrentMemory<T>::step(const TokenInputs<T>& token, T* o) {
  CoreInputs<T> inputs{.dims = {.batch = 1, .tokens = 1, .heads = 1, .d_h = d_},
                       .q = {token.q, 0, 0},
                       .k = {token.k, 0, 0},
                       .v = {token.v, 0, 0}};
  for (std::size_t i = 0; i < kMostMore; ++i) inputs.more[i] = {token.more[i], 0, 0};
  inputs.parameters = token.parameters;
  state_.advance(next_tile(), inputs, *rule_, {o, 0, 0}, {});
}

template <class T>
void RecurrentMemory<T>::write(const T* key, const T* value) {
  rule_->bind_key(next_tile(), key, state_.rows());
  state_.write(value);
}

template <class T>
void RecurrentMemory<T>::read(const T* query, T* out) const {
  std::fill_n(out, d_, T(0));
  for (Index j = 0; j < d_; ++j) {
    const T* row = state_.transposed_state() + j * state_.stride();
    for (Index i = 0; i < d_; ++i) out[i] += query[j] * row[i];
  }
}

template <class T>
double RecurrentMemory<T>::state_norm() const {
  double sum = 0.0;
  const T* state = state_.transposed_state();
  for (Index i = 0; i < d_ * state_.stride(); ++i) {
    sum += static_cast<double>(state[i]) * static_cast<double>(state[i]);
  }
  return std::sqrt(sum);
}

/// S_t = S_{t-1} (diag(decay) - r a^T) + v a^T, unless rows of S decay. Where a channel is
/// forgotten altogether, r that carries the decay is 0 with it, and k does not matter.
template <class T>
std::optional<StepJacobian> RecurrentMemory<T>::jacobian() const {
  const RecurrenceRows<T>& rows = state_.rows();
  const auto decay = [&](Index j) {
    return form_.decay == Decay::none ? T(1) : rows.decay[form_.decay == Decay::head ? 0 : j];
  };
  std::vector<double> decays;
  for (Index j = 0; j < d_; ++j) decays.push_back(decay(j));
  const bool fades = std::ranges::any_of(decays, [](double value) { return value != 1; });
  if (fades && form_.decay == Decay::rows) return std::nullopt;
  StepJacobian jacobian{.k = std::vector<double>(decays.size()), .a = {}, .decay = {}};
  jacobian.a = jacobian.k;
  if (form_.has_residual()) {
    const bool along_a = form_.residual == RecurrenceForm::Residual::along_a;
    std::copy_n(along_a ? rows.a : rows.r, d_, jacobian.k.begin());
    std::copy_n(rows.a, d_, jacobian.a.begin());
  }
  if (!fades) return jacobian;
  for (std::size_t j = 0; j < decays.size(); ++j) {
    if (jacobian.k[j] != 0) jacobian.k[j] /= decays[j];
  }
  jacobian.decay = std::move(decays);
  return jacobian;
}

template <class T>
std::unique_ptr<HeadMemory<T>> RecurrentRule<T>::make_memory(Index head) const {
  return std::make_unique<RecurrentMemory<T>>(form(), d(), head, make_lane());
}

template class RecurrentMemory<float>;
template class RecurrentMemory<double>;
template std::unique_ptr<HeadMemory<float>> RecurrentRule<float>::make_memory(Index) const;
template std::unique_ptr<HeadMemory<double>> RecurrentRule<double>::make_memory(Index) const;

}  // namespace vla_bench::mixers
