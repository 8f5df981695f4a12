// One head of VLA, token by token: S and z of recurrence.h and the penalty matrix A of its lane.
#pragma once

#include "mixers/penalty_memory.h"
#include "mixers/recurrence/memory.h"

namespace vla_bench::mixers::vla {

/// `Lane` is a LaneRule<T> with set_direction() and penalty_matrix().
template <class T, class Lane>
class VlaMemory final : public RecurrentMemory<T>, public PenaltyMemory<T> {
 public:
  VlaMemory(const RecurrenceForm& form, Index d, Index head, std::unique_ptr<Lane> lane)
      : RecurrentMemory<T>(form, d, head, std::move(lane)) {}

  void set_direction(const T* direction) override {
    static_cast<Lane&>(this->rule()).set_direction(direction);
  }
  std::vector<double> penalty_matrix() const override {
    return static_cast<const Lane&>(this->rule()).penalty_matrix();
  }
};

}  // namespace vla_bench::mixers::vla
