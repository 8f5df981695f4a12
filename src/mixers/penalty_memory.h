// The interface of a memory with a penalty matrix A beside S (vla), obtained from a HeadMemory by a
// cast.
#pragma once

#include <cmath>
#include <vector>

#include "mixers/mixer.h"

namespace vla_bench {

template <class T>
class PenaltyMemory {
 public:
  virtual ~PenaltyMemory() = default;

  /// Sets the penalty direction u (d), already scaled, that the next HeadMemory::write reads. Only
  /// for a learned penalty: others compute u from the key.
  virtual void set_direction(const T* direction) = 0;

  virtual std::vector<double> penalty_matrix() const = 0;  // (d, d): A_t after the nudge

  /// |A_t|_F
  double penalty_norm() const {
    double sum = 0.0;
    for (double value : penalty_matrix()) sum += value * value;
    return std::sqrt(sum);
  }
};

/// Null where the memory keeps no penalty matrix.
template <class T>
const PenaltyMemory<T>* as_penalty_memory(const HeadMemory<T>& memory) {
  return dynamic_cast<const PenaltyMemory<T>*>(&memory);
}
template <class T>
PenaltyMemory<T>* as_penalty_memory(HeadMemory<T>& memory) {
  return dynamic_cast<PenaltyMemory<T>*>(&memory);
}

}  // namespace vla_bench
