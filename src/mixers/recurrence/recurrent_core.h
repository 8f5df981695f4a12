// The production form of recurrence.h on the CPU; numbers are its steps. recurrence_cpu.cpp has the
// forward and how lanes are shared out, recurrence_backward_cpu.cpp a lane's backward.
#pragma once

#include <omp.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "mixers/recurrence/lane_state.h"

namespace vla_bench::mixers {

/// One thread's scratch of the backward. Rows of a tile have one more in front: the scans against
/// time look back at the token visited before.
template <class T>
class BackwardScratch {
 public:
  BackwardScratch(const RecurrenceForm& form, Index d, Index tokens) {
    const Index stride = padded<T>(d);
    const Index states = 2 * d * stride;
    const Index history_size = form.decay_has_gradient ? kTileTokens * d * stride : 0;
    const Index scalars = padded<T>(kTileTokens);
    const Index ddecay_size = form.decay == Decay::head ? padded<T>(tokens) : tokens * stride;
    const Index summed = 2 + form.has_residual() + form.has_f();  // rows whose gradients are sums
    sums_size = summed * tokens * stride + (form.decay_has_gradient ? ddecay_size : 0);
    block_.resize(Device::cpu, 11 * kRows * stride + states + history_size + stride + 2 * scalars +
                                   tokens * stride * (form.has_f() ? 2 : 1) + tokens * stride +
                                   sums_size);
    ScratchAllocator<T> allocator(block_.data());
    rows.stride = stride;
    for (T** row :
         {&rows.r, &rows.a, &rows.q, &rows.f, &rows.decay, &e, &dn, &de, &out, &ahead, &dfactor}) {
      *row = allocator.take(kRows * stride);
    }
    state = allocator.take(d * stride);
    other_state = allocator.take(d * stride);
    history = allocator.take(history_size);
    z = allocator.take(stride);
    d_denominator = allocator.take(scalars);
    // Of a whole lane. Last, since only they depend on its length: the rows' tails stay zero.
    a = allocator.take(tokens * stride);
    f = form.has_f() ? allocator.take(tokens * stride) : nullptr;
    decay = form.decay == Decay::none
                ? nullptr
                : allocator.take(form.decay == Decay::head ? padded<T>(tokens) : tokens * stride);
    sums = allocator.take(sums_size);
    ScratchAllocator<T> of_sums(sums);
    da = of_sums.take(tokens * stride);
    dq = of_sums.take(tokens * stride);
    dr = form.has_residual() ? of_sums.take(tokens * stride) : nullptr;
    df = form.has_f() ? of_sums.take(tokens * stride) : nullptr;
    ddecay = form.decay_has_gradient ? of_sums.take(ddecay_size) : nullptr;
  }

  RecurrenceRows<T> rows;
  T *e, *dn, *de;          // (kRows, stride)
  T *out, *ahead;          // (kRows, stride)
  T* dfactor;              // (kRows, stride)
  T *state, *other_state;  // (d, stride)
  T* history;              // (kTileTokens, d, stride)
  T* z;                    // (stride): z or dz
  T* d_denominator;        // (kTileTokens): dc
  T *a, *f, *decay;        // (T, stride): a lane's rows; decay of a head (T)
  // Gradients of the rows, sums over the groups of value channels.
  T* sums;
  Index sums_size;
  T *da, *dq, *dr, *df;  // (T, stride)
  T* ddecay;             // (T, stride), Decay::head: (T)

  /// Of the tile's rows whose first token this is.
  RecurrenceGradients<T> gradients(Decay kind, Index first) const {
    const Index at = first * rows.stride;
    const auto rows_at = [at](T* all) { return all != nullptr ? all + at : nullptr; };
    return {.stride = rows.stride,
            .dr = rows_at(dr),
            .da = rows_at(da),
            .dq = rows_at(dq),
            .df = rows_at(df),
            .ddecay = kind == Decay::head && ddecay != nullptr ? ddecay + first : rows_at(ddecay)};
  }
  /// Rows one further: those of the tile, behind that of the token visited before it.
  RecurrenceRows<T> behind_first(Decay kind) const {
    const Index n = rows.stride;
    return {n, rows.r + n, rows.a + n, rows.q + n, rows.f + n, rows.decay_row(kind, 1)};
  }

 private:
  static constexpr Index kRows = kTileTokens + kPlainTokens;
  Array<T> block_;
};

template <class T>
class RecurrentCore final : public MixerCore<T> {
 public:
  explicit RecurrentCore(std::unique_ptr<RecurrentRule<T>> rule)
      : rule_(std::move(rule)),
        form_(rule_->form()),
        d_(rule_->d()),
        stride_(padded<T>(d_)),
        key_factor_(factor_of_key_columns(form_.decay)) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override;
  void backward(const Context& context, const CoreInputs<T>& inputs,
                const CoreGradients<T>& gradients, const Array<T>& saved) override;
  std::unique_ptr<HeadMemory<T>> memory(Index head) const override {
    return rule_->make_memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * state_size(*rule_, d_, dims.value_channels()) *
           static_cast<Index>(sizeof(T));
  }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(dims) * static_cast<Index>(sizeof(T));
  }

 private:
  /// What a thread keeps: pages are dear to get anew at every step.
  struct Thread {
    std::unique_ptr<LaneRule<T>> rule;
    LaneState<T> state;
    std::unique_ptr<BackwardScratch<T>> backward{};
    Index backward_tokens = 0;
  };
  void make_threads(int count) {
    while (threads_.size() < static_cast<std::size_t>(count)) {
      threads_.push_back({.rule = rule_->make_lane(), .state = LaneState<T>(form_, d_)});
    }
  }

  /// Saved for each lane and group of value channels: e (T, stride), checkpoints (tiles, d,
  /// stride); behind those of a lane, what the rule keeps; behind all lanes, denominators (T) of
  /// each.
  Index residual_size(Index tokens) const { return form_.has_residual() ? tokens * stride_ : 0; }
  Index checkpoint_size(Index tokens) const {
    const Index tiles = (tokens + kTileTokens - 1) / kTileTokens;
    return form_.decay_has_gradient ? tiles * d_ * stride_ : 0;
  }
  Index group_size(Index tokens) const { return residual_size(tokens) + checkpoint_size(tokens); }
  Index lane_size(const HeadDims& dims) const {
    return dims.value_groups() * group_size(dims.tokens) + rule_->kept_size(dims.tokens);
  }
  Index saved_size(const HeadDims& dims) const {
    const Index denominators = form_.normalises() ? dims.tokens : 0;
    return dims.lanes() * (lane_size(dims) + denominators);
  }
  template <class E>
  LaneTrace<E> trace(E* saved, const HeadDims& dims, Index lane, Index group) const {
    if (saved == nullptr) return {};
    E* block = saved + lane * lane_size(dims) + group * group_size(dims.tokens);
    LaneTrace<E> trace;
    if (form_.has_residual()) trace.e = block;
    if (form_.decay_has_gradient) trace.checkpoints = block + residual_size(dims.tokens);
    if (form_.normalises()) {
      trace.denominators = saved + dims.lanes() * lane_size(dims) + lane * dims.tokens;
    }
    return trace;
  }
  template <class E>
  E* kept(E* saved, const HeadDims& dims, Index lane) const {
    if (saved == nullptr || rule_->kept_size(dims.tokens) == 0) return nullptr;
    return saved + lane * lane_size(dims) + dims.value_groups() * group_size(dims.tokens);
  }

  /// Calls body(lane, thread) for every lane. A lane is computed by one thread, so results do not
  /// depend on their number.
  template <class Body>
  void for_each_lane(const Context& context, const HeadDims& dims, const Body& body) {
    const int threads = static_cast<int>(std::clamp<Index>(context.threads, 1, dims.lanes()));
    make_threads(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Index lane = 0; lane < dims.lanes(); ++lane) {
      body(lane, threads_[static_cast<std::size_t>(omp_get_thread_num())]);
    }
  }

  /// A group of d value channels.
  template <class E>
  HeadView<E> of_group(HeadView<E> view, Index group) const {
    view.data += group * d_;
    return view;
  }
  CoreInputs<T> of_group(CoreInputs<T> inputs, Index group) const {
    inputs.v = of_group(inputs.v, group);
    return inputs;
  }
  CoreGradients<T> of_group(CoreGradients<T> gradients, Index group) const {
    gradients.o = of_group(gradients.o, group);
    gradients.d_o = of_group(gradients.d_o, group);
    gradients.dv = of_group(gradients.dv, group);
    return gradients;
  }

  /// The backward of one lane's group.
  struct Lane {
    const CoreInputs<T>& inputs;
    const CoreGradients<T>& gradients;
    Index batch, head;
    LaneTrace<const T> trace;
    LaneRule<T>& rule;
    BackwardScratch<T>& scratch;
  };
  void add_parameter_gradients(const HeadDims& dims, const CoreGradients<T>& gradients);
  /// (B, H, w) of d_parameters_.
  T* lane_sums(const HeadDims& dims, Index parameter) {
    return d_parameters_.data() + form_.parameters_width(parameter, d_) * dims.lanes();
  }
  // recurrence_backward_cpu.cpp, instantiated there.
  void against_time(const Lane& lane) const;
  void in_time(const Lane& lane) const;
  void plain_tile_against_time(const Lane& lane, const Tile& tile) const;
  void tile_against_time(const Lane& lane, const Tile& tile) const;
  void normaliser_backward(const Lane& lane, const Tile& tile, const T* q) const;
  void take_upstream(const Lane& lane, const Tile& tile, T* dn) const;
  void take_residuals(const Lane& lane, const Tile& tile, T* e) const;
  void keep_rows(const Lane& lane, const Tile& tile, const RecurrenceRows<T>& rows) const;
  void take_rows(const Lane& lane, const Tile& tile) const;
  template <bool kAgainstTime>
  void plain(Factor factor, Index count, T* m, const T* x, const T* y, const T* c, T* out,
             const T* factors) const;
  void adjoint(Factor factor, bool history, const AdjointScan<T>& scan, T* out) const;

  void add_row(const T* row, T* sum) const {
    for (Index j = 0; j < stride_; ++j) sum[j] += row[j];
  }
  const T* directions(const RecurrenceRows<T>& rows) const {
    return form_.residual == RecurrenceForm::Residual::along_a ? rows.a : rows.r;
  }
  bool takes_dD_of_columns() const { return form_.decay == Decay::columns; }

  std::unique_ptr<RecurrentRule<T>> rule_;
  RecurrenceForm form_;
  Index d_, stride_;
  Factor key_factor_;
  std::vector<Thread> threads_;
  Array<T> d_parameters_;  // of each lane: (B, H, w) a parameter
};

}  // namespace vla_bench::mixers
