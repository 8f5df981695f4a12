// The production form of recurrence.h on the CPU, forward and backward; numbers are its steps.
#include <omp.h>

#include <algorithm>
#include <vector>

#include "mixers/recurrence/lane_state.h"

namespace vla_bench::mixers {
namespace {

using Residual = RecurrenceForm::Residual;

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
    return form_.residual == Residual::along_a ? rows.a : rows.r;
  }
  bool takes_dD_of_columns() const { return form_.decay == Decay::columns; }

  std::unique_ptr<RecurrentRule<T>> rule_;
  RecurrenceForm form_;
  Index d_, stride_;
  Factor key_factor_;
  std::vector<Thread> threads_;
  Array<T> d_parameters_;  // of each lane: (B, H, w) a parameter
};

template <class T>
void RecurrentCore<T>::forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                               Array<T>* saved) {
  const HeadDims& dims = inputs.dims;
  if (saved != nullptr) saved->resize(Device::cpu, saved_size(dims));
  T* const base = saved != nullptr ? saved->data() : nullptr;
  for_each_lane(context, dims, [&](Index lane, Thread& thread) {
    for (Index group = 0; group < dims.value_groups(); ++group) {
      thread.rule->start(dims.tokens, kept(base, dims, lane));
      thread.state.reset();
      const CoreInputs<T> own = of_group(inputs, group);
      const LaneTrace<T> trace = this->trace(base, dims, lane, group);
      for_each_tile(lane / dims.heads, lane % dims.heads, dims.tokens, false,
                    [&](const Tile& tile) {
                      thread.state.advance(tile, own, *thread.rule, of_group(o, group), trace);
                    });
    }
  });
}

template <class T>
void RecurrentCore<T>::backward(const Context& context, const CoreInputs<T>& inputs,
                                const CoreGradients<T>& gradients, const Array<T>& saved) {
  const HeadDims& dims = inputs.dims;
  d_parameters_.resize(Device::cpu, form_.parameters_width(form_.parameters, d_) * dims.lanes());
  std::fill_n(d_parameters_.data(), d_parameters_.size(), T(0));
  for_each_lane(context, dims, [&](Index index, Thread& thread) {
    if (thread.backward == nullptr || thread.backward_tokens != dims.tokens) {
      thread.backward = std::make_unique<BackwardScratch<T>>(form_, d_, dims.tokens);
      thread.backward_tokens = dims.tokens;
    }
    // The rule reads what it kept.
    thread.rule->start(dims.tokens, const_cast<T*>(kept(saved.data(), dims, index)));
    CoreGradients<T> of_lane = gradients;
    for (Index i = 0; i < form_.parameters; ++i) {
      of_lane.dparameters[static_cast<std::size_t>(i)] =
          lane_sums(dims, i) + index / dims.heads * dims.heads * form_.parameter_width(i, d_);
    }
    BackwardScratch<T>& scratch = *thread.backward;
    std::fill_n(scratch.sums, scratch.sums_size, T(0));
    const Index batch = index / dims.heads, head = index % dims.heads;
    for (Index group = 0; group < dims.value_groups(); ++group) {
      const CoreInputs<T> own_inputs = of_group(inputs, group);
      const CoreGradients<T> own_gradients = of_group(gradients, group);
      const Lane lane{.inputs = own_inputs,
                      .gradients = own_gradients,
                      .batch = batch,
                      .head = head,
                      .trace = trace(saved.data(), dims, index, group),
                      .rule = *thread.rule,
                      .scratch = scratch};
      against_time(lane);
      in_time(lane);
    }
    for_each_tile(batch, head, dims.tokens, false, [&](const Tile& tile) {
      thread.rule->unbind(tile, inputs, scratch.gradients(form_.decay, tile.first), of_lane);
    });
    thread.rule->finish(inputs, of_lane);
  });
  add_parameter_gradients(dims, gradients);
}

/// Lanes summed over their tokens; heads sum their lanes here, in the order of the batch.
template <class T>
void RecurrentCore<T>::add_parameter_gradients(const HeadDims& dims,
                                               const CoreGradients<T>& gradients) {
  for (Index i = 0; i < form_.parameters; ++i) {
    T* const sums = gradients.dparameters[static_cast<std::size_t>(i)];
    const T* of_lane = lane_sums(dims, i);
    const Index width = dims.heads * form_.parameter_width(i, d_);
    for (Index batch = 0; batch < dims.batch; ++batch, of_lane += width) {
      for (Index j = 0; j < width; ++j) sums[j] += of_lane[j];
    }
  }
}

/// dn and dc of a tile.
template <class T>
void RecurrentCore<T>::take_upstream(const Lane& lane, const Tile& tile, T* dn) const {
  gather(tile, lane.gradients.d_o, d_, dn, stride_);
  if (!form_.normalises()) return;
  const T floor = static_cast<T>(form_.floor);
  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    const T denominator = lane.trace.denominators[row - tile.batch * tile.tokens];
    const T scale = 1 / std::max(denominator, floor);
    const T* o = lane.gradients.o.at(row, tile.head);
    T* g = dn + i * stride_;
    T along = 0;
#pragma omp simd reduction(+ : along)
    for (Index j = 0; j < d_; ++j) {
      along += g[j] * o[j];
      g[j] *= scale;
    }
    lane.scratch.d_denominator[i] = denominator < floor ? T(0) : -along * scale;
  }
}

/// e of a tile: saved, or the values.
template <class T>
void RecurrentCore<T>::take_residuals(const Lane& lane, const Tile& tile, T* e) const {
  if (!form_.has_residual()) {
    gather(tile, lane.inputs.v, d_, e, stride_);
    return;
  }
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.row(i) - tile.batch * tile.tokens;
    std::copy_n(lane.trace.e + token * stride_, stride_, e + i * stride_);
  }
}

/// What S needs to be run through again: the rows of a tile against time, kept for the whole
/// lane...
template <class T>
void RecurrentCore<T>::keep_rows(const Lane& lane, const Tile& tile,
                                 const RecurrenceRows<T>& rows) const {
  const BackwardScratch<T>& s = lane.scratch;
  for (Index i = 0; i < tile.count; ++i) {
    const Index token = tile.row(i) - tile.batch * tile.tokens;
    std::copy_n(rows.a + i * stride_, stride_, s.a + token * stride_);
    if (form_.has_f()) std::copy_n(rows.f + i * stride_, stride_, s.f + token * stride_);
    if (form_.decay == Decay::head) {
      s.decay[token] = rows.decay[i];
    } else if (form_.decay != Decay::none) {
      std::copy_n(rows.decay + i * stride_, stride_, s.decay + token * stride_);
    }
  }
}

/// ... and taken from there in time.
template <class T>
void RecurrentCore<T>::take_rows(const Lane& lane, const Tile& tile) const {
  const BackwardScratch<T>& s = lane.scratch;
  const Index at = tile.first * stride_;
  const Index size = tile.count * stride_;
  std::copy_n(s.a + at, size, s.rows.a);
  if (form_.has_f()) std::copy_n(s.f + at, size, s.rows.f);
  if (form_.decay == Decay::head) {
    std::copy_n(s.decay + tile.first, tile.count, s.rows.decay);
  } else if (form_.decay != Decay::none) {
    std::copy_n(s.decay + at, size, s.rows.decay);
  }
}

/// 3, against time: dz, and df (added to da where f is a).
template <class T>
void RecurrentCore<T>::normaliser_backward(const Lane& lane, const Tile& tile, const T* q) const {
  T* const dz = lane.scratch.z;
  for (Index i = 0; i < tile.count; ++i) {
    const Index at = (tile.row(i) - tile.batch * tile.tokens) * stride_;
    const T dc = lane.scratch.d_denominator[i];
    for (Index j = 0; j < stride_; ++j) dz[j] += dc * q[i * stride_ + j];
    T* const df = form_.has_f() ? lane.scratch.df + at : lane.scratch.da + at;
    for (Index j = 0; j < stride_; ++j) df[j] += dz[j];
  }
}

template <class T>
template <bool kAgainstTime>
void RecurrentCore<T>::plain(Factor factor, Index count, T* m, const T* x, const T* y, const T* c,
                             T* out, const T* factors) const {
  const PlainScan<T> scan{.d = d_,
                          .stride = stride_,
                          .count = count,
                          .m = m,
                          .x = x,
                          .y = y,
                          .c = c,
                          .out = out,
                          .factors = factors};
  with_factor(factor, [&]<Factor kFactor>() { plain_scan<kFactor, kAgainstTime>(scan); });
}

/// Without a residual and a gradient of the decay: nothing hangs on what dS holds.
template <class T>
void RecurrentCore<T>::plain_tile_against_time(const Lane& lane, const Tile& tile) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  lane.rule.rebind(tile, lane.inputs, rows);
  keep_rows(lane, tile, rows);
  take_upstream(lane, tile, s.dn);
  take_residuals(lane, tile, s.e);
  const Index rounded =
      round_up_rows<T>(tile.count, stride_, {rows.q, rows.a, s.dn, s.e}, form_.decay, rows.decay);
  plain<true>(factor_of_value_columns(form_.decay), rounded, s.state, rows.q, s.dn, rows.a, s.de,
              rows.decay);
  plain<true>(key_factor_, rounded, s.other_state, s.dn, rows.q, s.e, s.out, rows.decay);
  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    std::copy_n(s.de + i * stride_, d_, lane.gradients.dv.at(row, tile.head));
    add_row(s.out + i * stride_, s.da + (row - tile.batch * tile.tokens) * stride_);
  }
  if (form_.normalises()) normaliser_backward(lane, tile, rows.q);
}

template <class T>
void RecurrentCore<T>::adjoint(Factor factor, bool history, const AdjointScan<T>& scan,
                               T* out) const {
  const auto keep = [out, this]<int N>(Index t, Index column, const Vector<T>(&sums)[N]) {
    for (int n = 0; n < N; ++n) store(out + t * stride_ + column + n * kVectorLength<T>, sums[n]);
  };
  with_factor(factor, [&]<Factor kFactor>() {
    if constexpr (kFactor == Factor::all || kFactor == Factor::columns) {
      if (history) {
        return form_.has_residual() ? adjoint_scan<kFactor, true, true>(scan, keep)
                                    : adjoint_scan<kFactor, false, true>(scan, keep);
      }
    }
    return form_.has_residual() ? adjoint_scan<kFactor, true, false>(scan, keep)
                                : adjoint_scan<kFactor, false, false>(scan, keep);
  });
}

/// dS of a tile, once with value channels along its columns (de) and once with key channels (da).
template <class T>
void RecurrentCore<T>::tile_against_time(const Lane& lane, const Tile& tile) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  lane.rule.rebind(tile, lane.inputs, s.behind_first(form_.decay));
  keep_rows(lane, tile, s.behind_first(form_.decay));
  take_upstream(lane, tile, s.dn + stride_);
  take_residuals(lane, tile, s.e + stride_);
  AdjointScan<T> scan{.d = d_,
                      .stride = stride_,
                      .count = tile.count,
                      .m = s.state,
                      .factors = rows.decay,
                      .x = directions(rows),
                      .y = s.de,
                      .p = rows.q,
                      .s = s.dn,
                      .c = rows.a,
                      .history = s.history,
                      .dfactor = s.dfactor};
  const T* checkpoint = nullptr;
  if (form_.decay_has_gradient) {
    checkpoint =
        lane.trace.checkpoints + (tile.first - tile.count + 1) / kTileTokens * d_ * stride_;
  }
  const bool first_has_history = checkpoint != nullptr && !takes_dD_of_columns();
  if (first_has_history) {
    std::copy_n(checkpoint, d_ * stride_, s.history);
    with_factor(factor_of_value_columns(form_.decay), [&]<Factor kFactor>() {
      recompute_history<kFactor>(scan, rows.a, s.e, s.history);
    });
  }
  adjoint(factor_of_value_columns(form_.decay), first_has_history, scan, s.de);

  scan.m = s.other_state;
  scan.x = s.de;
  scan.y = directions(rows);
  scan.p = s.dn;
  scan.s = rows.q;
  scan.c = s.e;
  const bool second_has_history = checkpoint != nullptr && takes_dD_of_columns();
  if (second_has_history) {
    for (Index i = 0; i < d_; ++i) {
      for (Index j = 0; j < d_; ++j) s.history[i * stride_ + j] = checkpoint[j * stride_ + i];
    }
    recompute_history<Factor::columns>(scan, s.e, rows.a, s.history);
  }
  adjoint(key_factor_, second_has_history, scan, s.out);

  for (Index i = 0; i < tile.count; ++i) {
    const Index row = tile.row(i);
    const Index token = row - tile.batch * tile.tokens;
    const Index at = (i + 1) * stride_;
    std::copy_n(s.de + at, d_, lane.gradients.dv.at(row, tile.head));
    add_row(s.out + at, s.da + token * stride_);
    if (form_.decay_has_gradient && form_.decay == Decay::head) {
      T sum = 0;
      for (Index j = 0; j < d_; ++j) sum += s.dfactor[at + j];
      s.ddecay[token] += sum;
    } else if (form_.decay_has_gradient) {
      add_row(s.dfactor + at, s.ddecay + token * stride_);
    }
  }
  if (form_.normalises()) normaliser_backward(lane, tile, rows.q + stride_);
  for (T* row : {rows.r, rows.a, s.de}) std::copy_n(row + tile.count * stride_, stride_, row);
  if (form_.decay == Decay::head) {
    rows.decay[0] = rows.decay[tile.count];
  } else {
    std::copy_n(rows.decay + tile.count * stride_, stride_, rows.decay);
  }
}

/// Overwrites dv; adds to da, df and dD.
template <class T>
void RecurrentCore<T>::against_time(const Lane& lane) const {
  BackwardScratch<T>& s = lane.scratch;
  for (T* state : {s.state, s.other_state}) std::fill_n(state, d_ * stride_, T(0));
  std::fill_n(s.z, stride_, T(0));
  // No token was visited before the first.
  for (T* row : {s.rows.r, s.rows.a, s.rows.decay, s.de}) std::fill_n(row, stride_, T(0));
  const bool is_plain = !form_.has_residual() && !form_.decay_has_gradient;
  for_each_tile(lane.batch, lane.head, lane.inputs.dims.tokens, true, [&](const Tile& tile) {
    is_plain ? plain_tile_against_time(lane, tile) : tile_against_time(lane, tile);
  });
}

/// S once more in time, with key channels along its columns: adds to dq and dr.
template <class T>
void RecurrentCore<T>::in_time(const Lane& lane) const {
  BackwardScratch<T>& s = lane.scratch;
  const RecurrenceRows<T>& rows = s.rows;
  std::fill_n(s.state, d_ * stride_, T(0));
  std::fill_n(s.z, stride_, T(0));
  const auto next_direction = [&]<int N>(Index t, Index column, const Vector<T>(&read)[N],
                                         Vector<T>(&y)[N]) {
    for (int n = 0; n < N; ++n) {
      const Index at = t * stride_ + column + n * kVectorLength<T>;
      store(s.ahead + at, negative(read[n]));
      y[n] = load(rows.a + at);
    }
  };
  for_each_tile(lane.batch, lane.head, lane.inputs.dims.tokens, false, [&](const Tile& tile) {
    take_rows(lane, tile);
    take_upstream(lane, tile, s.dn);
    take_residuals(lane, tile, s.e);
    if (form_.has_residual()) {
      gather<T>(tile, lane.gradients.dv, d_, s.de, stride_);
      const WriteScan<T> scan{.d = d_,
                              .stride = stride_,
                              .count = tile.count,
                              .m = s.state,
                              .factors = rows.decay,
                              .x = s.e,
                              .c = s.dn,
                              .next = s.de,
                              .out = s.out};
      with_factor(key_factor_,
                  [&]<Factor kFactor>() { write_scan<kFactor>(scan, next_direction); });
    } else {
      const Index rounded =
          round_up_rows<T>(tile.count, stride_, {s.e, rows.a, s.dn}, form_.decay, rows.decay);
      plain<false>(key_factor_, rounded, s.state, s.e, rows.a, s.dn, s.out, rows.decay);
    }
    const T* f = form_.has_f() ? rows.f : rows.a;
    for (Index i = 0; form_.normalises() && i < tile.count; ++i) {
      const T dc = s.d_denominator[i];
      for (Index j = 0; j < stride_; ++j) {
        s.z[j] += f[i * stride_ + j];
        s.out[i * stride_ + j] += dc * s.z[j];
      }
    }
    const Index at = tile.first * stride_;
    for (Index i = 0; i < tile.count * stride_; ++i) s.dq[at + i] += s.out[i];
    if (!form_.has_residual()) return;
    T* const dr = form_.residual == Residual::along_a ? s.da : s.dr;
    for (Index i = 0; i < tile.count * stride_; ++i) dr[at + i] += s.ahead[i];
  });
}

}  // namespace

template <class T>
std::unique_ptr<MixerCore<T>> make_recurrent_core(std::unique_ptr<RecurrentRule<T>> rule) {
  return std::make_unique<RecurrentCore<T>>(std::move(rule));
}
template std::unique_ptr<MixerCore<float>> make_recurrent_core(
    std::unique_ptr<RecurrentRule<float>>);
template std::unique_ptr<MixerCore<double>> make_recurrent_core(
    std::unique_ptr<RecurrentRule<double>>);

}  // namespace vla_bench::mixers
