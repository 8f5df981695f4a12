// The recurrence with its state made explicit, one token at a time.
#pragma once

#include "mixers/recurrence/lane_state.h"

namespace vla_bench::mixers {

template <class T>
class RecurrentMemory : public HeadMemory<T> {
 public:
  RecurrentMemory(const RecurrenceForm& form, Index d, Index head,
                  std::unique_ptr<LaneRule<T>> rule);

  void reset() override;
  void step(const TokenInputs<T>& token, T* o) override;
  void write(const T* key, const T* value) override;
  void read(const T* query, T* out) const override;
  double state_norm() const override;
  std::optional<StepJacobian> jacobian() const override;

 protected:
  LaneRule<T>& rule() { return *rule_; }
  const LaneRule<T>& rule() const { return *rule_; }

 private:
  /// The next token, as a tile of its own. Views of one token have strides of 0.
  Tile next_tile() {
    return {.batch = 0, .head = head_, .tokens = 1, .first = token_++, .count = 1};
  }

  RecurrenceForm form_;
  Index d_, head_;
  std::unique_ptr<LaneRule<T>> rule_;
  LaneState<T> state_;
  Index token_ = 0;
};

}  // namespace vla_bench::mixers
