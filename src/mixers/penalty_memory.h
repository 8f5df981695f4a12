// What a memory with a penalty matrix A beside S offers (vla): a HeadMemory is asked by a cast.
#pragma once

#include <cmath>
#include <vector>

#include "mixers/mixer.h"

namespace vla_bench {

template <class T>
class PenaltyMemory {
 public:
  virtual ~PenaltyMemory() = default;

  /// The penalty direction u (d), already scaled, of the next HeadMemory::write; read there. Only
  /// for a learned penalty: others make u from the key.
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
