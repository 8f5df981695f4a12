// chunked_cuda.h: passes against time, and the backward.
#include "mixers/recurrence/chunk_state.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <AlongR kAlongR, bool kPuts>
void launch(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  with_chunks<float, false>(pass, [&](auto d, auto grade, auto decay) {
    using Rule = ChunkRule<d, grade, Order::against_time, kAlongR, decay, false, kPuts>;
    launch_chunks<Rule>(stream, args, pass.lanes);
  });
}

/// 8, 11 and 15: de. `chain` then has dS behind each segment, going against time.
void run_chain(cudaStream_t stream, const RecurrenceInputs& inputs, const RecurrenceBackward& args,
               const ChunkedPass& pass, ChunkedArgs& chain) {
  const HeadDims& dims = inputs.dims;
  chain.r = {dims, inputs.r};
  chain.a = {dims, inputs.a};
  chain.q = {dims, inputs.q};
  chain.v = {dims, args.d_o};
  chain.o = {dims, args.de};
  if (chain.segments > 1) {
    start_against_time(stream, pass, chain);
    join_segments(stream, pass, chain);
  }
  run_against_time(stream, pass, chain);
}

/// S behind each segment: the forward's, or written again by e.
void give_states(cudaStream_t stream, const RecurrenceInputs& inputs,
                 const RecurrenceBackward& args, ChunkedPass pass, const ChunkedOptions& options,
                 ChunkedArgs& columns) {
  if (options.forward_scratch != nullptr) {
    columns.states = const_cast<float*>(options.forward_scratch);  // only read
    return;
  }
  pass.along_r = AlongR::nothing;
  columns.a = {inputs.dims, inputs.a};
  columns.v = {inputs.dims, args.e};
  start_in_time(stream, pass, columns);
  join_segments(stream, pass, columns);
}

/// 10: dq and dr from S.
void run_columns_in_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                         const RecurrenceBackward& args, const ChunkedPass& pass,
                         ChunkedArgs columns) {
  const HeadDims& dims = inputs.dims;
  columns.a = {dims, args.e};
  columns.v = {dims, inputs.a};
  columns.q = {dims, args.d_o};
  columns.r = {dims, args.de};
  columns.o = {dims, args.dq};
  columns.e = {dims, args.dr};
  columns.transposed = true;
  run_in_time(stream, pass, columns);
}

/// 10: da from dS.
void run_columns_against_time(cudaStream_t stream, const RecurrenceInputs& inputs,
                              const RecurrenceBackward& args, const ChunkedPass& pass,
                              ChunkedArgs columns) {
  const HeadDims& dims = inputs.dims;
  columns.a = {dims, args.e};
  columns.q = {dims, args.d_o};
  columns.r = {dims, args.de};
  columns.v = {dims, inputs.q};
  columns.w = {dims, inputs.r};
  columns.o = {dims, args.da};
  columns.transposed = true;
  run_against_time(stream, pass, columns);
}

// 13, by its sum over later tokens: with b_t = alpha_t dalpha_t and <dS, S> of the S before token t
// and its gradient,
//   b_t = <dS, S> before the next chunk + sum over s >= t in the chunk (q_s.dq_s - a_s.da_s)
//         + sum over s > t in the chunk r_s.dr_s
// The sum begins anew in each chunk, since its terms' errors would add up.

struct DecayGradientArgs {
  int tokens, heads;
  Index chunks;  // of all lanes
  TokenSource q, dq, a, da, r, dr, decay;
  TokenView<float> ddecay;
  const float* chunk_products;
};

/// x_t . y_t of the thread's four channels.
__device__ inline float partial_product(const TokenSource& x, const TokenSource& y, int batch,
                                        int head, int token, int channel) {
  if (x.view.data == nullptr || channel >= x.width) return 0.0F;
  const float* from_x = x.view.lane(batch, head) + token * x.view.token + channel;
  const float* from_y = y.view.lane(batch, head) + token * y.view.token + channel;
  float sum = 0.0F;
  if (x.wide && y.wide) {
    const float4 u = quad_of(from_x);
    const float4 v = quad_of(from_y);
    return fmaf(u.x, v.x, fmaf(u.y, v.y, fmaf(u.z, v.z, u.w * v.w)));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum = fmaf(from_x[i], from_y[i], sum);
  return sum;
}

constexpr int kGradientWarps = 4;
/// A chunk by a warp, D / 4 threads a token.
template <int D>
__global__ void __launch_bounds__(kGradientWarps* kWarp)
    decay_gradient_kernel(const DecayGradientArgs args) {
  static_assert(kChunkTokens == kWarp);
  constexpr int kLanes = D / 4;
  const int thread = static_cast<int>(threadIdx.x) % kWarp;
  const Index chunk =
      static_cast<Index>(blockIdx.x) * kGradientWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (chunk >= args.chunks) return;
  const auto of_lane = static_cast<int>(chunks_of_lane(args.tokens));
  const int lane = static_cast<int>(chunk / of_lane);
  const int batch = lane / args.heads;
  const int head = lane % args.heads;
  const int first = static_cast<int>(chunk % of_lane) * kWarp;

  // Of token `first` + thread; what token t adds to b of itself and those before it, or only of
  // those.
  float own = 0.0F, earlier = 0.0F;
#pragma unroll 4
  for (int step = 0; step < kLanes; ++step) {
    const int place = step * (kWarp / kLanes) + thread / kLanes;
    float sum[2] = {};
    if (first + place < args.tokens) {
      const auto product = [&](const TokenSource& x, const TokenSource& y) {
        return partial_product(x, y, batch, head, first + place, thread % kLanes * 4);
      };
      sum[0] = product(args.q, args.dq) - product(args.a, args.da);
      sum[1] = product(args.r, args.dr);
    }
    // Token p's sum stands with all of its threads; thread p takes it.
    const int from = (thread - step * (kWarp / kLanes)) * kLanes;
    const bool is_mine = thread / (kWarp / kLanes) == step;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = __shfl_sync(0xFFFFFFFFU, group_sum<kLanes>(sum[i]), from & (kWarp - 1));
      if (is_mine) (i == 0 ? own : earlier) = x;
    }
  }
  const float next = __shfl_down_sync(0xFFFFFFFFU, earlier, 1);
  double total = static_cast<double>(own) + (thread < kWarp - 1 ? next : 0.0F);
  if (thread == kWarp - 1 && first + kWarp < args.tokens) {
    const float* products = args.chunk_products + (chunk + 1) * (D / 16);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) total += products[i];
  }
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double later = __shfl_down_sync(0xFFFFFFFFU, total, offset);
    if (thread + offset < kWarp) total += later;
  }
  const int token = first + thread;
  if (token >= args.tokens) return;
  constexpr float kLeastDecay = 1e-20F;
  const float alpha = args.decay.view.lane(batch, head)[token * args.decay.view.token];
  args.ddecay.lane(batch, head)[token * args.ddecay.token] =
      alpha < kLeastDecay ? 0.0F : static_cast<float>(total / static_cast<double>(alpha));
}

void run_decay_gradient(cudaStream_t stream, const RecurrenceInputs& inputs,
                        const RecurrenceBackward& args, const float* chunk_products) {
  const HeadDims& dims = inputs.dims;
  DecayGradientArgs gradient{.tokens = static_cast<int>(dims.tokens),
                             .heads = static_cast<int>(dims.heads),
                             .chunks = dims.lanes() * chunks_of_lane(dims.tokens),
                             .q = {dims, inputs.q},
                             .dq = {dims, args.dq},
                             .a = {dims, inputs.a},
                             .da = {dims, args.da},
                             .r = {dims, inputs.r},
                             .dr = {dims, args.dr},
                             .decay = {dims, inputs.decay},
                             .ddecay = args.ddecay,
                             .chunk_products = chunk_products};
  const auto blocks =
      static_cast<unsigned>((gradient.chunks + kGradientWarps - 1) / kGradientWarps);
  with_head_size(dims.d_h, [&](auto d) {
    decay_gradient_kernel<d><<<blocks, kGradientWarps * kWarp, 0, stream>>>(gradient);
  });
  VLA_CUDA_LAUNCHED("decay_gradient_kernel");
}

}  // namespace

void start_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  if (pass.along_r == AlongR::residual) return launch<AlongR::residual, false>(stream, pass, args);
  launch<AlongR::nothing, false>(stream, pass, args);
}
void run_against_time(cudaStream_t stream, const ChunkedPass& pass, const ChunkedArgs& args) {
  switch (pass.along_r) {
    case AlongR::nothing:
      return launch<AlongR::nothing, true>(stream, pass, args);
    case AlongR::residual:
      return launch<AlongR::residual, true>(stream, pass, args);
    case AlongR::known:
      return launch<AlongR::known, true>(stream, pass, args);
  }
}

Index chunked_backward_scratch_size(const HeadDims& dims, const ChunkedPlan& plan,
                                    bool decay_has_gradient) {
  const Index d = kernel_head_size(dims.d_h);
  const Index chunks = decay_has_gradient ? dims.lanes() * chunks_of_lane(dims.tokens) : 0;
  return 2 * chunked_scratch_size(dims, plan) + chunks * (d * d + d / 16);
}

void chunked_backward(cudaStream_t stream, const RecurrenceInputs& inputs,
                      const RecurrenceBackward& args, const ChunkedOptions& options) {
  const HeadDims& dims = inputs.dims;
  const ChunkedPass pass = chunked_pass(inputs, options.grade);
  ChunkedArgs against_time = chunked_args(inputs, options.plan);
  ChunkedArgs in_time = against_time;
  if (options.plan.segments > 1) {
    float* memory = options.scratch;
    give_segments(dims, options.plan, memory, against_time);
    give_segments(dims, options.plan, memory + segments_size(dims, options.plan), in_time);
    give_states(stream, inputs, args, pass, options, in_time);
  }
  if (args.ddecay.data != nullptr) {
    const Index d = kernel_head_size(dims.d_h);
    in_time.chunk_states = options.scratch + 2 * chunked_scratch_size(dims, options.plan);
    in_time.chunk_products =
        in_time.chunk_states + dims.lanes() * chunks_of_lane(dims.tokens) * d * d;
  }
  run_chain(stream, inputs, args, pass, against_time);
  against_time.chunk_states = in_time.chunk_states;
  against_time.chunk_products = in_time.chunk_products;
  ChunkedPass columns = pass;
  if (pass.along_r == AlongR::residual) columns.along_r = AlongR::known;
  run_columns_in_time(stream, inputs, args, columns, in_time);
  run_columns_against_time(stream, inputs, args, columns, against_time);
  if (args.ddecay.data != nullptr) {
    run_decay_gradient(stream, inputs, args, against_time.chunk_products);
  }
  if (args.normaliser.d_denominator != nullptr) {
    normaliser_backward(stream, dims, args.normaliser, options.sums);
  }
}

}  // namespace vla_bench::mixers::cuda
