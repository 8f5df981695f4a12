// based.h on a GPU: its F' features, rounded up to blocks of d, are linear attentions without
// normaliser of the recurrence, a block after the other; numbers are the steps of based.h.
//
// Memory traffic per token and head, in numbers, F'' the rounded F': the forward writes and reads
// 2 F'' features twice (S and z), and F'' partial reads; the backward 8 F'' gradients besides. At
// d = 64 and n = 16 (F'' = 192) that is some 6 and 18 times what the passes of linear attention
// with a head of 64 move, for 2.4 times the state.
#include <algorithm>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "core/cuda/warp.h"
#include "mixers/based/based.h"
#include "mixers/cuda_mixers.h"
#include "mixers/mixer.h"
#include "mixers/recurrence/chunk_choice.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "mixers/recurrence/recurrence_cuda.h"

namespace vla_bench {
namespace mixers::cuda {
namespace {

constexpr int kThreads = 128;

unsigned blocks_of(Index threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

/// How features lie: (B, T, H, F''), F'' = blocks d.
struct FeatureShape {
  HeadDims dims;
  int n = 0;       // channels of a key
  int count = 0;   // F'
  int stride = 0;  // F''
  float linear = 0, square = 0, product = 0;

  FeatureShape(const HeadDims& head_dims, Index channels)
      : dims(head_dims),
        n(static_cast<int>(channels)),
        count(static_cast<int>(taylor_features(channels))),
        stride(static_cast<int>((count + head_dims.d_h - 1) / head_dims.d_h * head_dims.d_h)) {
    const TaylorWeights weights(channels);
    linear = static_cast<float>(weights.linear);
    square = static_cast<float>(weights.square);
    product = static_cast<float>(weights.product);
  }

  Index scalars() const { return dims.rows() * dims.heads; }
  Index blocks() const { return stride / dims.d_h; }
  /// Block j of an array of features, as the recurrence sees it.
  template <class T>
  TokenView<T> block(T* features, Index j) const {
    TokenView<T> view = token_view(dims, features, Index{stride});
    view.data += j * dims.d_h;
    return view;
  }
};

/// A warp a token and head; lane i has channel i.
struct WarpToken {
  __device__ explicit WarpToken(const HeadDims& dims) {
    const auto heads = static_cast<unsigned>(dims.heads),
               tokens = static_cast<unsigned>(dims.tokens);
    scalar = (blockIdx.x * blockDim.x + threadIdx.x) / kWarp;
    exists = scalar < static_cast<unsigned>(dims.batch) * tokens * heads;
    lane = static_cast<int>(threadIdx.x % kWarp);
    head = scalar % heads;
    token = scalar / heads % tokens;
    batch = scalar / heads / tokens;
  }
  template <class T>
  __device__ T* of(const TokenView<T>& view) const {
    return view.data + batch * view.batch + token * view.token + head * view.head;
  }

  unsigned scalar, head, token, batch;
  int lane;
  bool exists;
};

/// 1: of a query (blockIdx.y 0) or a key.
__global__ void __launch_bounds__(kThreads)
    features_kernel(const FeatureShape shape, const TokenView<const float> query,
                    const TokenView<const float> key, float* phi_q, float* phi_k) {
  const WarpToken token(shape.dims);
  if (!token.exists) return;
  const bool is_key = blockIdx.y != 0;
  const int n = shape.n, lane = token.lane;
  const float x = lane < n ? token.of(is_key ? key : query)[lane] : 0.0F;
  float* phi = (is_key ? phi_k : phi_q) + static_cast<Index>(token.scalar) * shape.stride;
  if (lane == 0) phi[0] = 1.0F;
  if (lane < n) phi[1 + lane] = shape.linear * x;
  float* row = phi + 1 + n;  // the products of channel i with those from i on
  for (int i = 0; i < n; ++i) {
    const float xi = __shfl_sync(0xffffffffU, x, i);
    if (lane >= i && lane < n) {
      row[lane - i] = (lane == i ? shape.square : shape.product) * xi * x;
    }
    row += n - i;
  }
  for (int f = shape.count + lane; f < shape.stride; f += kWarp) phi[f] = 0.0F;
}

/// A gradient of features: what passes through S and through the normaliser.
struct FeatureGradients {
  const float *state, *normaliser;
};

/// 1, backward
__global__ void __launch_bounds__(kThreads)
    features_backward_kernel(const FeatureShape shape, const TokenView<const float> query,
                             const TokenView<const float> key, const FeatureGradients d_query,
                             const FeatureGradients d_key, const TokenView<float> dq,
                             const TokenView<float> dk) {
  const WarpToken token(shape.dims);
  if (!token.exists) return;
  const bool is_key = blockIdx.y != 0;
  const int n = shape.n, lane = token.lane;
  const float x = lane < n ? token.of(is_key ? key : query)[lane] : 0.0F;
  const FeatureGradients& gradients = is_key ? d_key : d_query;
  const Index first = static_cast<Index>(token.scalar) * shape.stride;
  const auto d_phi = [&](int f) {
    return gradients.state[first + f] + gradients.normaliser[first + f];
  };
  float dx = lane < n ? shape.linear * d_phi(1 + lane) : 0.0F;
  int row = 1 + n;
  for (int i = 0; i < n; ++i) {
    const float xi = __shfl_sync(0xffffffffU, x, i);
    float d_product = 0.0F;
    if (lane >= i && lane < n) {
      d_product = (lane == i ? shape.square : shape.product) * d_phi(row + lane - i);
    }
    dx = fmaf(d_product, xi, dx);
    float along = d_product * x;
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      along += __shfl_xor_sync(0xffffffffU, along, step);
    }
    if (lane == i) dx += along;
    row += n - i;
  }
  if (lane < n) token.of(is_key ? dk : dq)[lane] = dx;
}

/// Sums over blocks of (B, T, H, d) into `sums`, divided by the sum of their denominators if any,
/// which is kept.
struct BlockSums {
  HeadDims dims;
  int blocks = 0;
  const float* parts = nullptr;              // (blocks, B, T, H, d)
  const float* part_denominators = nullptr;  // (blocks, B, T, H), or null
  TokenView<float> sums;                     // (B, T, H, d)
  float* denominators = nullptr;             // (B, T, H)
};
__global__ void __launch_bounds__(kThreads) block_sums_kernel(const BlockSums args) {
  const auto d = static_cast<unsigned>(args.dims.d_h);
  const auto heads = static_cast<unsigned>(args.dims.heads);
  const auto tokens = static_cast<unsigned>(args.dims.tokens);
  const unsigned scalars = static_cast<unsigned>(args.dims.batch) * tokens * heads;
  const unsigned element = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned scalar = element / d, channel = element % d;
  if (scalar >= scalars) return;
  float sum = 0.0F, denominator = 0.0F;
  for (int j = 0; j < args.blocks; ++j) {
    const Index block = static_cast<Index>(j) * scalars;
    sum += args.parts[block * d + element];
    if (args.part_denominators != nullptr) denominator += args.part_denominators[block + scalar];
  }
  if (args.part_denominators != nullptr) {
    sum /= denominator;
    if (channel == 0) args.denominators[scalar] = denominator;
  }
  const unsigned row = scalar / heads;
  args.sums.data[row / tokens * args.sums.batch + row % tokens * args.sums.token +
                 scalar % heads * args.sums.head + channel] = sum;
}
void sum_blocks(cudaStream_t stream, const BlockSums& args) {
  block_sums_kernel<<<blocks_of(args.dims.rows() * args.dims.heads * args.dims.d_h), kThreads, 0,
                      stream>>>(args);
  VLA_CUDA_LAUNCHED("block_sums_kernel");
}

RecurrenceInputs block_inputs(const HeadDims& dims, const TokenView<const float>& query,
                              const TokenView<const float>& key) {
  RecurrenceInputs inputs;
  inputs.dims = dims;
  inputs.a = key;
  inputs.q = query;
  return inputs;
}

/// c of a block may have any sign; only the sum of all is divided by.
constexpr float kNoFloor = 1e-30F;

class BasedCore final : public MixerCore<float> {
 public:
  BasedCore(const BasedOptions& options, Index d_h, Chunks chunks)
      : n_(options.feature_dim),
        form_(block_form(options)),
        chunks_(chunks),
        cpu_(make_attention_core<float>(options, d_h)) {}

  void forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
               Array<float>* saved) override;
  void backward(const Context& context, const CoreInputs<float>& inputs,
                const CoreGradients<float>& gradients, const Array<float>& saved) override;

  std::unique_ptr<HeadMemory<float>> memory(Index head) const override {
    return cpu_->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override { return cpu_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& dims) const override {
    return saved_size(FeatureShape(dims, n_)) * static_cast<Index>(sizeof(float));
  }

 private:
  /// Features of queries and keys, then denominators.
  static Index saved_size(const FeatureShape& shape) {
    return shape.scalars() * (2 * shape.stride + 1);
  }
  float* own(const Context& context, Index size, Array<float>& array) const {
    array.resize(context.device, size);
    return array.data();
  }
  bool takes_chunks(const HeadDims& dims) const {
    if (chunks_ == Chunks::by_rule) return chunks_are_faster(form_, dims);
    return chunks_ == Chunks::always;
  }
  ChunkedOptions options_of_chunks(const Context& context, const HeadDims& dims, bool backward);
  void forward_block(const Context& context, const RecurrenceInputs& inputs,
                     const RecurrenceForward& args);
  void backward_block(const Context& context, const RecurrenceInputs& inputs,
                      const RecurrenceBackward& args);

  Index n_;
  RecurrenceForm form_;
  Chunks chunks_;
  std::unique_ptr<MixerCore<float>> cpu_;
  Array<float> unsaved_;                    // what no backward wants
  Array<float> parts_, part_denominators_;  // (blocks, B, T, H, d), (blocks, B, T, H)
  Array<float> scale_, d_denominator_;      // (B, T, H)
  Array<float> d_features_;                 // 4 of (B, T, H, F'')
  Array<float> scratch_, sums_;             // of passes in chunks
};

ChunkedOptions BasedCore::options_of_chunks(const Context& context, const HeadDims& dims,
                                            bool backward) {
  ChunkedOptions options{
      .plan = plan_segments(dims, form_.has_residual(),
                            vla_bench::cuda::stream_context().multiprocessors()),
      .grade = context.precision == Precision::float32 ? Grade::float32 : Grade::tf32};
  const Index size = backward ? chunked_backward_scratch_size(dims, options.plan, false)
                              : chunked_scratch_size(dims, options.plan);
  if (size > 0) options.scratch = own(context, size, scratch_);
  if (backward) options.sums = own(context, normaliser_backward_scratch_size(dims), sums_);
  return options;
}
void BasedCore::forward_block(const Context& context, const RecurrenceInputs& inputs,
                              const RecurrenceForward& args) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  if (!takes_chunks(inputs.dims)) return recurrence_forward(stream, inputs, args);
  chunked_forward(stream, inputs, args, options_of_chunks(context, inputs.dims, false));
}
void BasedCore::backward_block(const Context& context, const RecurrenceInputs& inputs,
                               const RecurrenceBackward& args) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  if (!takes_chunks(inputs.dims)) return recurrence_backward(stream, inputs, args);
  chunked_backward(stream, inputs, args, options_of_chunks(context, inputs.dims, true));
}

void BasedCore::forward(const Context& context, const CoreInputs<float>& inputs, HeadView<float> o,
                        Array<float>* saved) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const FeatureShape shape(dims, n_);
  float* const phi_q = own(context, saved_size(shape), saved != nullptr ? *saved : unsaved_);
  float* const phi_k = phi_q + shape.scalars() * shape.stride;
  float* const denominators = phi_k + shape.scalars() * shape.stride;
  features_kernel<<<dim3(blocks_of(shape.scalars() * kWarp), 2), kThreads, 0, stream>>>(
      shape, token_view(dims, inputs.q), token_view(dims, inputs.k), phi_q, phi_k);
  VLA_CUDA_LAUNCHED("features_kernel");

  float* const parts = own(context, shape.scalars() * shape.stride, parts_);
  float* const part_denominators =
      own(context, shape.scalars() * shape.blocks(), part_denominators_);
  float* const scale = own(context, shape.scalars(), scale_);
  float* const sums =
      takes_chunks(dims) ? own(context, normaliser_scratch_size(dims), sums_) : nullptr;
  for (Index j = 0; j < shape.blocks(); ++j) {
    const TokenView<const float> query = shape.block(phi_q, j), key = shape.block(phi_k, j);
    normaliser_forward(stream, {.dims = dims,
                                .f = key,
                                .q = query,
                                .floor = kNoFloor,
                                .denominator = part_denominators + j * shape.scalars(),
                                .scale = scale,
                                .sums = sums});
    float* const part = parts + j * shape.scalars() * dims.d_h;
    RecurrenceForward args;
    args.v = token_view(dims, inputs.v);
    args.o = token_view(dims, part, dims.d_h);
    forward_block(context, block_inputs(dims, query, key), args);
  }
  sum_blocks(stream, {.dims = dims,
                      .blocks = static_cast<int>(shape.blocks()),
                      .parts = parts,
                      .part_denominators = part_denominators,
                      .sums = token_view(dims, o),
                      .denominators = denominators});
}

void BasedCore::backward(const Context& context, const CoreInputs<float>& inputs,
                         const CoreGradients<float>& gradients, const Array<float>& saved) {
  const HeadDims& dims = inputs.dims;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const FeatureShape shape(dims, n_);
  const Index size = shape.scalars() * shape.stride;
  const float* const phi_q = saved.data();
  const float* const phi_k = phi_q + size;

  NormaliserTerms terms;
  terms.dims = dims;
  terms.o = token_view(dims, gradients.o);
  terms.d_o = token_view(dims, gradients.d_o);
  terms.denominator = phi_k + size;
  terms.floor = kNoFloor;
  terms.scale = own(context, shape.scalars(), scale_);
  terms.d_denominator = own(context, shape.scalars(), d_denominator_);
  normaliser_terms(stream, terms);

  float* const d_features = own(context, 4 * size, d_features_);
  float *const dq_state = d_features, *const dq_normaliser = d_features + size;
  float *const dk_state = d_features + 2 * size, *const dk_normaliser = d_features + 3 * size;
  float* const parts = own(context, size, parts_);
  for (Index j = 0; j < shape.blocks(); ++j) {
    const TokenView<const float> query = shape.block(phi_q, j), key = shape.block(phi_k, j);
    float* const part = parts + j * shape.scalars() * dims.d_h;
    RecurrenceBackward args;
    args.e = token_view(dims, inputs.v);
    args.d_o = terms.d_o;
    args.de = token_view(dims, part, dims.d_h);
    args.dq = shape.block(dq_state, j);
    args.da = shape.block(dk_state, j);
    args.normaliser = {.f = key,
                       .q = query,
                       .d_denominator = terms.d_denominator,
                       .df = shape.block(dk_normaliser, j),
                       .dq = shape.block(dq_normaliser, j)};
    RecurrenceInputs block = block_inputs(dims, query, key);
    block.scale = terms.scale;
    backward_block(context, block, args);
  }
  sum_blocks(stream, {.dims = dims,
                      .blocks = static_cast<int>(shape.blocks()),
                      .parts = parts,
                      .sums = token_view(dims, gradients.dv)});
  features_backward_kernel<<<dim3(blocks_of(shape.scalars() * kWarp), 2), kThreads, 0, stream>>>(
      shape, token_view(dims, inputs.q), token_view(dims, inputs.k),
      FeatureGradients{dq_state, dq_normaliser}, FeatureGradients{dk_state, dk_normaliser},
      token_view(dims, gradients.dq), token_view(dims, gradients.dk));
  VLA_CUDA_LAUNCHED("features_backward_kernel");
}

}  // namespace
}  // namespace mixers::cuda

std::unique_ptr<MixerCore<float>> make_attention_cuda_core(const BasedOptions& options, Index d_h,
                                                           Implementation implementation) {
  mixers::Chunks chunks = mixers::Chunks::by_rule;
  if (implementation == Implementation::chunked) chunks = mixers::Chunks::always;
  if (implementation == Implementation::recurrent) chunks = mixers::Chunks::never;
  return std::make_unique<mixers::cuda::BasedCore>(options, d_h, chunks);
}

Support attention_cuda_support(const BasedOptions& /*options*/, Index d_h,
                               Implementation /*implementation*/) {
  return mixers::head_size_support(d_h);
}

}  // namespace vla_bench
