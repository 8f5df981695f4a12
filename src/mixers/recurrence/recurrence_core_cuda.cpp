// A mixer with a matrix-valued state on a GPU: rule, recurrence, normaliser and back. Saved: the
// rows, e, z . q, what the rule keeps, the checkpoints of S where the decay has a gradient, or in
// chunks S between segments.
//
// Wide values: the rule has the mixer's heads, the recurrence and the normaliser have
// HeadDims::by_groups, which read the same rows; the rule adds their gradients up, or finds their
// sums where a matrix beside S adds its own.
//
// At bf16 the forward in chunks reads and writes tensors in bfloat16, as others keep them: copies
// of the inputs, made by prepare(). The backward, and a forward before it, are those of tf32.
#include <array>
#include <map>

#include "core/cuda/stream_context.h"
#include "mixers/bf16_copies.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/recurrence_cuda.h"
#include "mixers/recurrence/rule_cuda.h"
#include "ops/cuda/column_sums.h"

namespace vla_bench::mixers::cuda {
namespace {

using Residual = RecurrenceForm::Residual;

class RecurrentCore final : public CopyingCore<float> {
 public:
  RecurrentCore(std::unique_ptr<CudaRule> rule, std::unique_ptr<MixerCore<float>> cpu,
                Chunks chunks)
      : rule_(std::move(rule)), form_(rule_->form()), cpu_(std::move(cpu)), chunks_(chunks) {}

  void prepare(const Context& context, const CoreInputs<float>& inputs,
               const CoreGradients<float>* gradients) override;
  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override;
  void deliver(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               const CoreGradients<float>* gradients) override;
  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override;

  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return cpu_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  std::string warning() const override { return rule_->warning(); }
  Index saved_bytes(const HeadDims& dims) const override {
    Trace<float> trace;
    return lay_out<float>(dims, nullptr, trace) * static_cast<Index>(sizeof(float));
  }

 private:
  /// What the forward leaves for the backward, in one array.
  template <class T>
  struct Trace {
    TokenView<T> r, a, q, f, decay;  // (B, T, H, d); a head's decay (B, T, H, 1)
    TokenView<T> e;                  // (B, T, H groups, d)
    T* checkpoints = nullptr;
    T* denominator = nullptr;  // (B, T, H groups)
    T* kept = nullptr;         // the rule's
    T* segments = nullptr;     // of the passes in chunks
  };

  /// Returns the number of elements.
  template <class T>
  Index lay_out(const HeadDims& dims, T* data, Trace<T>& trace) const {
    const Index scalars = dims.rows() * dims.heads;
    Index used = 0;
    const auto take = [&](Index size) {
      used += size;
      return data == nullptr ? nullptr : data + used - size;
    };
    const auto take_view = [&](bool exists, Index width) {
      if (!exists) return TokenView<T>{};
      return token_view(dims, take(scalars * width), width);
    };
    const Index d = dims.d_h;
    const HeadDims by_groups = dims.by_groups();
    trace.q = take_view(true, d);
    trace.a = take_view(true, d);
    trace.r = take_view(form_.residual == Residual::along_r || rule_->has_chain(), d);
    trace.f = take_view(form_.has_f(), d);
    if (form_.has_residual()) {
      trace.e = token_view(by_groups, take(scalars * dims.value_channels()), d);
    }
    const bool decays_by_head = form_.decay == Decay::head;
    if (!decays_by_head) trace.decay = take_view(form_.decay != Decay::none, d);
    // What is not a multiple of 4 behind all else, which stays aligned to 16 bytes.
    if (form_.decay_has_gradient && !takes_chunks(dims)) {
      trace.checkpoints = take(checkpoint_size(by_groups));
    }
    trace.segments = take(segments_size(dims));
    if (const Index size = rule_->kept_size(dims); size > 0) trace.kept = take(size);
    if (decays_by_head) trace.decay = take_view(true, 1);
    if (form_.normalises()) trace.denominator = take(scalars * dims.value_groups());
    return used;
  }

  /// Of vectors stored in float.
  static Grade grade(const Context& context) {
    return context.precision == Precision::float32 ? Grade::float32 : Grade::tf32;
  }
  RuleViews views(const Context& context, const CoreInputs<float>& inputs) const {
    RuleViews views;
    views.dims = inputs.dims;
    views.grade = grade(context);
    views.q = token_view(inputs.dims, inputs.q);
    views.k = token_view(inputs.dims, inputs.k);
    for (std::size_t i = 0; i < kMostMore; ++i) {
      if (!inputs.more[i].empty()) views.more[i] = token_view(inputs.dims, inputs.more[i]);
    }
    views.parameters = inputs.parameters;
    return views;
  }
  RecurrenceInputs recurrence(const HeadDims& dims, const Trace<const float>& trace) const {
    return shared_rows<float>(dims, trace.r, trace.a, trace.q, trace.decay);
  }
  /// Of the groups of wide values, which share the rows of a head.
  template <class T>
  RecurrenceInputsOf<T> shared_rows(const HeadDims& dims, const TokenView<const T>& r,
                                    const TokenView<const T>& a, const TokenView<const T>& q,
                                    const TokenView<const float>& decay) const {
    const Index groups = dims.value_groups();
    RecurrenceInputsOf<T> inputs{.dims = dims.by_groups()};
    if (form_.has_residual()) {
      inputs.r = shared_by(groups, form_.residual == Residual::along_a ? a : r);
    }
    inputs.a = shared_by(groups, a);
    inputs.q = shared_by(groups, q);
    inputs.decay_kind = form_.decay;
    inputs.decay = shared_by(groups, decay);
    return inputs;
  }

  /// Of S. With a matrix beside it `always` is of that matrix: S then as in production.
  bool takes_chunks(const HeadDims& dims) const {
    const bool by_rule =
        chunks_ == Chunks::by_rule || (chunks_ == Chunks::always && rule_->has_chain());
    if (by_rule) return chunks_are_faster(form_, dims.by_groups());
    return chunks_ == Chunks::always && chunks_exist(form_);
  }

  ChunkedPlan plan(const HeadDims& dims) const {
    return plan_segments(dims.by_groups(), form_.has_residual(),
                         vla_bench::cuda::stream_context().multiprocessors());
  }
  /// Room for them in a trace, which keeps what stands behind it aligned.
  Index segments_size(const HeadDims& dims) const {
    if (!takes_chunks(dims)) return 0;
    return (chunked_scratch_size(dims.by_groups(), plan(dims)) + 3) / 4 * 4;
  }
  /// Tensors in bfloat16, packed; `unread`: o has not been delivered yet.
  struct Copies {
    Array<std::uint16_t> q, k, v, o;
    std::array<Array<std::uint16_t>, kMostMore> vectors;
    bool unread = false;
  };
  bool stores_bf16(const Context& context) const {
    return context.precision == Precision::bf16 && chunks_ == Chunks::always &&
           chunks_store_bf16(form_);
  }
  static TokenView<Bfloat16> view(const HeadDims& dims, Array<std::uint16_t>& array) {
    return token_view(dims, reinterpret_cast<Bfloat16*>(array.data()), dims.d_h);
  }
  void forward_bf16(const Context& context, const CoreInputs<float>& inputs, Copies& copies);
  void run_backward(const Context& context, const RecurrenceInputs& recurrence,
                    const RecurrenceBackward& args, const float* segments);
  /// The rows' gradients of a head instead of its groups'.
  void sum_over_groups(const Context& context, RuleViews& views);

  /// A dense array (B, T, H, d) of this core's own.
  TokenView<float> own(const Context& context, const HeadDims& dims, Array<float>& array) const {
    array.resize(context.device, dims.rows() * dims.heads * dims.d_h);
    return token_view(dims, array.data(), dims.d_h);
  }
  float* own_scalars(const Context& context, const HeadDims& dims, Array<float>& array) const {
    array.resize(context.device, dims.rows() * dims.heads);
    return array.data();
  }

  /// Memory of this core's own, for one pass.
  float* scratch(const Context& context, Index size, Array<float>& array) const {
    if (size == 0) return nullptr;
    array.resize(context.device, size);
    return array.data();
  }

  std::unique_ptr<CudaRule> rule_;
  RecurrenceForm form_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Chunks chunks_;

  std::map<const float*, Copies> copies_;  // by the address of the inputs' queries
  Array<std::uint16_t> bf16_q_, bf16_a_, bf16_r_;
  Array<float> decay_, denominator_, f_, chain_r_, chain_q_;  // beside them
  Array<float> unsaved_;                                      // a trace that no backward wants
  Array<float> scale_, d_denominator_;                        // (B, T, H groups)
  Array<float> sums_, segments_;                              // of a pass in segments
  Array<float> dq_, da_, dr_, ddecay_;                        // (B, T, H groups, d)
  Array<float> d_parameters_;  // shares of the tokens: (B, T, H, w) a parameter
  // (B, T, H groups, d): what passes through the normaliser
  Array<float> df_normaliser_, dq_normaliser_;
  std::array<Array<float>, 8> head_sums_;  // of sum_over_groups, in turn
};

void RecurrentCore::prepare(const Context& context, const CoreInputs<float>& inputs,
                            const CoreGradients<float>* /*gradients*/) {
  if (!stores_bf16(context)) return;
  Copies& copies = copies_[inputs.q.data];
  const HeadDims by_groups = inputs.dims.by_groups();
  const auto pack = [&](const HeadDims& dims, HeadView<const float> from,
                        Array<std::uint16_t>& to) {
    to.resize(context.device, dims.rows() * dims.heads * dims.d_h);
    if (!from.empty()) {
      pack_bf16(vla_bench::cuda::stream_context().stream(), dims, from, to.data());
    }
  };
  pack(inputs.dims, inputs.q, copies.q);
  pack(inputs.dims, inputs.k, copies.k);
  pack(by_groups, {inputs.v.data, inputs.v.row_stride, by_groups.d_h}, copies.v);
  pack(by_groups, {}, copies.o);
  for (Index i = 0; i < form_.vectors; ++i) {
    pack(inputs.dims, inputs.more[i], copies.vectors[i]);
  }
}

void RecurrentCore::deliver(const Context& /*context*/, const CoreInputs<float>& inputs,
                            HeadView<float> o, const CoreGradients<float>* /*gradients*/) {
  const auto found = copies_.find(inputs.q.data);
  if (found == copies_.end() || !found->second.unread) return;
  found->second.unread = false;
  const HeadDims by_groups = inputs.dims.by_groups();
  unpack_bf16(vla_bench::cuda::stream_context().stream(), by_groups, found->second.o.data(),
              {o.data, o.row_stride, by_groups.d_h});
}

void RecurrentCore::forward_bf16(const Context& context, const CoreInputs<float>& inputs,
                                 Copies& copies) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const auto own = [&](Array<std::uint16_t>& array) {
    array.resize(context.device, dims.rows() * dims.heads * dims.d_h);
    return view(dims, array);
  };
  BindViews<Bfloat16> views;
  views.dims = dims;
  views.q = view(dims, copies.q);
  views.k = view(dims, copies.k);
  views.more = this->views(context, inputs).more;
  for (Index i = 0; i < form_.vectors; ++i) views.more_vectors[i] = view(dims, copies.vectors[i]);
  views.parameters = inputs.parameters;
  views.row_q = own(bf16_q_);
  views.row_a = own(bf16_a_);
  if (form_.residual == Residual::along_r) views.row_r = own(bf16_r_);
  if (form_.decay == Decay::head) {
    views.row_decay = token_view(dims, own_scalars(context, dims, decay_), 1);
  }
  if (rule_->has_chain()) views.chain_r = this->own(context, dims, chain_r_);
  NormaliserForward normaliser;
  if (form_.has_f()) {
    views.row_f = this->own(context, dims, f_);
    views.chain_q = this->own(context, dims, chain_q_);
    const HeadDims by_groups = dims.by_groups();
    normaliser = {.dims = by_groups,
                  .f = shared_by(dims.value_groups(), views.row_f),
                  .q = shared_by(dims.value_groups(), views.chain_q),
                  .floor = static_cast<float>(form_.floor),
                  .denominator = own_scalars(context, by_groups, denominator_),
                  .scale = own_scalars(context, by_groups, scale_)};
    if (dims.tokens >= kLeastNormaliserTokens) {
      normaliser.sums = scratch(context, normaliser_scratch_size(by_groups), sums_);
    }
  }
  rule_->bind(stream, views, normaliser);

  auto recurrence =
      shared_rows<Bfloat16>(dims, views.row_r, views.row_a, views.row_q, views.row_decay);
  RecurrenceForwardOf<Bfloat16> args{.v = view(recurrence.dims, copies.v),
                                     .o = view(recurrence.dims, copies.o)};
  if (form_.has_f()) {
    recurrence.scale = scale_.data();
  } else if (form_.normalises()) {
    args.denominator = own_scalars(context, recurrence.dims, denominator_);
    args.floor = static_cast<float>(form_.floor);
  }
  ChunkedOptions options{.plan = plan(dims), .grade = Grade::bf16};
  options.scratch =
      scratch(context, chunked_scratch_size(recurrence.dims, options.plan), segments_);
  chunked_forward(stream, recurrence, args, options);
}

void RecurrentCore::forward(const Context& context, const CoreInputs<float>& inputs,
                            HeadView<float> o, Array<float>* saved) {
  const auto found = copies_.find(inputs.q.data);
  if (found != copies_.end() && stores_bf16(context)) {
    found->second.unread = saved == nullptr;
    if (saved == nullptr) return forward_bf16(context, inputs, found->second);
  }
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  Array<float>& kept = saved != nullptr ? *saved : unsaved_;
  Trace<float> trace;
  kept.resize(context.device, lay_out<float>(dims, nullptr, trace));
  lay_out(dims, kept.data(), trace);

  RuleViews views = this->views(context, inputs);
  views.row_r = trace.r;
  views.row_a = trace.a;
  views.row_q = trace.q;
  views.row_f = trace.f;
  views.row_decay = trace.decay;
  const bool in_chunks = takes_chunks(dims);
  NormaliserForward normaliser;
  if (form_.normalises() && !form_.normalises_beside_rows()) {
    const Index groups = dims.value_groups();
    normaliser = {.dims = dims.by_groups(),
                  .f = shared_by(groups, form_.has_f() ? trace.f : trace.a),
                  .q = shared_by(groups, trace.q),
                  .floor = static_cast<float>(form_.floor),
                  .denominator = trace.denominator,
                  .scale = own_scalars(context, dims.by_groups(), scale_)};
    if (in_chunks && dims.tokens >= kLeastNormaliserTokens) {
      normaliser.sums = scratch(context, normaliser_scratch_size(normaliser.dims), sums_);
    }
  }
  rule_->bind(stream, views, normaliser, trace.kept, saved != nullptr);

  Trace<const float> read;
  lay_out<const float>(dims, kept.data(), read);
  RecurrenceInputs recurrence = this->recurrence(dims, read);
  RecurrenceForward args{.v = token_view_by_groups(dims, inputs.v),
                         .o = token_view_by_groups(dims, o)};
  if (saved != nullptr) {
    args.e = trace.e;
    args.checkpoints = trace.checkpoints;
  }
  if (form_.normalises_beside_rows()) {
    args.denominator = trace.denominator;
    args.floor = static_cast<float>(form_.floor);
  } else if (form_.normalises()) {
    recurrence.scale = scale_.data();
  }
  if (!in_chunks) return recurrence_forward(stream, recurrence, args);
  ChunkedOptions options{.plan = plan(dims), .grade = grade(context)};
  options.scratch =
      trace.segments != nullptr
          ? trace.segments
          : scratch(context, chunked_scratch_size(recurrence.dims, options.plan), segments_);
  chunked_forward(stream, recurrence, args, options);
}

void RecurrentCore::run_backward(const Context& context, const RecurrenceInputs& recurrence,
                                 const RecurrenceBackward& args, const float* segments) {
  const HeadDims& dims = recurrence.dims;  // by groups
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  if (!takes_chunks(dims)) {
    return recurrence_backward(stream, recurrence, args);
  }
  ChunkedOptions options{.plan = plan(dims), .grade = grade(context)};
  options.forward_scratch = segments;
  options.scratch =
      scratch(context, chunked_backward_scratch_size(dims, options.plan, form_.decay_has_gradient),
              segments_);
  if (form_.normalises()) {
    options.sums = scratch(context, normaliser_backward_scratch_size(dims), sums_);
  }
  chunked_backward(stream, recurrence, args, options);
}

void RecurrentCore::sum_over_groups(const Context& context, RuleViews& views) {
  std::size_t count = 0;
  const auto sum = [&](SumOfViews& gradient, Index width) {
    for (TokenView<const float>& part : gradient.parts) {
      if (part.data == nullptr) continue;
      Array<float>& of_heads = head_sums_.at(count++);
      of_heads.resize(context.device, views.dims.rows() * views.dims.heads * width);
      sum_groups(vla_bench::cuda::stream_context().stream(), views.dims, width, part.data,
                 of_heads.data());
      part = token_view(views.dims, of_heads.data(), width);
    }
  };
  for (SumOfViews* gradient : {&views.dr, &views.da, &views.dq, &views.df}) {
    sum(*gradient, views.dims.d_h);
  }
  sum(views.ddecay, form_.decay == Decay::head ? 1 : views.dims.d_h);
  views.groups = 1;
}

void RecurrentCore::backward(const Context& context, const CoreInputs<float>& inputs,
                             const CoreGradients<float>& gradients, const Array<float>& saved) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  Trace<const float> trace;
  lay_out<const float>(dims, saved.data(), trace);
  RecurrenceInputs recurrence = this->recurrence(dims, trace);
  const HeadDims& by_groups = recurrence.dims;
  RecurrenceBackward args{
      .e = form_.has_residual() ? trace.e : token_view_by_groups(dims, inputs.v),
      .d_o = token_view_by_groups(dims, gradients.d_o),
      .de = token_view_by_groups(dims, gradients.dv)};
  if (form_.normalises()) {
    NormaliserTerms terms{.dims = by_groups};
    terms.o = token_view_by_groups(dims, gradients.o);
    terms.d_o = args.d_o;
    terms.denominator = trace.denominator;
    terms.floor = static_cast<float>(form_.floor);
    terms.scale = own_scalars(context, by_groups, scale_);
    terms.d_denominator = own_scalars(context, by_groups, d_denominator_);
    normaliser_terms(stream, terms);
    recurrence.scale = terms.scale;
    args.normaliser = {.f = form_.has_f() ? shared_by(dims.value_groups(), trace.f) : recurrence.a,
                       .q = recurrence.q,
                       .d_denominator = terms.d_denominator,
                       .df = own(context, by_groups, df_normaliser_),
                       .dq = own(context, by_groups, dq_normaliser_)};
  }
  args.dq = own(context, by_groups, dq_);
  args.da = own(context, by_groups, da_);
  if (form_.has_residual()) args.dr = own(context, by_groups, dr_);
  if (form_.decay_has_gradient) {
    args.ddecay = own(context, by_groups, ddecay_);
    if (form_.decay == Decay::head) args.ddecay = token_view(by_groups, ddecay_.data(), 1);
    args.checkpoints = trace.checkpoints;
  }
  run_backward(context, recurrence, args, trace.segments);

  RuleViews views = this->views(context, inputs);
  views.r = trace.r;
  views.a = trace.a;
  views.bound_q = trace.q;
  views.bound_decay = trace.decay;
  const bool sums_a = form_.normaliser == RecurrenceForm::Normaliser::sums_a;
  views.dq = {{args.dq, args.normaliser.dq}};
  views.da = {{args.da, form_.residual == Residual::along_a ? args.dr : TokenView<float>{},
               sums_a ? args.normaliser.df : TokenView<float>{}}};
  if (form_.residual == Residual::along_r) views.dr = {{args.dr}};
  if (form_.has_f()) views.df = {{args.normaliser.df}};
  views.ddecay = {{args.ddecay}};
  views.groups = static_cast<int>(dims.value_groups());
  if (rule_->has_chain() && views.groups > 1) sum_over_groups(context, views);
  views.raw_dq = token_view(dims, gradients.dq);
  views.raw_dk = token_view(dims, gradients.dk);
  for (std::size_t i = 0; i < kMostMore; ++i) {
    if (!gradients.dmore[i].empty()) views.raw_dmore[i] = token_view(dims, gradients.dmore[i]);
  }
  const auto parameters = static_cast<std::size_t>(form_.parameters);
  std::array<Matrix<float>, kMostMore> shares;
  d_parameters_.resize(context.device, form_.parameters_width(form_.parameters, dims.d_h) *
                                           dims.rows() * dims.heads);
  // Those with a number per channel first, since they stay aligned.
  float* share = d_parameters_.data();
  for (std::size_t i = parameters; i-- > 0;) {
    const Index width = form_.parameter_width(static_cast<Index>(i), dims.d_h);
    shares[i] = {share, dims.rows(), dims.heads * width};
    views.dparameters[i] = token_view(dims, share, width);
    share += dims.rows() * dims.heads * width;
  }
  rule_->unbind(stream, views, trace.kept);
  for (std::size_t i = 0; i < parameters; ++i) {
    ops::cuda::add_column_sums(stream, shares[i], gradients.dparameters[i]);
  }
}

}  // namespace

std::unique_ptr<MixerCore<float>> make_recurrent_cuda_core(std::unique_ptr<CudaRule> rule,
                                                           std::unique_ptr<MixerCore<float>> cpu,
                                                           Chunks chunks) {
  return std::make_unique<RecurrentCore>(std::move(rule), std::move(cpu), chunks);
}

}  // namespace vla_bench::mixers::cuda
