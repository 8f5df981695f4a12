// vla_chunked_cuda.h for any head size: how lanes are cut into segments, the memory that they take,
// and what is compiled once for each size.
#include <algorithm>
#include <cmath>

#include "mixers/vla/vla_chunked.cuh"
#include "mixers/vla/vla_segments_cuda.h"

namespace vla_bench::mixers::cuda {
namespace {

Index chunk_tokens(Index d_h) {
  Index tokens = 0;
  with_head_size(d_h, [&](auto d) { tokens = ChunkShape<d>::kTokens; });
  return tokens;
}

}  // namespace

Index elements_size(const HeadDims& dims, int segments) {
  const Index d = kernel_head_size(dims.d_h);
  Index elements = 0;
  for (int count = segments - 2; count > 0; count /= 2) elements += count + 1;
  return dims.lanes() * std::max<Index>(elements, segments) * 3 * d * d;
}

int plan_penalty_segments(const HeadDims& dims, const PenaltySettings& settings,
                          int multiprocessors) {
  // The join grows with the segments, the rest falls. At d = 128 elements are not composed, and a
  // step of the join takes as long as about 80 tokens of a segment, of which there are two runs.
  const auto tokens = static_cast<double>(dims.tokens);
  const bool composes = kernel_head_size(dims.d_h) < 128;
  const auto best = static_cast<Index>(composes ? std::sqrt(tokens) / 4.0 : std::sqrt(tokens / 40));
  const Index places = (composes ? 2 : 1) * multiprocessors;
  const Index segments = std::min({best, dims.tokens / 256, places / dims.lanes()});
  return segments < 4 ? 1 : penalty_segments(dims, settings, static_cast<int>(segments));
}

int penalty_segments(const HeadDims& dims, const PenaltySettings& settings, int wanted) {
  if (settings.stab_eps > 1.0F) return 1;
  const Index chunks = (dims.tokens + chunk_tokens(dims.d_h) - 1) / chunk_tokens(dims.d_h);
  const Index segments = std::max(wanted, 1);
  const Index each = (chunks + segments - 1) / segments;
  return static_cast<int>((chunks + each - 1) / each);
}

Index penalty_ends_size(const HeadDims& dims, int segments) {
  const Index d = kernel_head_size(dims.d_h);
  return dims.lanes() * segments * d * d;
}

Index penalty_workspace_size(const HeadDims& dims, int segments) {
  return segments <= 1 ? 0 : penalty_ends_size(dims, segments) + elements_size(dims, segments);
}

SegmentArgs cut_segments(const HeadDims& dims, const PenaltySettings& settings, int wanted,
                         const TokenView<const float>& u) {
  const int segments = penalty_segments(dims, settings, wanted);
  const Index tokens = chunk_tokens(dims.d_h);
  const Index all = (dims.tokens + tokens - 1) / tokens;
  return {.tokens = static_cast<int>(dims.tokens),
          .heads = static_cast<int>(dims.heads),
          .segments = segments,
          .segment_tokens = static_cast<int>((all + segments - 1) / segments * tokens),
          .settings = settings,
          .u = {dims, u}};
}

void penalty_forward_chunked(cudaStream_t stream, const PenaltyForward& args,
                             const PenaltyChunks& chunks) {
  with_head_size(args.dims.d_h, [&](auto d) { penalty_forward_chunked<d>(stream, args, chunks); });
  if (args.normaliser.denominator != nullptr) normaliser_forward(stream, args.normaliser);
}

void penalty_backward_chunked(cudaStream_t stream, const PenaltyBackward& args, const float* ends,
                              const TokenView<float>& du, const TokenView<float>& dk,
                              const PenaltyChunks& chunks) {
  with_head_size(args.dims.d_h,
                 [&](auto d) { penalty_backward_chunked<d>(stream, args, ends, du, dk, chunks); });
}

}  // namespace vla_bench::mixers::cuda
