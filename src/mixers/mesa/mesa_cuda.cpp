// Mesa on a GPU: G's recurrence and, in the backward, H's are recurrence_cuda.h's or in chunks
// chunked_cuda.h's, the solves mesa_solve.h's. Numbers are steps of mesa.h.
#include "core/cuda/stream_context.h"
#include "mixers/mesa/mesa.h"
#include "mixers/mesa/mesa_solve.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/rule_cuda.h"

namespace vla_bench {
namespace mixers {
namespace cuda {
namespace {

class MesaCudaRule final : public CudaRule {
 public:
  using CudaRule::bind;
  MesaCudaRule(const MesaOptions& options, Index d, Chunks chunks)
      : rows_(make_cuda_rule(options, d)), as_given_(options.as_given), chunks_(chunks) {}

  const RecurrenceForm& form() const override { return rows_->form(); }
  bool has_chain() const override { return true; }
  /// H before every chunk, and the products of gamma.
  Index kept_size(const HeadDims& dims) const override {
    const Index d = kernel_head_size(dims.d_h);
    return (dims.lanes() * solve_chunks(dims) * (d * d + 1) + 3) / 4 * 4;
  }

  void bind(cudaStream_t stream, const RuleViews& views, const NormaliserForward& /*normaliser*/,
            float* kept, bool for_backward) override {
    const HeadDims& dims = views.dims;
    RuleViews with_query = views;
    with_query.row_own = dense(dims, query_);
    rows_->bind(stream, with_query, {}, nullptr, for_backward);  // 1, 2
    const ChunkRows rows = chunk_rows(dims, views.row_r, views.row_a, views.row_decay, kept);
    with_head_size(dims.d_h, [&](auto d) {
      find_entries<d>(stream, dims, rows);  // 3
      solve<d>(stream, grade(views), dims,  // 4
               {.rows = rows,
                .rhs = with_query.row_own,
                .x = views.row_q,
                .factor = 1.0F,
                .ridge = views.parameters[0],
                .as_given = as_given_});
    });
  }

  void unbind(cudaStream_t stream, const RuleViews& views, const float* kept) override {
    const HeadDims& dims = views.dims;
    const TokenView<float> negative_y = dense(dims, y_);
    const ChunkRows rows =
        chunk_rows(dims, views.r, views.a, views.bound_decay, const_cast<float*>(kept));
    with_head_size(dims.d_h, [&](auto d) {
      solve<d>(stream, grade(views), dims,  // 4
               {.rows = rows,
                .rhs = views.dq.parts[0],
                .x = negative_y,
                .factor = -1.0F,
                .ridge = views.parameters[0],
                .as_given = as_given_});
    });
    RuleViews both = views;
    both.own = views.bound_q;
    both.dq = {{negative_y}};
    go_back_through_h(stream, both);
    rows_->unbind(stream, both, nullptr);
  }

 private:
  bool takes_chunks(const HeadDims& dims) const {
    return chunks_ == Chunks::by_rule ? chunks_are_faster(form(), dims) : chunks_ == Chunks::always;
  }
  /// As exact as the recurrence beside it, which token by token is float32.
  Grade grade(const RuleViews& views) const {
    return takes_chunks(views.dims) ? views.grade : Grade::float32;
  }
  static ChunkRows chunk_rows(const HeadDims& dims, const TokenView<const float>& k,
                              const TokenView<const float>& a, const TokenView<const float>& gamma,
                              float* kept) {
    const Index d = kernel_head_size(dims.d_h);
    const Index chunks = solve_chunks(dims);
    return {.tokens = static_cast<int>(dims.tokens),
            .heads = static_cast<int>(dims.heads),
            .channels = static_cast<int>(dims.d_h),
            .chunks = static_cast<int>(chunks),
            .k = k,
            .a = a,
            .gamma = gamma,
            .h = kept,
            .decay = kept + dims.lanes() * chunks * d * d};
  }
  /// 3: H's recurrence, whose values are the keys and whose upstream gradient is -y. Its states
  /// are written once more.
  void go_back_through_h(cudaStream_t stream, RuleViews& views) {
    const HeadDims& dims = views.dims;
    RecurrenceInputs inputs{.dims = dims, .decay_kind = Decay::head};
    inputs.a = views.a;
    inputs.q = views.bound_q;
    inputs.decay = views.bound_decay;
    RecurrenceBackward backward{.e = views.r, .d_o = views.dq.parts[0], .de = dense(dims, dk_)};
    backward.dq = dense(dims, unused_);
    backward.da = dense(dims, da_);
    ddecay_.resize(Device::cuda, dims.rows() * dims.heads);
    backward.ddecay = token_view(dims, ddecay_.data(), 1);
    if (takes_chunks(dims)) {
      go_back_in_chunks(stream, inputs, backward, views.grade);
    } else {
      go_back_by_tokens(stream, inputs, backward);
    }
    views.dr = {{backward.de}};
    views.da.parts[1] = backward.da;
    views.ddecay.parts[1] = backward.ddecay;
  }

  void go_back_in_chunks(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& backward, Grade grade) {
    ChunkedOptions options{.grade = grade};
    options.plan = plan_segments(inputs.dims, /*has_residual=*/false,
                                 vla_bench::cuda::stream_context().multiprocessors());
    states_.resize(Device::cuda, chunked_backward_scratch_size(inputs.dims, options.plan,
                                                               /*decay_has_gradient=*/true));
    options.scratch = states_.data();
    chunked_backward(stream, inputs, backward, options);
  }
  void go_back_by_tokens(cudaStream_t stream, const RecurrenceInputs& inputs,
                         RecurrenceBackward backward) {
    states_.resize(Device::cuda, checkpoint_size(inputs.dims));
    RecurrenceForward forward{.v = backward.e, .o = dense(inputs.dims, unused_)};
    forward.checkpoints = states_.data();
    recurrence_forward(stream, inputs, forward);
    backward.checkpoints = states_.data();
    recurrence_backward(stream, inputs, backward);
  }

  static TokenView<float> dense(const HeadDims& dims, Array<float>& array) {
    array.resize(Device::cuda, dims.rows() * dims.heads * dims.d_h);
    return token_view(dims, array.data(), dims.d_h);
  }

  std::unique_ptr<CudaRule> rows_;
  bool as_given_;
  Chunks chunks_;
  Array<float> query_, y_, unused_, dk_, da_;  // (B, T, H, d)
  Array<float> ddecay_;                        // (B, T, H)
  Array<float> states_;                        // of H, between passes
};

}  // namespace
}  // namespace cuda
}  // namespace mixers

std::unique_ptr<mixers::cuda::CudaRule> make_cuda_chain_rule(const MesaOptions& options, Index d_h,
                                                             mixers::Chunks chunks) {
  return std::make_unique<mixers::cuda::MesaCudaRule>(options, d_h, chunks);
}

}  // namespace vla_bench
