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

template <class Rule>
class TokenRule final : public CudaRule {
 public:
  explicit TokenRule(const Rule& rule) : rule_(rule), form_(rule.form()) {}

  const RecurrenceForm& form() const override { return form_; }

  void bind(cudaStream_t stream, const RuleViews& views, const NormaliserForward& normaliser,
            float* /*kept*/, bool /*for_backward*/) override {
    launch_bind<float>(stream, views);
    if (normaliser.denominator != nullptr) normaliser_forward(stream, normaliser);
  }
  void bind(cudaStream_t stream, const BindViews<Bfloat16>& views) override {
    launch_bind(stream, views);
  }
  void unbind(cudaStream_t stream, const RuleViews& views, const float* /*kept*/) override {
    with_head_size(views.dims.d_h, [&](auto d) {
      unbind_kernel<d><<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, views);
    });
    VLA_CUDA_LAUNCHED("unbind_kernel");
  }

 private:
  template <class T>
  void launch_bind(cudaStream_t stream, const BindViews<T>& views) const {
    with_head_size(views.dims.d_h, [&](auto d) {
      bind_kernel<d><<<token_blocks<d>(views.dims), kTokenThreads, 0, stream>>>(rule_, views);
    });
    VLA_CUDA_LAUNCHED("bind_kernel");
  }

  Rule rule_;
  RecurrenceForm form_;
};

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

std::unique_ptr<CudaRule> make_cuda_rule(const MixerOptions& mixer, Index d) {
  return std::visit([d](const auto& options) { return make_rule_of(options, d); }, mixer);
}

}  // namespace vla_bench::mixers::cuda
