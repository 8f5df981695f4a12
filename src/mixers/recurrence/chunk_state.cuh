// What a chunk does with M, by warps that hold 16 rows of it each (steps 3 to 5, 8, 10 and 11 of
// chunked.h), and the kernel of a pass.
#pragma once

#include "core/cuda/check.h"
#include "mixers/recurrence/chunk_gram.cuh"
#include "mixers/recurrence/chunk_row_decays.cuh"
#include "mixers/recurrence/chunk_state_memory.cuh"

namespace vla_bench::mixers::cuda {

/// Tiles (16, C) of a warp's rows of v or w, each token times its number in `factors`, if any.
template <class Rule>
__device__ inline void take_rows(const Place& at, int first_row, const typename Rule::T* rows,
                                 const float* factors, TileRow<Rule::C / 8>& x) {
#pragma unroll
  for (int b = 0; b < Rule::C / 8; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = 8 * b + at.token(h);
      const float factor = factors == nullptr ? 1.0F : factors[token];
      const float2 pair =
          pair_of(rows + token * kRowStride<Rule::kGrade, Rule::D> + first_row + 2 * at.g);
      x[b][h] = factor * pair.x;
      x[b][2 + h] = factor * pair.y;
    }
  }
}
template <class Rule>
__device__ inline void scale_tokens(const Place& at, const float* factors,
                                    TileRow<Rule::C / 8>& x) {
#pragma unroll
  for (int b = 0; b < Rule::C / 8; ++b) {
#pragma unroll
    for (int c = 0; c < 4; ++c) x[b][c] *= factors[8 * b + at.token(c % 2)];
  }
}
template <int kTiles>
__device__ inline void negate(const TileRow<kTiles>& from, TileRow<kTiles>& to) {
#pragma unroll
  for (int b = 0; b < kTiles; ++b) {
#pragma unroll
    for (int c = 0; c < 4; ++c) to[b][c] = -from[b][c];
  }
}

__device__ inline void put_pair(float* to, bool wide, float x, float y) {
  if (wide) {
    *reinterpret_cast<float2*>(to) = make_float2(x, y);
  } else {
    to[0] = x;
    to[1] = y;
  }
}
__device__ inline void put_pair(Bfloat16* to, bool /*wide*/, float x, float y) {
  *reinterpret_cast<std::uint32_t*>(to) = ops::cuda::pack_bf16(x, y);
}

/// What a chunk's rows become outside: `count` tokens to `target`.
template <class Rule>
__device__ inline void put_rows(const Place& at, const Segment<Rule>& segment, int chunk,
                                int first_row, const TileRow<Rule::C / 8>& x,
                                const TokenArray<typename Rule::T>& target) {
  constexpr int kStep = Rule::kInTime ? 8 : -8;
  const Index stride = target.view.token;
  const int row = first_row + 2 * at.g;
  const int count = segment.tokens_of(chunk);
  auto* to = target.view.lane(segment.batch, segment.head) + segment.first_of(chunk) * stride + row;
  const int first[2] = {Rule::place(at.token(0)), Rule::place(at.token(1))};
  typename Rule::T* token[2] = {to + first[0] * stride, to + first[1] * stride};
#pragma unroll
  for (int b = 0; b < Rule::C / 8; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (first[h] + kStep * b < count && row < target.width) {
        put_pair(token[h], target.wide, x[b][h], x[b][2 + h]);
      }
      token[h] += kStep * stride;
    }
  }
}

/// 6: c_t of a token; `denominator` takes what it is 1 over.
template <class Rule>
__device__ inline float scale_of(const typename Rule::Args& args, const typename Rule::Rows& rows,
                                 const typename Rule::Products& products, int token,
                                 float* denominator) {
  if constexpr (Rule::kNormalises) {
    float along = products.sums.along[token];
#pragma unroll
    for (int j = 0; j < Rule::C / 16; ++j) {
      if (j <= token / 16) along += products.sums.inside[j][token];
    }
    if (denominator != nullptr) *denominator = along;
    return __fdividef(1.0F, at_least(along, args.floor));
  }
  return rows.scale[token];
}

/// n (16, C) times c of every token; the first of a segment's warps writes the denominators.
template <class Rule>
__device__ inline void scale_output(const Place& at, const typename Rule::Args& args,
                                    const Segment<Rule>& segment, int chunk, int first_row,
                                    const typename Rule::Rows& rows,
                                    const typename Rule::Products& products,
                                    TileRow<Rule::C / 8>& n) {
#pragma unroll
  for (int b = 0; b < Rule::C / 8; ++b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = 8 * b + at.token(h);
      float* denominator = nullptr;
      if (Rule::kNormalises && first_row == 0 && at.g == 0 && token < segment.tokens_of(chunk)) {
        const Index row =
            static_cast<Index>(segment.batch) * args.tokens + segment.first_of(chunk) + token;
        denominator = args.denominator + row * args.heads + segment.head;
      }
      const float scale = scale_of<Rule>(args, rows, products, token, denominator);
      n[b][h] *= scale;
      n[b][2 + h] *= scale;
    }
  }
}

/// A warp's rows of M, or of Phi.
template <class Rule>
struct StateRows {
  static constexpr int D = Rule::D;
  static constexpr int C = Rule::C;
  static constexpr Grade kGrade = Rule::kGrade;
  using Rows = typename Rule::Rows;
  using Products = typename Rule::Products;
  using Tiles = float[C / 8][4];

  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first_row = warp % (D / 16) * 16;
  float s[D / 8][4];

  __device__ bool is_map() const {
    return Rule::kHasMap && (Rule::kMapWarps > 0 ? warp >= D / 16 : blockIdx.y == 1);
  }
  __device__ void start(const Place& at, const typename Rule::Args& args,
                        const Segment<Rule>& segment) {
    const float* from = args.states + (segment.slot(args) - 1) * Rule::kSlot;
    if (is_map()) {
      set_identity<D>(at, first_row, s);
    } else if (Rule::kPuts && segment.index > 0) {
      if (args.transposed) {
        load_transposed<D>(at, from, first_row, s);
      } else {
        load_state<D>(at, from, first_row, s);
      }
    } else {
#pragma unroll
      for (int tile = 0; tile < D / 8; ++tile) {
#pragma unroll
        for (int c = 0; c < 4; ++c) s[tile][c] = 0.0F;
      }
    }
  }
  __device__ void put(const Place& at, const typename Rule::Args& args,
                      const Segment<Rule>& segment) const {
    float* to = is_map() ? args.maps + segment.slot(args) * D * D
                         : args.states + segment.slot(args) * Rule::kSlot;
    store_state<D>(at, to, first_row, s);
  }

  __device__ void run(const Place& at, const typename Rule::Args& args,
                      const Segment<Rule>& segment, int chunk, const Rows& rows,
                      const Products& products) {
    constexpr bool kMayKeep = (Rule::kDecays || Rule::kRowsDecay) && Rule::kPuts;
    const bool keeps = kMayKeep && segment.first_of(chunk) % kChunkTokens == 0;
    if constexpr (kMayKeep && Rule::kInTime) {
      if (keeps && args.chunk_states != nullptr) {
        float* to = args.chunk_states + segment.chunk_slot(args, chunk) * D * D;
        store_state<D>(at, to, first_row, s);
      }
    }
    if constexpr (Rule::kRowsDecay) {
      run_decaying_rows(at, args, segment, chunk, rows, products);
    } else if constexpr (Rule::kInTime && Rule::kPuts) {
      run_in_time(at, args, segment, chunk, rows, products);
    } else if constexpr (Rule::kInTime) {
      run_element(at, rows, products);
    } else {
      run_against_time(at, args, segment, chunk, rows, products);
    }
    if constexpr (kMayKeep && !Rule::kInTime) {
      if (keeps && args.chunk_products != nullptr) put_products(at, args, segment, chunk);
    }
  }

 private:
  __device__ void put_products(const Place& at, const typename Rule::Args& args,
                               const Segment<Rule>& segment, int chunk) const {
    const Index slot = segment.chunk_slot(args, chunk);
    float2 product = row_products<D>(at, args.chunk_states + slot * D * D, first_row, s);
    if constexpr (Rule::kRowsDecay) {
      product = make_float2(group_sum<4>(product.x), group_sum<4>(product.y));
      float* to = args.chunk_products + slot * D + first_row + 2 * at.g;
      if (at.t == 0) *reinterpret_cast<float2*>(to) = product;
    } else {
      const float sum = group_sum<kWarp>(product.x + product.y);
      if (threadIdx.x % kWarp == 0) args.chunk_products[slot * (D / 16) + warp] = sum;
    }
  }
  /// 3 to 5; dq and dr of 10.
  __device__ void run_in_time(const Place& at, const typename Rule::Args& args,
                              const Segment<Rule>& segment, int chunk, const Rows& rows,
                              const Products& products) {
    Tiles n[Rule::kHasR ? 2 : 1] = {};  // M q, M r
    if constexpr (Rule::kHasR) {
      const typename Rule::T* const read[2] = {rows.q, rows.r};
      read_state<kGrade, D, C>(at, s, read, n);
    } else {
      const typename Rule::T* const read[1] = {rows.q};
      read_state<kGrade, D, C>(at, s, read, n);
    }
    Tiles x;
    take_rows<Rule>(at, first_row, rows.v, nullptr, x);
    if constexpr (Rule::kSolves) {
      solve(at, products, n[1], x);
    } else if constexpr (Rule::kHasR) {
      negate_read(at, products, n[1]);
      multiply_triangle<kGrade, C>(at, products.x, x, n[1]);
    }
    if constexpr (Rule::kDecays) scale_tokens<Rule>(at, products.decays.through, n[0]);
    multiply_triangle<kGrade, C>(at, products.p, x, n[0]);
    scale_output<Rule>(at, args, segment, chunk, first_row, rows, products, n[0]);
    put_rows<Rule>(at, segment, chunk, first_row, n[0], args.o);
    if constexpr (Rule::kHasR && !Rule::kSolves) {
      put_rows<Rule>(at, segment, chunk, first_row, n[1], args.e);
    } else if (args.e.view.data != nullptr) {
      put_rows<Rule>(at, segment, chunk, first_row, x, args.e);
    }
    if constexpr (Rule::kChannelsDecay) decay_channels<D>(at, products.left, s);
    write_state<kGrade, D, C>(at, x, rows.a, after(products), whole(products), s);
  }

  /// 10, rows of M being key channels that decay apart.
  __device__ void run_decaying_rows(const Place& at, const typename Rule::Args& args,
                                    const Segment<Rule>& segment, int chunk, const Rows& rows,
                                    const Products& products) {
    Tiles n[Rule::kInTime && Rule::kHasR ? 2 : 1] = {};
    if constexpr (!Rule::kInTime) {
      const typename Rule::T* const read[1] = {rows.a};
      read_state<kGrade, D, C>(at, s, read, n);
    } else if constexpr (Rule::kHasR) {
      const typename Rule::T* const read[2] = {rows.q, rows.r};
      read_state<kGrade, D, C>(at, s, read, n);
    } else {
      const typename Rule::T* const read[1] = {rows.q};
      read_state<kGrade, D, C>(at, s, read, n);
    }
    Tiles x, w;
    take_rows<Rule>(at, first_row, rows.v, Rule::kInTime ? nullptr : rows.scale, x);
    if constexpr (Rule::kHasW) take_rows<Rule>(at, first_row, rows.w, nullptr, w);
    const RowDecays<Rule> decays(at, first_row, rows);
    decays.read(rows, products, x, n);
    decays.decay_writes(x, w);
    decays.decay_state(s);
    if constexpr (Rule::kInTime) {
      scale_output<Rule>(at, args, segment, chunk, first_row, rows, products, n[0]);
      if constexpr (Rule::kHasR) put_rows<Rule>(at, segment, chunk, first_row, n[1], args.e);
      write_state<kGrade, D, C>(at, x, rows.a, nullptr, 1.0F, s);
    } else {
      write_state<kGrade, D, C>(at, x, rows.q, nullptr, 1.0F, s);
      if constexpr (Rule::kHasW) write_state<kGrade, D, C>(at, w, rows.r, nullptr, 1.0F, s);
    }
    put_rows<Rule>(at, segment, chunk, first_row, n[0], args.o);
  }

  /// 14: S_local or Phi.
  __device__ void run_element(const Place& at, const Rows& rows, const Products& products) {
    Tiles x = {};
    if (!is_map()) take_rows<Rule>(at, first_row, rows.v, nullptr, x);
    if constexpr (Rule::kSolves) {
      Tiles n[1] = {};
      const typename Rule::T* const read[1] = {rows.r};
      read_state<kGrade, D, C>(at, s, read, n);
      solve(at, products, n[0], x);
    }
    if constexpr (Rule::kChannelsDecay) decay_channels<D>(at, products.left, s);
    write_state<kGrade, D, C>(at, x, rows.a, after(products), whole(products), s);
  }

  /// 8 and 11; with columns in the place of rows, da of 10; without outputs D_local or Phi^T of 15.
  __device__ void run_against_time(const Place& at, const typename Rule::Args& args,
                                   const Segment<Rule>& segment, int chunk, const Rows& rows,
                                   const Products& products) {
    Tiles n[1] = {};
    if constexpr (Rule::kHasA) {
      const typename Rule::T* const read[1] = {rows.a};
      read_state<kGrade, D, C>(at, s, read, n);
      if constexpr (Rule::kDecays) scale_tokens<Rule>(at, products.decays.before, n[0]);
    }
    if constexpr (Rule::kChannelsDecay) decay_channels<D>(at, products.left, s);
    float decay = whole(products);
    if (!is_map()) {
      Tiles x;
      take_rows<Rule>(at, first_row, rows.v, rows.scale, x);
      if constexpr (Rule::kHasP) multiply_triangle<kGrade, C>(at, products.p, x, n[0]);
      write_state<kGrade, D, C>(at, x, rows.q, through(products), decay, s);
      decay = 1.0F;
    }
    Tiles w;  // what is written along r
    if constexpr (Rule::kHasW) {
      take_rows<Rule>(at, first_row, rows.w, nullptr, w);
      multiply_triangle<kGrade, C>(at, products.x, w, n[0]);
    }
    if constexpr (Rule::kSolves) solve_triangle<kGrade, C>(at, products.x, n[0]);
    if constexpr (Rule::kPuts) put_rows<Rule>(at, segment, chunk, first_row, n[0], args.o);
    if constexpr (Rule::kHasR) {
      negate(Rule::kHasW ? w : n[0], w);
      write_state<kGrade, D, C>(at, w, rows.r, after(products), decay, s);
    }
  }

  /// 3: e, which holds v, from M r.
  __device__ static void solve(const Place& at, const Products& products, Tiles& read, Tiles& e) {
    negate_read(at, products, read);
#pragma unroll
    for (int b = 0; b < C / 8; ++b) {
#pragma unroll
      for (int c = 0; c < 4; ++c) e[b][c] += read[b][c];
    }
    solve_triangle<kGrade, C>(at, products.x, e);
  }
  __device__ static void negate_read(const Place& at, const Products& products, Tiles& read) {
    if constexpr (Rule::kDecays) scale_tokens<Rule>(at, products.decays.before, read);
    negate(read, read);
  }
  __device__ static const float* through(const Products& products) {
    if constexpr (Rule::kDecays) return products.decays.through;
    return nullptr;
  }
  __device__ static const float* after(const Products& products) {
    if constexpr (Rule::kDecays) return products.decays.after;
    return nullptr;
  }
  __device__ static float whole(const Products& products) {
    if constexpr (Rule::kDecays) return products.decays.whole;
    return 1.0F;
  }
};

/// z before a segment's first chunk.
template <class Rule>
__device__ inline void start_sums(const typename Rule::Args& args, const Segment<Rule>& segment,
                                  typename Rule::Sums& sums) {
  for (int j = static_cast<int>(threadIdx.x); j < Rule::D; j += Rule::kThreads) {
    const bool starts = !Rule::kPuts || segment.index == 0;
    const float* from = args.states + (segment.slot(args) - 1) * Rule::kSlot + Rule::D * Rule::D;
    sums.z[j] = starts ? 0.0F : from[j];
  }
}

/// The chunks of a segment: an element's, or the forward.
template <class Rule>
__global__ void __launch_bounds__(Rule::kThreads, Rule::kBlocks)
    chunked_kernel(const typename Rule::Args args) {
  using Shared = typename Rule::Shared;
  constexpr int kBuffers = Rule::kBuffers;
  extern __shared__ float4 memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);

  const Segment<Rule> segment(args);
  const Place at;
  const bool has_state = threadIdx.x < Rule::kStateWarps * kWarp;
  StateRows<Rule> state;
  float factor = 1.0F;  // the product of the decays so far, of the thread's channel
  if constexpr (Rule::kChannelsDecay) {
    if (threadIdx.x == 0) shared.gram_barrier.start(Rule::kLoadThreads);
  }
  if (has_state) state.start(at, args, segment);
  if constexpr (Rule::kNormalises) start_sums<Rule>(args, segment, shared.products[0].sums);
  for (int chunk = 0; chunk < kBuffers - 1; ++chunk) {
    load_chunk<Rule>(args, segment, chunk, shared.rows[chunk]);
    close_group();
  }
  // The state's warps are a chunk behind.
#pragma unroll 1
  for (int chunk = -1; chunk < segment.chunks; ++chunk) {
    wait_for_groups<kBuffers - 3>();
    if (chunk + 1 < segment.chunks) {
      prepare_operands<Rule>(args, shared.rows[(chunk + 1) % kBuffers]);
    }
    __syncthreads();
    if (chunk >= 0) {
      const int ahead = chunk + kBuffers - 1;
      load_chunk<Rule>(args, segment, ahead, shared.rows[ahead % kBuffers]);
    }
    close_group();
    if (has_state && chunk >= 0) {
      const auto& products = shared.products[chunk % 2];
      state.run(at, args, segment, chunk, shared.rows[chunk % kBuffers], products);
      if constexpr (Rule::kDecays && !Rule::kPuts) factor *= products.decays.whole;
      if constexpr (Rule::kChannelsDecay && !Rule::kPuts) {
        if (threadIdx.x < Rule::D) factor *= products.left[threadIdx.x];
      }
    } else if (!has_state && chunk + 1 < segment.chunks) {
      prepare_chunk<Rule>(shared.rows[(chunk + 1) % kBuffers], segment.tokens_of(chunk + 1),
                          shared.products[(chunk + 1) & 1], shared.products[chunk & 1], shared);
    }
  }
  if constexpr (!Rule::kPuts) {
    if (has_state) state.put(at, args, segment);
    if (threadIdx.x < Rule::D && blockIdx.y == 0) {
      args.factors[segment.slot(args) * Rule::D + threadIdx.x] = factor;
    }
    if constexpr (Rule::kNormalises) {
      __syncthreads();
      float* to = args.states + segment.slot(args) * Rule::kSlot + Rule::D * Rule::D;
      for (int j = static_cast<int>(threadIdx.x); j < Rule::D; j += Rule::kThreads) {
        to[j] = shared.products[segment.chunks % 2].sums.z[j];
      }
    }
  }
}

template <class Rule>
void launch_chunks(cudaStream_t stream, const typename Rule::Args& args, Index lanes) {
  const auto segments = static_cast<Index>(Rule::kPuts ? args.segments : args.segments - 1);
  const unsigned maps = Rule::kHasMap && Rule::kMapWarps == 0 ? 2 : 1;
  constexpr int kBytes = sizeof(typename Rule::Shared);
  static_assert(Rule::kBlocks * (kBytes + 1024) <= 228 * 1024);
  const auto kernel = chunked_kernel<Rule>;
  VLA_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const dim3 grid(static_cast<unsigned>(lanes * segments), maps);
  kernel<<<grid, Rule::kThreads, kBytes, stream>>>(args);
  VLA_CUDA_LAUNCHED("chunked_kernel");
}

/// Calls body(grade, kind of decay) with compile-time constants; T says how vectors are stored,
/// kDecays which kinds there are.
template <class T, Decay... kDecays, class Body>
void with_chunks(const ChunkedPass& pass, const Body& body) {
  const auto with_decays = [&](auto grade) {
    const auto run_if = [&](auto decay) {
      if (pass.decay == decay) body(grade, decay);
    };
    (run_if(std::integral_constant<Decay, kDecays>()), ...);
  };
  if constexpr (std::is_same_v<T, Bfloat16>) {
    with_decays(std::integral_constant<Grade, Grade::bf16>());
  } else if (pass.grade == Grade::tf32) {
    with_decays(std::integral_constant<Grade, Grade::tf32>());
  } else {
    with_decays(std::integral_constant<Grade, Grade::float32>());
  }
}

}  // namespace vla_bench::mixers::cuda
