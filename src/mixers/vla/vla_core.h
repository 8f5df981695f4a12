// The production core of VLA: what forward and backward share.
#pragma once

#include "mixers/vla/vla_lane.h"

namespace vla_bench::mixers::vla {

/// Where a lane's saved values stand, in elements:
///   e, a, w (tokens, stride) each; |b|, delta, denominator (scalars) each; one lane state per
///   segment, taken before its first token. Frozen penalties have neither w nor A.
struct SavedLayout {
  Index tokens, vectors, stride, scalars, segments, state;
  Index lane;   // elements of one lane
  Index total;  // of all lanes

  template <class T>
  SavedLayout(const Settings<T>& settings, const HeadDims& dims);
  template <class E>
  Trace<E> trace(E* block) const;
  template <class E>
  E* checkpoint(E* block, Index segment) const;
};

/// One thread's scratch for the forward of a segment.
template <class T>
struct Workspace {
  Features<T> features;
  Trace<T> trace;  // used where nothing is saved
  T* state;        // one lane state
  T* work;         // (3, stride)

  explicit Workspace(const Settings<T>& settings);

 private:
  Array<T> block_;
};

template <class T>
class VlaCore final : public MixerCore<T> {
 public:
  VlaCore(const MixerConfig& config, Index d_h);
  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override;
  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override;
  std::unique_ptr<HeadMemory<T>> memory() const override;
  Index state_bytes(const HeadDims& dims) const override;
  Index saved_bytes(const HeadDims& dims) const override;

 private:
  Settings<T> settings_;
};

// ---- Layout, used by both translation units
// ------------------------------------------------------

template <class T>
SavedLayout::SavedLayout(const Settings<T>& settings, const HeadDims& dims)
    : tokens(dims.tokens),
      vectors(settings.has_penalty() ? 3 : 2),
      stride(settings.stride),
      // Scalars of a lane are padded like vectors, so that every block stays aligned.
      scalars(padded<T>(dims.tokens)),
      segments((dims.tokens + kSegment - 1) / kSegment),
      state(settings.state_size()),
      lane(vectors * tokens * stride + 3 * scalars + segments * state),
      total(lane * dims.lanes()) {}

template <class E>
Trace<E> SavedLayout::trace(E* block) const {
  E* e = block;
  E* a = e + tokens * stride;
  E* w = vectors == 3 ? a + tokens * stride : a;  // never touched when frozen
  E* b_norm = block + vectors * tokens * stride;
  return {e, a, w, b_norm, b_norm + scalars, b_norm + 2 * scalars};
}

template <class E>
E* SavedLayout::checkpoint(E* block, Index segment) const {
  return block + vectors * tokens * stride + 3 * scalars + segment * state;
}

}  // namespace vla_bench::mixers::vla
