// Embedding tables, gather and scatter of rows.
#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {

template <class T>
void embedding_forward(const Context& context, const EmbeddingForward<T>& args) {
  const Index D = args.h.cols;
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index i = 0; i < args.h.rows; ++i) {
    const T* token = args.token_table.row(args.tokens[i]);
    T* h = args.h.row(i);
    if (args.position_table.empty()) {
      std::copy_n(token, D, h);
      continue;
    }
    const T* position = args.position_table.row(i % args.tokens_per_row);
#pragma omp simd
    for (Index j = 0; j < D; ++j) h[j] = token[j] + position[j];
  }
}

// Parallel over channels, not tokens: each thread walks all tokens in order over its own columns,
// so every element has one writer and a fixed order of additions.
template <class T>
void embedding_backward(const Context& context, const EmbeddingBackward<T>& args) {
  constexpr Index kCacheLine = 64;
  const Blocks channels{args.dh.cols, kCacheLine / static_cast<Index>(sizeof(T))};
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < channels.count(); ++block) {
    const Index first = channels.first(block);
    const Index length = channels.length(block);
    for (Index i = 0; i < args.dh.rows; ++i) {
      const T* dh = args.dh.row(i) + first;
      T* token = args.dtoken_table.row(args.tokens[i]) + first;
#pragma omp simd
      for (Index j = 0; j < length; ++j) token[j] += dh[j];
      if (args.dposition_table.empty()) continue;
      T* position = args.dposition_table.row(i % args.tokens_per_row) + first;
#pragma omp simd
      for (Index j = 0; j < length; ++j) position[j] += dh[j];
    }
  }
}

template <class T>
void gather_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                 Matrix<T> out) {
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index i = 0; i < out.rows; ++i) std::copy_n(in.row(rows[i]), out.cols, out.row(i));
}

template <class T>
void scatter_rows(const Context& context, Matrix<const T> in, const std::int32_t* rows,
                  Matrix<T> out) {
#pragma omp parallel num_threads(context.threads)
  {
#pragma omp for schedule(static)
    for (Index i = 0; i < out.rows; ++i) std::fill_n(out.row(i), out.cols, T(0));
#pragma omp for schedule(static)
    for (Index i = 0; i < in.rows; ++i) std::copy_n(in.row(i), in.cols, out.row(rows[i]));
  }
}

template void embedding_forward(const Context&, const EmbeddingForward<float>&);
template void embedding_forward(const Context&, const EmbeddingForward<double>&);
template void embedding_backward(const Context&, const EmbeddingBackward<float>&);
template void embedding_backward(const Context&, const EmbeddingBackward<double>&);
template void gather_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>);
template void gather_rows(const Context&, Matrix<const double>, const std::int32_t*,
                          Matrix<double>);
template void scatter_rows(const Context&, Matrix<const float>, const std::int32_t*, Matrix<float>);
template void scatter_rows(const Context&, Matrix<const double>, const std::int32_t*,
                           Matrix<double>);

}  // namespace vla_bench::ops::cpu
