// What every core of softmax attention has: the cache as its memory, and how much it keeps.
#pragma once

#include <memory>

#include "mixers/mixer.h"
#include "mixers/softmax/softmax.h"

namespace vla_bench::mixers::softmax {

template <class T>
class AttentionCore : public MixerCore<T> {
 public:
  /// `saved_scalars`: values that a forward saves per token and head.
  AttentionCore(Index d_h, Index saved_scalars) : d_(d_h), saved_scalars_(saved_scalars) {}

  std::unique_ptr<HeadMemory<T>> memory(Index /*head*/) const override {
    return make_softmax_memory<T>(d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return 2 * dims.rows() * dims.heads * d_ * static_cast<Index>(sizeof(T));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(T));
  }

 protected:
  Index saved_size(const HeadDims& dims) const { return saved_scalars_ * dims.rows() * dims.heads; }

  const Index d_;

 private:
  Index saved_scalars_;
};

}  // namespace vla_bench::mixers::softmax
