// Matrices of a chunk in the order in which fragments need them.
//
// Left operands of 16 rows stay in registers, as accumulators of an earlier product: of an (16, 8)
// tile, thread l = 4 g + t of the warp holds columns 2t and 2t + 1 of rows g and g + 8. As the left
// operand of a product over these columns, inner index t is column 2t and t + 4 is column 2t + 1.
// Which token or channel a column stands for is free; this choice reads right operands from shared
// memory in wide words and, with rows 8 words apart modulo 16, without a bank conflict (8, 24 and
// 40 serve alike):
//   tokens    column n of tile b is token 8 b + shuffled(n)
//   channels  column 2t + h of tile 2m + u is channel 16 m + 4 t + 2 h + u
//   (C, C)    rows are tokens; word 16 m + 4 t + 2 u + h of a row is token 16 m + 8 u + shuffled(2t
//             + h), which is how accumulators of a (16, 16) block lie in a thread
#pragma once

#include "mixers/recurrence/chunk_products.cuh"

namespace vla_bench::mixers::cuda {

/// Words between rows of D words.
template <int D>
inline constexpr int kRowWords = D + 8;

/// What the vectors of tokens are stored as.
template <Grade kGrade>
using Stored = std::conditional_t<kGrade == Grade::bf16, Bfloat16, float>;
/// Elements between rows of D of them.
template <Grade kGrade, int D>
inline constexpr int kRowStride = kGrade != Grade::bf16 ? kRowWords<D>
                                  : D == 16             ? 48
                                                        : D + 16;

__device__ inline float low_half(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_half(std::uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000U);
}
/// Neighbouring channels.
__device__ inline float4 quad_of(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ inline float4 quad_of(const Bfloat16* from) {
  const uint2 x = *reinterpret_cast<const uint2*>(from);
  return make_float4(low_half(x.x), high_half(x.x), low_half(x.y), high_half(x.y));
}
__device__ inline float2 pair_of(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ inline float2 pair_of(const Bfloat16* from) {
  const std::uint32_t x = *reinterpret_cast<const std::uint32_t*>(from);
  return make_float2(low_half(x), high_half(x));
}
__device__ inline float number_of(float x) { return x; }
__device__ inline float number_of(Bfloat16 x) { return low_half(static_cast<std::uint32_t>(x)); }

__device__ constexpr int shuffled(int n) { return n % 2 == 0 ? n / 2 : 4 + (n / 2 ^ 2); }

/// The place of a thread in its warp's tiles.
struct Place {
  int g = static_cast<int>(threadIdx.x) % 32 / 4;
  int t = static_cast<int>(threadIdx.x) % 4;

  /// The row of a right operand, or of a product, that the thread reads.
  __device__ int row() const { return shuffled(g); }
  /// Token h of the thread's two in a tile of tokens.
  __device__ int token(int h) const { return h == 0 ? t : 4 + (t ^ 2); }
};

/// Tiles (16, 8) of 16 rows, in registers.
template <int kTiles>
using TileRow = float[kTiles][4];

// Numbers in shared memory are rounded once, when they arrive, where the grade is TF32; four and
// more warps read them after that. bfloat16 numbers are TF32 numbers as they are.

/// What is put into shared memory for x.
template <Grade kGrade>
__device__ inline float prepared(float x) {
  if constexpr (kGrade == Grade::float32) return x;
  return __uint_as_float(ops::cuda::round_to_tf32(x));
}
template <Grade kGrade>
__device__ inline float4 prepared(const float4& x) {
  return make_float4(prepared<kGrade>(x.x), prepared<kGrade>(x.y), prepared<kGrade>(x.z),
                     prepared<kGrade>(x.w));
}

// Products over 16 inner indices at a time, four of them a thread: which four is free as long as
// both operands agree.

/// Rows g and g + 8 of a left operand (16, 16).
template <Grade kGrade>
struct Left16 {
  Left<kGrade> halves[2];
};
/// Column g of a right operand (16, 8).
template <Grade kGrade>
struct Right16 {
  Right<kGrade> halves[2];
};

template <Grade kGrade>
__device__ inline Left16<kGrade> left16(const float4& x, const float4& y) {
  return {{left<kGrade>(x.x, y.x, x.y, y.y), left<kGrade>(x.z, y.z, x.w, y.w)}};
}
template <Grade kGrade>
__device__ inline void multiply_add(float (&c)[4], const Left16<kGrade>& a,
                                    const Right16<kGrade>& b) {
  multiply_add<kGrade>(c, a.halves[0], b.halves[0]);
  multiply_add<kGrade>(c, a.halves[1], b.halves[1]);
}

/// Of prepared numbers.
template <Grade kGrade>
__device__ inline Left16<kGrade> prepared_left(const float4& x, const float4& y) {
  if constexpr (kGrade == Grade::float32) return left16<kGrade>(x, y);
  const auto bits = [](float number) { return __float_as_uint(number); };
  return {{{.high = {bits(x.x), bits(y.x), bits(x.y), bits(y.y)}, .low = {}},
           {.high = {bits(x.z), bits(y.z), bits(x.w), bits(y.w)}, .low = {}}}};
}
template <Grade kGrade>
__device__ inline Right16<kGrade> prepared_right(const float4& x) {
  if constexpr (kGrade == Grade::float32) {
    return {{right<kGrade>(x.x, x.y), right<kGrade>(x.z, x.w)}};
  }
  const auto bits = [](float number) { return __float_as_uint(number); };
  return {
      {{.high = {bits(x.x), bits(x.y)}, .low = {}}, {.high = {bits(x.z), bits(x.w)}, .low = {}}}};
}
/// Column g from a row of which the thread has four neighbouring numbers as inner indices.
template <Grade kGrade, class T>
__device__ inline Right16<kGrade> right_at(const T* row) {
  return prepared_right<kGrade>(quad_of(row));
}

/// Products (16, C) += S (16, D) M^T of rows M (C, D), tokens by channels, kRows of them.
template <Grade kGrade, int D, int C, int kRows>
__device__ inline void read_state(const Place& at, const TileRow<D / 8>& s,
                                  const Stored<kGrade>* const (&rows)[kRows],
                                  TileRow<C / 8> (&products)[kRows]) {
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    const auto& even = s[2 * m];
    const auto& odd = s[2 * m + 1];
    const Left16<kGrade> x = left16<kGrade>(make_float4(even[0], odd[0], even[1], odd[1]),
                                            make_float4(even[2], odd[2], even[3], odd[3]));
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
      const int offset = (8 * b + at.row()) * kRowStride<kGrade, D> + 16 * m + 4 * at.t;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        multiply_add<kGrade>(products[r][b], x, right_at<kGrade>(rows[r] + offset));
      }
    }
  }
}

/// Tiles of 16 tokens as the left operand, each token times its number in `factors`, if any.
template <Grade kGrade>
__device__ inline Left16<kGrade> left_of_tokens(const Place& at, const float (&e0)[4],
                                                const float (&e1)[4],
                                                const float* factors = nullptr) {
  float4 x = make_float4(e0[0], e0[1], e1[0], e1[1]);
  float4 y = make_float4(e0[2], e0[3], e1[2], e1[3]);
  if (factors != nullptr) {
    const int token[2] = {at.token(0), at.token(1)};
    const float4 f = make_float4(factors[token[0]], factors[token[1]], factors[8 + token[0]],
                                 factors[8 + token[1]]);
    x = make_float4(f.x * x.x, f.y * x.y, f.z * x.z, f.w * x.w);
    y = make_float4(f.x * y.x, f.y * y.y, f.z * y.z, f.w * y.w);
  }
  return left16<kGrade>(x, y);
}

/// S (16, D) = decay S + E (16, C) M, rows M (C, D); each token of E times its number in `factors`,
/// if any. The product is added to S in float32: tensor cores cut their sums off instead of
/// rounding them, always towards 0, which over thousands of chunks would add up.
template <Grade kGrade, int D, int C>
__device__ inline void write_state(const Place& at, const TileRow<C / 8>& e,
                                   const Stored<kGrade>* rows, const float* factors, float decay,
                                   TileRow<D / 8>& s) {
  constexpr int kStride = kRowStride<kGrade, D>;
  Left16<kGrade> x[C / 16];
#pragma unroll
  for (int b = 0; b < C / 16; ++b) {
    x[b] = left_of_tokens<kGrade>(at, e[2 * b], e[2 * b + 1],
                                  factors == nullptr ? nullptr : factors + 16 * b);
  }
  const auto* from0 = rows + at.token(0) * kStride + 2 * at.g;
  const auto* from1 = rows + at.token(1) * kStride + 2 * at.g;
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    float product[2][4] = {};
#pragma unroll
    for (int b = 0; b < C / 16; ++b) {
      const int offset = 16 * b * kStride + 16 * m;
      const float2 y[4] = {pair_of(from0 + offset), pair_of(from1 + offset),
                           pair_of(from0 + offset + 8 * kStride),
                           pair_of(from1 + offset + 8 * kStride)};
      multiply_add<kGrade>(product[0], x[b],
                           prepared_right<kGrade>(make_float4(y[0].x, y[1].x, y[2].x, y[3].x)));
      multiply_add<kGrade>(product[1], x[b],
                           prepared_right<kGrade>(make_float4(y[0].y, y[1].y, y[2].y, y[3].y)));
    }
#pragma unroll
    for (int u = 0; u < 2; ++u) {
#pragma unroll
      for (int c = 0; c < 4; ++c) s[2 * m + u][c] = fmaf(decay, s[2 * m + u][c], product[u][c]);
    }
  }
}

/// Block (i, j) of a (C, C) matrix: tiles (16, 16) to `product` += tiles `e` of tokens of block j
/// times its transpose. kDiagonal: the block is lower triangular.
template <Grade kGrade, int C, bool kDiagonal>
__device__ inline void multiply_block(const Place& at, const float* matrix, int i, int j,
                                      const float (&e0)[4], const float (&e1)[4],
                                      float (&product0)[4], float (&product1)[4]) {
  const Left16<kGrade> x = left_of_tokens<kGrade>(at, e0, e1);
  const float* from = matrix + (16 * i + at.row()) * kRowWords<C> + 16 * j + 4 * at.t;
  const Right16<kGrade> y0 = right_at<kGrade>(from);
  const Right16<kGrade> y1 = right_at<kGrade>(from + 8 * kRowWords<C>);
  if constexpr (kDiagonal) {
    multiply_add<kGrade>(product0, x.halves[0], y0.halves[0]);
  } else {
    multiply_add<kGrade>(product0, x, y0);
  }
  multiply_add<kGrade>(product1, x, y1);
}

/// N (16, C) += E (16, C) M^T, M (C, C) lower triangular.
template <Grade kGrade, int C>
__device__ inline void multiply_triangle(const Place& at, const float* matrix,
                                         const TileRow<C / 8>& e, TileRow<C / 8>& n) {
#pragma unroll
  for (int i = 0; i < C / 16; ++i) {
#pragma unroll
    for (int j = 0; j < i; ++j) {
      multiply_block<kGrade, C, false>(at, matrix, i, j, e[2 * j], e[2 * j + 1], n[2 * i],
                                       n[2 * i + 1]);
    }
    multiply_block<kGrade, C, true>(at, matrix, i, i, e[2 * i], e[2 * i + 1], n[2 * i],
                                    n[2 * i + 1]);
  }
}

/// E (16, C) from W = E L^T in its place, L (C, C) unit lower triangular: `matrix` holds -L, and in
/// the diagonal blocks their inverses.
template <Grade kGrade, int C>
__device__ inline void solve_triangle(const Place& at, const float* matrix, TileRow<C / 8>& w) {
#pragma unroll
  for (int i = 0; i < C / 16; ++i) {
#pragma unroll
    for (int j = 0; j < i; ++j) {
      multiply_block<kGrade, C, false>(at, matrix, i, j, w[2 * j], w[2 * j + 1], w[2 * i],
                                       w[2 * i + 1]);
    }
    float e0[4] = {}, e1[4] = {};
    multiply_block<kGrade, C, true>(at, matrix, i, i, w[2 * i], w[2 * i + 1], e0, e1);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      w[2 * i][c] = e0[c];
      w[2 * i + 1][c] = e1[c];
    }
  }
}

/// Block (i, j) of L R^T, rows L and R (C, D), in a thread's accumulators: words 4 t .. 4 t + 3 of
/// rows row() and 8 + row() of the block.
template <Grade kGrade, int D>
__device__ inline void gram_block(const Place& at, const Stored<kGrade>* left_rows,
                                  const Stored<kGrade>* right_rows, int i, int j,
                                  float (&block)[2][4]) {
  constexpr int kStride = kRowStride<kGrade, D>;
  float c[2][2][4] = {};  // two sums, for more products under way
  const auto* from_left = left_rows + (16 * i + at.row()) * kStride + 4 * at.t;
  const auto* from_right = right_rows + (16 * j + at.row()) * kStride + 4 * at.t;
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    const auto* from = from_left + 16 * m;
    const Left16<kGrade> x = prepared_left<kGrade>(quad_of(from), quad_of(from + 8 * kStride));
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const Right16<kGrade> y = right_at<kGrade>(from_right + 8 * u * kStride + 16 * m);
      multiply_add<kGrade>(c[0][u], x.halves[0], y.halves[0]);
      multiply_add<kGrade>(c[1][u], x.halves[1], y.halves[1]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // rows g and g + 8
#pragma unroll
    for (int u = 0; u < 2; ++u) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        block[half][2 * u + h] = c[0][u][2 * half + h] + c[1][u][2 * half + h];
      }
    }
  }
}

/// Puts the inverse of a unit lower triangular block in its place, which is in the order of
/// chunk_rows.cuh with rows kStride words apart; what stands on and above its diagonal is not read.
/// A column a thread (twice over, put once), by substitution in float32: no product of L with
/// itself, whose terms grow and cancel where keys are alike.
template <Grade kGrade, int kStride>
__device__ inline void invert_unit_block(float* block) {
  constexpr auto kToken = [](int word) {
    return 8 * (word / 2 % 2) + shuffled(2 * (word / 4) + word % 2);
  };
  const int word = static_cast<int>(threadIdx.x) % 16;
  const int column = 8 * (word / 2 % 2) + shuffled(2 * (word / 4) + word % 2);
  float x[16];
#pragma unroll
  for (int row = 0; row < 16; ++row) {
    float line[16];
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      const float4 y = *reinterpret_cast<const float4*>(block + row * kStride + 4 * quad);
      line[4 * quad] = y.x;
      line[4 * quad + 1] = y.y;
      line[4 * quad + 2] = y.z;
      line[4 * quad + 3] = y.w;
    }
    float sum[2] = {row == column ? 1.0F : 0.0F, 0.0F};
#pragma unroll
    for (int other = 0; other < row; ++other) {
#pragma unroll
      for (int w = 0; w < 16; ++w) {
        if (kToken(w) == other) sum[other % 2] = fmaf(-line[w], x[other], sum[other % 2]);
      }
    }
    x[row] = sum[0] + sum[1];
  }
  __syncwarp();
#pragma unroll
  for (int row = 0; row < 16; ++row) {
    if (threadIdx.x % 32 < 16) block[row * kStride + word] = prepared<kGrade>(x[row]);
  }
  __syncwarp();
}

}  // namespace vla_bench::mixers::cuda
