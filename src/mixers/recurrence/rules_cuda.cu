// Every rule of the list (mixers/list.h) on a GPU.
#include "core/cuda/check.h"
#include "mixers/recurrence/cuda_token.cuh"

namespace vla_bench::mixers::cuda {
namespace {

template <int D, class T, class Rule>
__global__ void __launch_bounds__(kTokenThreads)
    bind_kernel(const Rule rule, const BindViews<T> views) {
  rule.bind(BindToken<D, T>(views));
}

template <int D, class Rule>
__global__ void __launch_bounds__(kTokenThreads)
    unbind_kernel(const Rule rule, const RuleViews views) {
  rule.unbind(CudaToken<D>(views));
}

template <int D, class Rule>
__global__ void __launch_bounds__(kTokenThreads)
    bind_term_kernel(const Rule rule, const RuleViews views, const TokenView<float> factor) {
  const CudaToken<D> token(views);
  token.store(rule.bind_term(token), factor);
}

template <int D, class Rule>
__global__ void __launch_bounds__(kTokenThreads)
    unbind_sum_kernel(const Rule rule, const RuleViews views, const TokenView<float> direct) {
  const CudaToken<D> token(views);
  token.store(rule.unbind_sum(token), direct);
}

/// Sums of a lane that run over its tokens, in place: in time p_t = g_t p_{t-1} + x_t, against time
/// the adjoint p_t = x_t + g_{t+1} p_{t+1}. x and p are dense (B, T, H, d), g (B, T, H).
struct RunningSum {
  int tokens, heads, channels;
  bool against_time;
  const float* factor;
  float* sum;
};
constexpr int kSumThreads = 512;  // a segment of the tokens each D of them, a channel each
constexpr int kSumAhead = 8;      // tokens that are loaded before they are added up

/// A block a lane: every segment's own sum and the product of its g, then the sums from what the
/// segments before leave.
template <int D>
__global__ void __launch_bounds__(kSumThreads) running_sum_kernel(const RunningSum args) {
  constexpr int kSegments = kSumThreads / D;
  __shared__ float sums[kSegments][D];
  __shared__ float products[kSegments];
  const int batch = static_cast<int>(blockIdx.x) / args.heads;
  const int head = static_cast<int>(blockIdx.x) % args.heads;
  const int channel = static_cast<int>(threadIdx.x) % D;
  const int segment = static_cast<int>(threadIdx.x) / D;
  const bool exists = channel < args.channels;
  const int length = (args.tokens + kSegments - 1) / kSegments;
  const int first = min(segment * length, args.tokens);
  const int count = min(length, args.tokens - first);

  float product = 1.0F;
  // Starts from `carry`, what the tokens visited before leave.
  const auto walk = [&](float carry, bool writes) {
    for (int done = 0; done < count; done += kSumAhead) {
      float x[kSumAhead], g[kSumAhead];
      Index at[kSumAhead];
      const int ahead = min(kSumAhead, count - done);
#pragma unroll
      for (int i = 0; i < kSumAhead; ++i) {
        const int visited = first + done + min(i, ahead - 1);
        const int token = args.against_time ? args.tokens - 1 - visited : visited;
        const Index scalar = (static_cast<Index>(batch) * args.tokens + token) * args.heads + head;
        at[i] = scalar * args.channels + channel;
        g[i] = args.factor[scalar];
        x[i] = exists ? args.sum[at[i]] : 0.0F;
      }
#pragma unroll
      for (int i = 0; i < kSumAhead; ++i) {
        if (i >= ahead) continue;
        product *= g[i];
        const float p = args.against_time ? x[i] + carry : fmaf(g[i], carry, x[i]);
        carry = args.against_time ? g[i] * p : p;
        if (writes && exists) args.sum[at[i]] = p;
      }
    }
    return carry;
  };
  sums[segment][channel] = walk(0.0F, false);
  if (channel == 0) products[segment] = product;
  __syncthreads();
  float entry = 0.0F;
  for (int before = 0; before < segment; ++before) {
    entry = fmaf(products[before], entry, sums[before][channel]);
  }
  walk(entry, true);
}

void running_sum(cudaStream_t stream, const HeadDims& dims, const RunningSum& args) {
  with_rule_head_size(dims.d_h, [&](auto d) {
    running_sum_kernel<d><<<static_cast<unsigned>(dims.lanes()), kSumThreads, 0, stream>>>(args);
  });
  VLA_CUDA_LAUNCHED("running_sum_kernel");
}

template <class Rule>
class TokenRule final : public CudaRule {
 public:
  explicit TokenRule(const Rule& rule) : rule_(rule), form_(rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  /// Of a running sum: p (B, T, H, d) and g (B, T, H).
  Index kept_size(const HeadDims& dims) const override {
    return HasRunningSum<Rule> ? dims.rows() * dims.heads * (dims.d_h + 1) : 0;
  }

  void bind(cudaStream_t stream, const RuleViews& views, const NormaliserForward& normaliser,
            float* kept, bool /*for_backward*/) override {
    RuleViews with_sum = views;
    if constexpr (HasRunningSum<Rule>) {
      with_sum.row_own = token_view(views.dims, kept, views.dims.d_h);
      with_sum.own = with_sum.row_own;
      const TokenView<float> factor = token_view(views.dims, factors(views.dims, kept), 1);
      with_rule_head_size(views.dims.d_h, [&](auto d) {
        bind_term_kernel<d>
            <<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, with_sum, factor);
      });
      VLA_CUDA_LAUNCHED("bind_term_kernel");
      sum(stream, views.dims, factor.data, kept, false);
    }
    launch_bind<float>(stream, with_sum);
    if (normaliser.denominator != nullptr) normaliser_forward(stream, normaliser);
  }
  void bind(cudaStream_t stream, const BindViews<Bfloat16>& views,
            const NormaliserForward& normaliser) override {
    launch_bind(stream, views);
    if (normaliser.denominator != nullptr) normaliser_forward(stream, normaliser);
  }
  void unbind(cudaStream_t stream, const RuleViews& views, const float* kept) override {
    RuleViews with_sum = views;
    if constexpr (HasRunningSum<Rule>) {
      with_sum.own = token_view(views.dims, kept, views.dims.d_h);
      down_.resize(Device::cuda, views.dims.rows() * views.dims.heads * views.dims.d_h);
      const TokenView<float> down = token_view(views.dims, down_.data(), views.dims.d_h);
      with_rule_head_size(views.dims.d_h, [&](auto d) {
        unbind_sum_kernel<d>
            <<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, with_sum, down);
      });
      VLA_CUDA_LAUNCHED("unbind_sum_kernel");
      sum(stream, views.dims, factors(views.dims, kept), down_.data(), true);
      with_sum.down = {{down}};
    }
    with_rule_head_size(views.dims.d_h, [&](auto d) {
      unbind_kernel<d><<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, with_sum);
    });
    VLA_CUDA_LAUNCHED("unbind_kernel");
  }

 private:
  template <class T>
  void launch_bind(cudaStream_t stream, const BindViews<T>& views) const {
    const auto launch = [&](auto d) {
      bind_kernel<d><<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, views);
    };
    if constexpr (std::is_same_v<T, float>) {
      with_rule_head_size(views.dims.d_h, launch);
    } else {  // only chunks have bfloat16
      with_head_size(views.dims.d_h, launch);
    }
    VLA_CUDA_LAUNCHED("bind_kernel");
  }
  template <class T>
  static T* factors(const HeadDims& dims, T* kept) {
    return kept + dims.rows() * dims.heads * dims.d_h;
  }
  static void sum(cudaStream_t stream, const HeadDims& dims, const float* factor, float* values,
                  bool against_time) {
    running_sum(stream, dims,
                {.tokens = static_cast<int>(dims.tokens),
                 .heads = static_cast<int>(dims.heads),
                 .channels = static_cast<int>(dims.d_h),
                 .against_time = against_time,
                 .factor = factor,
                 .sum = values});
  }

  Rule rule_;
  RecurrenceForm form_;
  Array<float> down_;  // (B, T, H, d): the gradient of a running sum
};

constexpr int kGroupThreads = 256;
__global__ void __launch_bounds__(kGroupThreads)
    sum_groups_kernel(Index numbers, Index width, int groups, const float* from, float* to) {
  const Index i = static_cast<Index>(blockIdx.x) * kGroupThreads + threadIdx.x;
  if (i >= numbers) return;
  const float* of_head = from + i / width * groups * width + i % width;
  float sum = of_head[0];
  for (int group = 1; group < groups; ++group) sum += of_head[group * width];
  to[i] = sum;
}

// Named bodies for with_rule: nvcc's pass over device code does not see kernels that are launched
// from a lambda in an unevaluated operand or behind one.
struct AnyRule {
  template <class Rule>
  void operator()(const Rule& /*rule*/) const {}
};
struct MakeTokenRule {
  std::unique_ptr<CudaRule>& made;

  template <class Rule>
  void operator()(const Rule& rule) const {
    made = std::make_unique<TokenRule<Rule>>(rule);
  }
};

template <class Options>
std::unique_ptr<CudaRule> make_rule_of(const Options& options, Index d) {
  std::unique_ptr<CudaRule> made;
  if constexpr (requires { with_rule(options, d, AnyRule{}); }) {
    with_rule(options, d, MakeTokenRule{made});
  }
  return made;
}

}  // namespace

void sum_groups(cudaStream_t stream, const HeadDims& dims, Index width, const float* from,
                float* to) {
  const Index numbers = dims.rows() * dims.heads * width;
  const auto blocks = static_cast<unsigned>((numbers + kGroupThreads - 1) / kGroupThreads);
  sum_groups_kernel<<<blocks, kGroupThreads, 0, stream>>>(
      numbers, width, static_cast<int>(dims.value_groups()), from, to);
  VLA_CUDA_LAUNCHED("sum_groups_kernel");
}

std::unique_ptr<CudaRule> make_cuda_rule(const MixerOptions& mixer, Index d) {
  return std::visit([d](const auto& options) { return make_rule_of(options, d); }, mixer);
}

}  // namespace vla_bench::mixers::cuda
