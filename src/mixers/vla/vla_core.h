// The production core of VLA: what forward and backward share.
#pragma once

#include <algorithm>
#include <vector>

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

/// One thread's scratch for the backward of a segment.
template <class T>
struct BackwardWorkspace {
  Workspace<T> forward;
  // Histories of a segment: entry t is the state before token t. S in value-major order here: the
  // backward sums over value rows, the forward over key rows.
  T* s_history;  // (kSegment, d, stride)
  T* a_history;  // (kSegment, d, stride)
  T* z_history;  // (kSegment, stride), after token t
  // Adjoint states, carried across segments.
  T* ds;         // (d, stride), value-major
  T* da_matrix;  // (d, stride), symmetric
  T* dz;         // (stride)
  // Gradients of a segment's tokens.
  T *dq, *df, *dk, *da;  // (kSegment, stride) each
  // One token's vectors.
  T *dn, *de, *dr, *read, *db, *dw, *du, *gw;  // (stride) each

  explicit BackwardWorkspace(const Settings<T>& settings) : forward(settings) {
    const Index row = settings.stride;
    const Index matrix = settings.d * row;
    const Index penalty = settings.has_penalty() ? 1 : 0;
    block_.resize(Device::cpu,
                  (kSegment + 1) * matrix * (1 + penalty) + kSegment * 5 * row + 9 * row);
    T* next = block_.data();
    const auto take = [&next](Index size) {
      T* taken = next;
      next += size;
      return taken;
    };
    s_history = take(kSegment * matrix);
    ds = take(matrix);
    a_history = penalty ? take(kSegment * matrix) : nullptr;
    da_matrix = penalty ? take(matrix) : nullptr;
    for (T** p : {&z_history, &dq, &df, &dk, &da}) *p = take(kSegment * row);
    for (T** p : {&dz, &dn, &de, &dr, &read, &db, &dw, &du, &gw}) *p = take(row);
  }

  void reset(const Settings<T>& settings) const {
    const Index matrix = settings.d * settings.stride;
    std::fill_n(ds, matrix, T(0));
    if (da_matrix != nullptr) std::fill_n(da_matrix, matrix, T(0));
    std::fill_n(dz, settings.stride, T(0));
  }

 private:
  Array<T> block_;
};

/// One a thread; made on first use and kept, since their pages are dear to get anew every step.
template <class W, class S>
void make_workspaces(std::vector<W>& workspaces, int threads, const S& settings) {
  while (workspaces.size() < static_cast<std::size_t>(threads)) workspaces.emplace_back(settings);
}

template <class T>
class VlaCore final : public MixerCore<T> {
 public:
  VlaCore(const VlaOptions& config, Index d_h);
  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override;
  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override;
  std::unique_ptr<HeadMemory<T>> memory() const override;
  Index state_bytes(const HeadDims& dims) const override;
  Index saved_bytes(const HeadDims& dims) const override;

 private:
  Settings<T> settings_;
  std::vector<Workspace<T>> workspaces_;
  std::vector<BackwardWorkspace<T>> backward_workspaces_;
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
