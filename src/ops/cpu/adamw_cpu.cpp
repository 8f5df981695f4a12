// AdamW over a flat buffer.
#include <cmath>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {

template <class T>
void adamw_step(const Context& context, const AdamW<T>& args) {
  const double step = static_cast<double>(args.step);
  const double correction1 = 1.0 - std::pow(args.beta1, step);
  const double correction2 = 1.0 - std::pow(args.beta2, step);
  const T gradient_scale = static_cast<T>(args.gradient_scale);
  const T decay = static_cast<T>(1.0 - args.lr * args.weight_decay);
  const T beta1 = static_cast<T>(args.beta1);
  const T beta2 = static_cast<T>(args.beta2);
  const T one_minus_beta1 = static_cast<T>(1.0 - args.beta1);
  const T one_minus_beta2 = static_cast<T>(1.0 - args.beta2);
  const T step_size = static_cast<T>(args.lr / correction1);
  const T inverse_root2 = static_cast<T>(1.0 / std::sqrt(correction2));
  const T epsilon = static_cast<T>(args.epsilon);

  const Blocks blocks{args.count, kElementBlock};
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    const Index first = blocks.first(block);
    const Index last = first + blocks.length(block);
#pragma omp simd
    for (Index i = first; i < last; ++i) {
      const T g = args.gradients[i] * gradient_scale;
      const T m = beta1 * args.first_moment[i] + one_minus_beta1 * g;
      const T v = beta2 * args.second_moment[i] + one_minus_beta2 * g * g;
      args.first_moment[i] = m;
      args.second_moment[i] = v;
      args.parameters[i] =
          args.parameters[i] * decay - step_size * m / (std::sqrt(v) * inverse_root2 + epsilon);
    }
  }
}

template void adamw_step(const Context&, const AdamW<float>&);
template void adamw_step(const Context&, const AdamW<double>&);

}  // namespace vla_bench::ops::cpu
