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

/// A tile as the left operand, columns times x0 and x1.
template <Grade kGrade>
__device__ inline Left<kGrade> left_of(const float (&c)[4], float x0 = 1.0F, float x1 = 1.0F) {
  return left<kGrade>(x0 * c[0], x0 * c[2], x1 * c[1], x1 * c[3]);
}

// Numbers in shared memory are rounded once, when they arrive, where the grade is TF32; four and
// more warps read them after that.

/// What is put into shared memory for x.
template <Grade kGrade>
__device__ inline float prepared(float x) {
  if constexpr (kGrade == Grade::tf32) return __uint_as_float(ops::cuda::round_to_tf32(x));
  return x;
}
/// Operands of prepared numbers.
template <Grade kGrade>
__device__ inline Left<kGrade> prepared_left(float a0, float a1, float a2, float a3) {
  if constexpr (kGrade == Grade::float32) return left<kGrade>(a0, a1, a2, a3);
  return {
      .high = {__float_as_uint(a0), __float_as_uint(a1), __float_as_uint(a2), __float_as_uint(a3)},
      .low = {}};
}
template <Grade kGrade>
__device__ inline Right<kGrade> prepared_right(float b0, float b1) {
  if constexpr (kGrade == Grade::float32) return right<kGrade>(b0, b1);
  return {.high = {__float_as_uint(b0), __float_as_uint(b1)}, .low = {}};
}

/// Four neighbouring channels of a row that is multiplied with S: the two of an even tile, then the
/// two of an odd one. Where rows are prepared anyway they stand in this order, which leaves each
/// operand in a pair of registers as it is loaded.
template <Grade kGrade>
__device__ inline float4 prepared_quad(const float4& x) {
  if constexpr (kGrade == Grade::float32) return x;
  return make_float4(prepared<kGrade>(x.x), prepared<kGrade>(x.z), prepared<kGrade>(x.y),
                     prepared<kGrade>(x.w));
}
/// The place of channel 0 .. 3 of such a quad.
template <Grade kGrade>
__device__ constexpr int place_in_quad(int channel) {
  return kGrade == Grade::tf32 && (channel == 1 || channel == 2) ? 3 - channel : channel;
}
template <Grade kGrade>
__device__ inline float4 by_tiles(const float4& x) {
  if constexpr (kGrade == Grade::tf32) return x;
  return make_float4(x.x, x.z, x.y, x.w);
}

/// Products (16, C) += S (16, D) M^T of rows M (C, D), tokens by channels, kRows of them.
template <Grade kGrade, int D, int C, int kRows>
__device__ inline void read_state(const Place& at, const TileRow<D / 8>& s,
                                  const float* const (&rows)[kRows],
                                  TileRow<C / 8> (&products)[kRows]) {
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    const Left<kGrade> even = left_of<kGrade>(s[2 * m]);
    const Left<kGrade> odd = left_of<kGrade>(s[2 * m + 1]);
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* from = rows[r] + (8 * b + at.row()) * kRowWords<D> + 16 * m + 4 * at.t;
        const float4 x = by_tiles<kGrade>(*reinterpret_cast<const float4*>(from));
        multiply_add<kGrade>(products[r][b], even, prepared_right<kGrade>(x.x, x.y));
        multiply_add<kGrade>(products[r][b], odd, prepared_right<kGrade>(x.z, x.w));
      }
    }
  }
}

/// S (16, D) = decay S + E (16, C) M, rows M (C, D); each token of E times its number in `factors`,
/// if any. The product is added to S in float32: tensor cores cut their sums off instead of
/// rounding them, always towards 0, which over thousands of chunks would add up.
template <Grade kGrade, int D, int C>
__device__ inline void write_state(const Place& at, const TileRow<C / 8>& e, const float* rows,
                                   const float* factors, float decay, TileRow<D / 8>& s) {
  Left<kGrade> x[C / 8];
#pragma unroll
  for (int b = 0; b < C / 8; ++b) {
    const int token = 8 * b;
    x[b] = factors == nullptr
               ? left_of<kGrade>(e[b])
               : left_of<kGrade>(e[b], factors[token + at.token(0)], factors[token + at.token(1)]);
  }
  const float* from0 = rows + at.token(0) * kRowWords<D> + 2 * at.g;
  const float* from1 = rows + at.token(1) * kRowWords<D> + 2 * at.g;
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    float product[2][4] = {};
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
      const int offset = 8 * b * kRowWords<D> + 16 * m;
      const float2 y0 = *reinterpret_cast<const float2*>(from0 + offset);
      const float2 y1 = *reinterpret_cast<const float2*>(from1 + offset);
      multiply_add<kGrade>(product[0], x[b], prepared_right<kGrade>(y0.x, y1.x));
      multiply_add<kGrade>(product[1], x[b], prepared_right<kGrade>(y0.y, y1.y));
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
  const Left<kGrade> x0 = left_of<kGrade>(e0);
  const Left<kGrade> x1 = left_of<kGrade>(e1);
  const float* from = matrix + (16 * i + at.row()) * kRowWords<C> + 16 * j + 4 * at.t;
  const float4 y0 = *reinterpret_cast<const float4*>(from);
  const float4 y1 = *reinterpret_cast<const float4*>(from + 8 * kRowWords<C>);
  multiply_add<kGrade>(product0, x0, prepared_right<kGrade>(y0.x, y0.y));
  multiply_add<kGrade>(product1, x0, prepared_right<kGrade>(y1.x, y1.y));
  if constexpr (!kDiagonal) multiply_add<kGrade>(product0, x1, prepared_right<kGrade>(y0.z, y0.w));
  multiply_add<kGrade>(product1, x1, prepared_right<kGrade>(y1.z, y1.w));
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
__device__ inline void gram_block(const Place& at, const float* left_rows, const float* right_rows,
                                  int i, int j, float (&block)[2][4]) {
  float c[2][2][4] = {};  // two sums, for more products under way
  const int channel = 4 * at.t;
  const float* from_left = left_rows + (16 * i + at.row()) * kRowWords<D> + channel;
  const float* from_right = right_rows + (16 * j + at.row()) * kRowWords<D> + channel;
#pragma unroll
  for (int m = 0; m < D / 16; ++m) {
    float4 x[2], y[2];
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int offset = 8 * u * kRowWords<D> + 16 * m;
      x[u] = by_tiles<kGrade>(*reinterpret_cast<const float4*>(from_left + offset));
      y[u] = *reinterpret_cast<const float4*>(from_right + offset);
    }
    const Left<kGrade> first = prepared_left<kGrade>(x[0].x, x[1].x, x[0].y, x[1].y);
    const Left<kGrade> second = prepared_left<kGrade>(x[0].z, x[1].z, x[0].w, x[1].w);
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      multiply_add<kGrade>(c[0][u], first, prepared_right<kGrade>(y[u].x, y[u].z));
      multiply_add<kGrade>(c[1][u], second, prepared_right<kGrade>(y[u].y, y[u].w));
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
