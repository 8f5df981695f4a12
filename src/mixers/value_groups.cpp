#include "mixers/value_groups.h"

#include <cmath>
#include <vector>

namespace vla_bench {
namespace {

template <class T>
class GroupedMemory final : public HeadMemory<T> {
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

 private:
  std::vector<std::unique_ptr<HeadMemory<T>>> groups_;
  Index d_;
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> head_memory(const MixerCore<T>& core, const HeadDims& dims,
                                           Index head) {
  if (dims.value_groups() == 1) return core.memory(head);
  std::vector<std::unique_ptr<HeadMemory<T>>> groups;
  for (Index group = 0; group < dims.value_groups(); ++group) groups.push_back(core.memory(head));
  return std::make_unique<GroupedMemory<T>>(std::move(groups), dims.d_h);
}

template std::unique_ptr<HeadMemory<float>> head_memory(const MixerCore<float>&, const HeadDims&,
                                                        Index);
template std::unique_ptr<HeadMemory<double>> head_memory(const MixerCore<double>&, const HeadDims&,
                                                         Index);

}  // namespace vla_bench
