// How a rule works on a GPU: it turns all tokens' projections into the rows of the recurrence, and
// the rows' gradients back. float; d: a head size up to kLargestHead.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <string>

#include "mixers/list.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/form.h"
#include "mixers/recurrence/normaliser.h"
#include "mixers/recurrence/token_view.h"

namespace vla_bench::mixers::cuda {

/// A gradient that comes in parts, (B, T, H, d) each, or (B, T, H groups, d), the sum over the
/// groups of a head being its gradient; empty ones are left out.
struct SumOfViews {
  static constexpr int kMostParts = 3;
  std::array<TokenView<const float>, kMostParts> parts{};
};

/// What bind reads and writes, (B, T, H, d) each; a number per token and head (B, T, H, 1). Vectors
/// are stored as T. Views that the form does not have are empty, and nothing is written to them.
template <class T>
struct BindViews {
  HeadDims dims;
  // Raw projections; of `more` what has d channels stands in more_vectors where T is not float.
  TokenView<const T> q, k;
  std::array<TokenView<const float>, kMostMore> more{};
  std::array<TokenView<const T>, kMostMore> more_vectors{};
  std::array<const float*, kMostMore> parameters{};  // (H) or (H, d)
  // Rows: bind writes them.
  TokenView<T> row_r, row_a, row_q;
  TokenView<float> row_f, row_decay, row_own;
  // Rows r and q once more, in float: a matrix beside S and the normaliser read them.
  TokenView<float> chain_r, chain_q;
  TokenView<const float> own;  // row_own, for rules that read it again
};

/// The same and what unbind reads and writes.
struct RuleViews : BindViews<float> {
  Grade grade = Grade::float32;  // of what is computed in chunks
  // For unbind: rows as bind wrote them, their gradients...
  TokenView<const float> r, a, bound_q, bound_decay;
  SumOfViews dr, da, dq, df, ddecay, down;
  int groups = 1;  // of the gradients but `down`, a head's side by side
  // ... and writes these.
  TokenView<float> raw_dq, raw_dk;
  std::array<TokenView<float>, kMostMore> raw_dmore{};
  std::array<TokenView<float>, kMostMore> dparameters{};  // each token's share, (B, T, H, 1 or d)
};

class CudaRule {
 public:
  virtual ~CudaRule() = default;

  virtual const RecurrenceForm& form() const = 0;
  /// Whether a matrix beside S has a recurrence of its own (vla's A), which reads the key from row
  /// r even where r is a.
  virtual bool has_chain() const { return false; }
  /// Numbers that the rule keeps from forward to backward.
  virtual Index kept_size(const HeadDims& dims) const {
    static_cast<void>(dims);
    return 0;
  }
  /// Writes the rows; runs the normaliser's forward unless its denominator is null. `kept` has
  /// kept_size numbers; only what the forward itself reads is written without `for_backward`.
  virtual void bind(cudaStream_t stream, const RuleViews& views,
                    const NormaliserForward& normaliser, float* kept, bool for_backward) = 0;
  /// The same, with rows that are stored in bfloat16 and without a backward, of a form for which
  /// chunks_store_bf16 holds; a matrix beside S is taken in chunks.
  virtual void bind(cudaStream_t stream, const BindViews<Bfloat16>& views,
                    const NormaliserForward& normaliser) {
    static_cast<void>(stream);
    static_cast<void>(views);
    static_cast<void>(normaliser);
  }
  virtual void unbind(cudaStream_t stream, const RuleViews& views, const float* kept) = 0;
  /// MixerCore::warning
  virtual std::string warning() const { return {}; }
};

/// to (B, T, H, width) = the sums over the groups of each head of from (B, T, H groups, width),
/// both dense.
void sum_groups(cudaStream_t stream, const HeadDims& dims, Index width, const float* from,
                float* to);

/// The rule of a mixer that has no state of its own beside S (of vla: its step (1)).
std::unique_ptr<CudaRule> make_cuda_rule(const MixerOptions& options, Index d);

/// The recurrence on a GPU. `cpu`: the same mixer's core there, for memories and sizes.
std::unique_ptr<MixerCore<float>> make_recurrent_cuda_core(std::unique_ptr<CudaRule> rule,
                                                           std::unique_ptr<MixerCore<float>> cpu,
                                                           Chunks chunks);

}  // namespace vla_bench::mixers::cuda
