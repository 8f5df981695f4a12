// One token and head as a rule sees it on a GPU (features.h): D / 4 lanes of a warp work on a
// token, four channels each, so that a request of memory is as wide as one can be; at D = 256 a
// whole warp, eight channels each.
#pragma once

#include <cstdint>

#include "mixers/features.h"
#include "mixers/recurrence/chunk_rows.cuh"
#include "mixers/recurrence/lines.cuh"
#include "mixers/recurrence/rule_cuda.h"

namespace vla_bench::mixers::cuda {

/// Which token and channels the calling thread has: lane l channels s l to s l + s - 1. Channels
/// that do not exist (d of 8 in a kernel of 16) are read as 0, stay 0 and are not written. Lanes
/// beyond the last token read along with its own, since sums want whole warps, and write nothing.
template <int D>
class TokenLanes {
 public:
  static constexpr int kShare = D <= 128 ? 4 : D / 32;  // s
  static constexpr int kLanes = D / kShare;
  using Scalar = float;
  struct Channels {
    float values[kShare];
    __device__ float& operator[](int i) { return values[i]; }
    __device__ const float& operator[](int i) const { return values[i]; }
  };

  /// Lanes of a grid of one-dimensional blocks go through (B, T, H) in order. Their number fits 32
  /// bits as long as an array (B, T, H, 8) fits a GPU; a 64-bit division costs more than the rest.
  __device__ explicit TokenLanes(const HeadDims& dims) {
    const unsigned scalars = static_cast<unsigned>(dims.batch * dims.tokens * dims.heads);
    const unsigned group = (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
    const unsigned scalar = min(group, scalars - 1);
    const unsigned row = scalar / static_cast<unsigned>(dims.heads);
    const auto tokens = static_cast<unsigned>(dims.tokens);
    valid_ = group < scalars;
    channel_ = static_cast<int>(threadIdx.x % kLanes) * kShare;
    exists_ = channel_ < static_cast<int>(dims.d_h);
    batch_ = row / tokens;
    token_ = row % tokens;
    head_ = scalar % static_cast<unsigned>(dims.heads);
    scalar_ = scalar;
  }

  __device__ int head() const { return static_cast<int>(head_); }
  __device__ bool is_first() const { return token_ == 0; }
  /// Whether this lane writes what a token has one of.
  __device__ bool writes_scalars() const { return valid_ && channel_ == 0; }
  /// Of a (B, T, H) array.
  __device__ Index scalar() const { return scalar_; }

  template <class F>
  __device__ void each(const F& f) const {
    if (!exists_) return;
#pragma unroll
    for (int i = 0; i < kShare; ++i) f(i);
  }
  __device__ float dot(const Channels& x, const Channels& y) const {
    return group_sum<kLanes>(partial_dot(x.values, y.values));
  }
  __device__ float exp(float x) const { return expf(x); }
  __device__ float sqrt(float x) const { return sqrtf(x); }
  __device__ float log1p(float x) const { return log1pf(x); }
  __device__ float log(float x) const { return logf(x); }

  template <class T>
  __device__ T* of(const TokenView<T>& view) const {
    return view.data + batch_ * view.batch + token_ * view.token + head_ * view.head;
  }
  /// Group `group` of the head's `groups`, side by side.
  template <class T>
  __device__ TokenView<T> group_of(TokenView<T> view, int group, int groups) const {
    view.data += group * view.head;
    view.head *= groups;
    return view;
  }
  __device__ Channels load(const TokenView<const float>& view) const {
    Channels x = {};
    if (!exists_) return x;
    const float* from = of(view) + channel_;
    if (is_whole_quad(from)) {
#pragma unroll
      for (int i = 0; i < kShare; i += 4) {
        const float4 quad = *reinterpret_cast<const float4*>(from + i);
        x[i] = quad.x;
        x[i + 1] = quad.y;
        x[i + 2] = quad.z;
        x[i + 3] = quad.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kShare; ++i) x[i] = from[i];
    }
    return x;
  }
  /// bfloat16 rows are aligned, and of chunks (chunk_choice.h), with four channels a lane.
  __device__ Channels load(const TokenView<const Bfloat16>& view) const {
    static_assert(kShare == 4);
    if (!exists_) return {};
    const float4 x = quad_of(of(view) + channel_);
    return {{x.x, x.y, x.z, x.w}};
  }
  __device__ void store(const Channels& x, const TokenView<Bfloat16>& view) const {
    static_assert(kShare == 4);
    if (!valid_ || !exists_ || view.data == nullptr) return;
    using ops::cuda::pack_bf16;
    *reinterpret_cast<uint2*>(of(view) + channel_) =
        make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
  }
  __device__ void store(const Channels& x, const TokenView<float>& view) const {
    if (!valid_ || !exists_ || view.data == nullptr) return;
    float* to = of(view) + channel_;
    if (is_whole_quad(to)) {
#pragma unroll
      for (int i = 0; i < kShare; i += 4) {
        *reinterpret_cast<float4*>(to + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kShare; ++i) to[i] = x[i];
    }
  }
  __device__ void store(float x, const TokenView<float>& view) const {
    if (writes_scalars() && view.data != nullptr) *of(view) = x;
  }

 private:
  __device__ static bool is_whole_quad(const float* at) {
    return reinterpret_cast<std::uintptr_t>(at) % sizeof(float4) == 0;
  }

  bool valid_, exists_;
  int channel_;
  unsigned batch_, token_, head_, scalar_;
};

inline constexpr int kTokenThreads = 128;  // of a block
template <int D>
unsigned token_blocks(const HeadDims& dims) {
  constexpr Index kTokensOfBlock = kTokenThreads / TokenLanes<D>::kLanes;
  return static_cast<unsigned>((dims.rows() * dims.heads + kTokensOfBlock - 1) / kTokensOfBlock);
}

/// As bind sees it.
template <int D, class T>
class BindToken : public TokenLanes<D> {
 public:
  using typename TokenLanes<D>::Channels;

  __device__ explicit BindToken(const BindViews<T>& views)
      : TokenLanes<D>(views.dims), views_(views) {}

  __device__ Channels q() const { return this->load(views_.q); }
  __device__ Channels k() const { return this->load(views_.k); }
  __device__ Channels more(int i) const {
    if constexpr (std::is_same_v<T, float>) {
      return this->load(views_.more[i]);
    } else {
      return this->load(views_.more_vectors[i]);
    }
  }
  __device__ float more_scalar(int i) const { return *this->of(views_.more[i]); }
  __device__ float parameter(int i) const { return views_.parameters[i][this->head()]; }
  __device__ Channels parameter_channels(int i) const {
    return this->load(TokenView<const float>(views_.parameters[i], 0, 0, views_.dims.d_h));
  }
  __device__ Channels own() const { return this->load(views_.own); }

  __device__ void put_r(const Channels& x) const {
    this->store(x, views_.row_r);
    if constexpr (!std::is_same_v<T, float>) this->store(x, views_.chain_r);
  }
  __device__ void put_a(const Channels& x) const { this->store(x, views_.row_a); }
  __device__ void put_q(const Channels& x) const {
    this->store(x, views_.row_q);
    if constexpr (!std::is_same_v<T, float>) this->store(x, views_.chain_q);
  }
  __device__ void put_f(const Channels& x) const { this->store(x, views_.row_f); }
  __device__ void put_own(const Channels& x) const { this->store(x, views_.row_own); }
  __device__ void put_decay(const Channels& x) const { this->store(x, views_.row_decay); }
  __device__ void put_decay(float x) const { this->store(x, views_.row_decay); }

 private:
  const BindViews<T>& views_;
};

/// As unbind sees it.
template <int D>
class CudaToken : public BindToken<D, float> {
 public:
  using typename TokenLanes<D>::Channels;

  __device__ explicit CudaToken(const RuleViews& views)
      : BindToken<D, float>(views), views_(views) {}

  __device__ Channels dr() const { return sum(views_.dr, views_.groups); }
  __device__ Channels da() const { return sum(views_.da, views_.groups); }
  __device__ Channels dq() const { return sum(views_.dq, views_.groups); }
  __device__ Channels df() const { return sum(views_.df, views_.groups); }
  __device__ Channels down() const { return sum(views_.down, 1); }
  __device__ Channels ddecay() const { return sum(views_.ddecay, views_.groups); }
  __device__ float ddecay_scalar() const {
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < SumOfViews::kMostParts; ++i) {
      const TokenView<const float>& part = views_.ddecay.parts[i];
      if (part.data == nullptr) continue;
      for (int group = 0; group < views_.groups; ++group) {
        total += *this->of(this->group_of(part, group, views_.groups));
      }
    }
    return total;
  }

  __device__ Channels own_before() const {
    TokenView<const float> before = views_.own;
    before.data -= before.token;
    return this->is_first() ? Channels{} : this->load(before);
  }

  __device__ void put_dq(const Channels& x) const { this->store(x, views_.raw_dq); }
  __device__ void put_dk(const Channels& x) const { this->store(x, views_.raw_dk); }
  __device__ void put_dmore(int i, const Channels& x) const { this->store(x, views_.raw_dmore[i]); }
  __device__ void put_dmore(int i, float x) const { this->store(x, views_.raw_dmore[i]); }
  __device__ void put_dparameter(int i, float x) const { this->store(x, views_.dparameters[i]); }
  __device__ void put_dparameter(int i, const Channels& x) const {
    this->store(x, views_.dparameters[i]);
  }

 private:
  __device__ Channels sum(const SumOfViews& views, int groups) const {
    Channels total = {};
#pragma unroll
    for (int n = 0; n < SumOfViews::kMostParts; ++n) {
      const TokenView<const float>& part = views.parts[n];
      if (part.data == nullptr) continue;
      for (int group = 0; group < groups; ++group) {
        const Channels addend = this->load(this->group_of(part, group, groups));
#pragma unroll
        for (int i = 0; i < TokenLanes<D>::kShare; ++i) total[i] += addend[i];
      }
    }
    return total;
  }

  const RuleViews& views_;
};

}  // namespace vla_bench::mixers::cuda
