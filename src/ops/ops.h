// The operations that mixers and layers share; ops.cpp dispatches on the device. Instantiated for
// float and double. Call with the element type named: ops::linear_forward<T>(context, {...}).
//
// Conventions: parameter gradients ACCUMULATE (callers zero them once per step); activation
// gradients OVERWRITE unless a field says otherwise. Results do not depend on Context::threads:
// work is split into fixed blocks and partial sums are added in block order.
#pragma once

#include <cstdint>

#include "core/device_kinds.h"
#include "core/matrix.h"
#include "ops/training_state.h"

namespace vla_bench {

/// The device, and the threads or the precision to use on it.
struct Context {
  Device device = Device::cpu;
  int threads = 1;                           // CPU
  Precision precision = Precision::float32;  // GPU
};

/// The target at positions that the loss ignores (the convention of torch's cross_entropy).
inline constexpr std::int32_t kIgnoreTarget = -100;

namespace ops {

/// y = x W^T + bias + residual.
template <class T>
struct LinearForward {
  Matrix<const T> x;           // (M, K)
  Matrix<const T> weight;      // (N, K)
  const T* bias = nullptr;     // (N) or null
  Matrix<const T> residual{};  // (M, N), or empty; may be y
  Matrix<T> y;                 // (M, N), overwritten
};
template <class T>
void linear_forward(const Context& context, const LinearForward<T>& args);

/// dx = dy W;  dW += dy^T x;  db += column sums of dy.
template <class T>
struct LinearBackward {
  Matrix<const T> x;       // (M, K)
  Matrix<const T> weight;  // (N, K)
  Matrix<const T> dy;      // (M, N)
  Matrix<T> dx;            // (M, K), may be empty
  bool accumulate_dx = false;
  Matrix<T> dweight;   // (N, K), accumulates; may be empty
  T* dbias = nullptr;  // (N), accumulates; may be null
  /// Computes dW and db on side streams, beside the work launched next: until join_side_streams, x
  /// and dy must not change and dW and db are undefined. The CPU computes them at once.
  bool on_side_stream = false;
};
template <class T>
void linear_backward(const Context& context, const LinearBackward<T>& args);
/// Makes the work launched next wait for all side streams.
void join_side_streams(const Context& context);

/// y = (x - mean) / sqrt(var + 1e-5) * weight + bias + residual over the columns of each row;
/// biased variance.
inline constexpr double kLayerNormEpsilon = 1e-5;
template <class T>
struct LayerNormForward {
  Matrix<const T> x;           // (M, D)
  const T* weight;             // (D)
  const T* bias;               // (D)
  Matrix<const T> residual{};  // (M, D), or empty; may be x
  Matrix<T> y;                 // (M, D)
  T* mean;                     // (M), kept for the backward
  T* inverse_std;              // (M)
};
template <class T>
void layer_norm_forward(const Context& context, const LayerNormForward<T>& args);

template <class T>
struct LayerNormBackward {
  Matrix<const T> x;            // (M, D)
  const T* weight;              // (D)
  const T* mean;                // (M)
  const T* inverse_std;         // (M)
  Matrix<const T> dy;           // (M, D)
  Matrix<const T> residual{};   // (M, D), or empty: added to dx; may be dx
  Matrix<T> dx;                 // (M, D); may be dy unless on_side_stream
  T* dweight;                   // (D), accumulates
  T* dbias;                     // (D), accumulates
  bool on_side_stream = false;  // dweight and dbias, as in LinearBackward: x and dy stay
};
template <class T>
void layer_norm_backward(const Context& context, const LayerNormBackward<T>& args);

/// RMSNorm (arXiv:1910.07467): y = x / sqrt(mean(x^2) + epsilon) * weight over the columns of each
/// row.
template <class T>
struct RmsNormForward {
  Matrix<const T> x;  // (M, D)
  const T* weight;    // (D)
  double epsilon;
  Matrix<T> y;     // (M, D)
  T* inverse_rms;  // (M), kept for the backward
};
template <class T>
void rms_norm_forward(const Context& context, const RmsNormForward<T>& args);

template <class T>
struct RmsNormBackward {
  Matrix<const T> x;            // (M, D)
  const T* weight;              // (D)
  const T* inverse_rms;         // (M)
  Matrix<const T> dy;           // (M, D)
  Matrix<T> dx;                 // (M, D); may be dy unless on_side_stream
  T* dweight;                   // (D), accumulates
  bool on_side_stream = false;  // dweight, as in LinearBackward: x and dy stay
};
template <class T>
void rms_norm_backward(const Context& context, const RmsNormBackward<T>& args);

/// Exact GELU: y = x Phi(x), Phi by erf (not the tanh form). x, y, dy, dx: (count).
template <class T>
void gelu_forward(const Context& context, const T* x, T* y, Index count);
/// dx = dy (Phi(x) + x phi(x)); dx may be dy.
template <class T>
void gelu_backward(const Context& context, const T* x, const T* dy, T* dx, Index count);

/// y = residual + x + value o gate, element by element: a gated branch on top of two sums.
template <class T>
struct GatedSum {
  const T* value;     // (count)
  const T* gate;      // (count)
  const T* x;         // (count)
  const T* residual;  // (count)
  T* y;               // (count)
  Index count;
};
template <class T>
void gated_sum_forward(const Context& context, const GatedSum<T>& args);
/// dvalue = dy o gate, dgate = dy o value. x and the residual have the gradient dy.
template <class T>
struct GatedSumBackward {
  const T* value;  // (count)
  const T* gate;   // (count)
  const T* dy;     // (count)
  T* dvalue;       // (count)
  T* dgate;        // (count)
  Index count;
};
template <class T>
void gated_sum_backward(const Context& context, const GatedSumBackward<T>& args);

template <class T>
void fill_zero(const Context& context, T* data, Index count);

/// h[b, t] = token_table[tokens[b, t]] + position_table[t]; without a position table only the
/// token.
template <class T>
struct EmbeddingForward {
  const std::int32_t* tokens;      // (B, T)
  Index batch, tokens_per_row;     // B, T
  Matrix<const T> token_table;     // (V, D)
  Matrix<const T> position_table;  // (>= T, D), or empty
  Matrix<T> h;                     // (B * T, D)
};
template <class T>
void embedding_forward(const Context& context, const EmbeddingForward<T>& args);
/// Scatters dh into both tables; adds in token order for any number of threads.
template <class T>
struct EmbeddingBackward {
  const std::int32_t* tokens;   // (B, T)
  Index batch, tokens_per_row;  // B, T
  Matrix<const T> dh;           // (B * T, D)
  Matrix<T> dtoken_table;       // (V, D), accumulates
  Matrix<T> dposition_table;    // (>= T, D), accumulates; or empty
};
template <class T>
void embedding_backward(const Context& context, const EmbeddingBackward<T>& args);

/// out[i] = in[rows[i]] (gather), and in[rows[i]] = out[i] with every other row zeroed (scatter).
/// Rows must be distinct. Used to run the head only on positions with a target.
template <class T>
void gather_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                 Matrix<T> out);
template <class T>
void scatter_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                  Matrix<T> out);

/// Softmax cross entropy of each row against its target.
template <class T>
struct CrossEntropy {
  Matrix<const T> logits;       // (M, V), M >= 1
  const std::int32_t* targets;  // (M), of 0 .. V-1
  Matrix<T> dlogits;            // (M, V): gradient of the mean loss; may be empty, may be logits
  LossSums* sums;               // (1), in device memory, overwritten
  Index mean_rows = 0;          // the mean is over so many rows, these among them; 0: over these M
  bool accumulate = false;      // adds to *sums instead
};
template <class T>
void cross_entropy(const Context& context, const CrossEntropy<T>& args);

/// Cross entropy of the logits x W^T, of which only a few rows are held at a time: the rows are
/// taken in chunks of logits.rows, one after the other, and each goes through product, loss,
/// gradient in place, dx and dW before the next overwrites it.
///
/// Floor: 2 M V K operations forward, 6 M V K with gradients, the same as with all logits held. The
/// logits cross memory once in each direction forward and five times with gradients (the product
/// writes, the loss reads and writes, dx and dW read): 5 * 4 M V bytes, 2.7 GB for 16,384 rows of
/// 8,192, which a chunk that fits into the cache saves. Blocks of the vocabulary would have to
/// compute the logits twice, 8 M V K operations.
template <class T>
struct LinearCrossEntropy {
  Matrix<const T> x;            // (M, K), M >= 1
  Matrix<const T> weight;       // (V, K)
  const std::int32_t* targets;  // (M), of 0 .. V-1
  Matrix<T> logits;             // (rows of a chunk, V), overwritten
  Matrix<T> dx{};               // (M, K), gradient of the mean loss; empty: only the loss
  /// (V, K), accumulates in the order of the chunks; empty where dx is. Computed on a side stream:
  /// until join_side_streams, x and logits must not change and dweight is undefined.
  Matrix<T> dweight{};
  LossSums* sums;  // (1), in device memory, overwritten
};
template <class T>
void linear_cross_entropy(const Context& context, const LinearCrossEntropy<T>& args);

/// Rows of a chunk that linear_cross_entropy is given for a vocabulary of V. CPU: 16 MiB of logits
/// in float, 512 rows of 8,192, which stay in its caches. GPU: 128 MiB, 4,096 rows of 8,192: the
/// products of fewer rows have too few thread blocks, which costs more than the cache saves. A
/// function of these two only, so that results do not depend on the machine.
Index logit_chunk_rows(Device device, Index V);

/// Causal depthwise convolution along T: y[b,t,c] = bias[c] + sum_j weight[c, j] x[b, t-K+1+j, c]
/// with zeros before the first token (torch Conv1d, groups = D, left padding K-1). In the last
/// `silu_columns` columns y = silu(that), silu(z) = z / (1 + e^-z).
template <class T>
struct ShortConv {
  Index batch, tokens;     // B, T
  Matrix<const T> x;       // (B * T, D)
  Matrix<const T> weight;  // (D, K)
  const T* bias;           // (D) or null
  Index silu_columns = 0;
};
template <class T>
void short_conv_forward(const Context& context, const ShortConv<T>& args, Matrix<T> y);
template <class T>
struct ShortConvGradients {
  Matrix<T> dy;                 // (B * T, D); the SiLU columns become the convolution's gradient
  Matrix<const T> residual{};   // (B * T, D), or empty: added to dx
  Matrix<T> dx;                 // (B * T, D)
  Matrix<T> dweight;            // (D, K), accumulates
  T* dbias;                     // (D), accumulates; null without a bias
  bool on_side_stream = false;  // dweight and dbias, as in LinearBackward: x and dy stay
};
template <class T>
void short_conv_backward(const Context& context, const ShortConv<T>& args,
                         const ShortConvGradients<T>& gradients);

/// One step of the optimiser on a flat buffer: the gradients' Euclidean norm, accumulated in double
/// over fixed blocks; their scale min(1, clip_norm / (norm + 1e-6)) (torch's clip_grad_norm_), 1
/// for a clip_norm of 0; then AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) in the order of
/// torch: p *= 1 - lr wd; m, v updated; p -= lr m_hat / (sqrt(v_hat) + eps), at the schedule's rate
/// for state->step. Writes norm and rate to *state and increments its step. A loss in *state or a
/// norm that is not finite sets state->diverged; later steps then change nothing.
template <class T>
struct OptimiserStep {
  T* parameters;       // (count)
  const T* gradients;  // (count)
  T* first_moment;     // (count)
  T* second_moment;    // (count)
  Index count;
  Schedule schedule;
  double beta1, beta2, epsilon, weight_decay, clip_norm;
  TrainingState* state;  // (1), in device memory
};
template <class T>
void optimiser_step(const Context& context, const OptimiserStep<T>& args);

}  // namespace ops
}  // namespace vla_bench
