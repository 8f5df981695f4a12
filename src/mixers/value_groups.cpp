#include "mixers/value_groups.h"

#include <cmath>
#include <vector>

#include "mixers/penalty_memory.h"

namespace vla_bench {
namespace {

template <class T>
class GroupedMemory : public HeadMemory<T> {
 public:
  GroupedMemory(std::vector<std::unique_ptr<HeadMemory<T>>> groups, Index d)
      : groups_(std::move(groups)), d_(d) {}

  void reset() override {
    for (const auto& group : groups_) group->reset();
  }
  void step(const TokenInputs<T>& token, T* o) override {
    TokenInputs<T> own = token;
    for (const auto& group : groups_) {
      group->step(own, o);
      own.v += d_;
      o += d_;
    }
  }
  void write(const T* key, const T* value) override {
    for (const auto& group : groups_) {
      group->write(key, value);
      value += d_;
    }
  }
  void read(const T* query, T* out) const override {
    for (const auto& group : groups_) {
      group->read(query, out);
      out += d_;
    }
  }
  double state_norm() const override {
    double squares = 0.0;
    for (const auto& group : groups_) squares += std::pow(group->state_norm(), 2);
    return std::sqrt(squares);
  }
  std::optional<StepJacobian> jacobian() const override { return groups_.front()->jacobian(); }

 protected:
  std::vector<std::unique_ptr<HeadMemory<T>>> groups_;

 private:
  Index d_;
};

/// With a penalty matrix, which depends on keys alone and is that of each group.
template <class T>
class GroupedPenaltyMemory final : public GroupedMemory<T>, public PenaltyMemory<T> {
 public:
  using GroupedMemory<T>::GroupedMemory;

  void set_direction(const T* direction) override {
    for (const auto& group : this->groups_) as_penalty_memory(*group)->set_direction(direction);
  }
  std::vector<double> penalty_matrix() const override {
    const HeadMemory<T>& first = *this->groups_.front();
    return as_penalty_memory(first)->penalty_matrix();
  }
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> head_memory(const MixerCore<T>& core, const HeadDims& dims,
                                           Index head) {
  if (dims.value_groups() == 1) return core.memory(head);
  std::vector<std::unique_ptr<HeadMemory<T>>> groups;
  for (Index group = 0; group < dims.value_groups(); ++group) groups.push_back(core.memory(head));
  if (as_penalty_memory(*groups.front()) != nullptr) {
    return std::make_unique<GroupedPenaltyMemory<T>>(std::move(groups), dims.d_h);
  }
  return std::make_unique<GroupedMemory<T>>(std::move(groups), dims.d_h);
}

template std::unique_ptr<HeadMemory<float>> head_memory(const MixerCore<float>&, const HeadDims&,
                                                        Index);
template std::unique_ptr<HeadMemory<double>> head_memory(const MixerCore<double>&, const HeadDims&,
                                                         Index);

}  // namespace vla_bench
