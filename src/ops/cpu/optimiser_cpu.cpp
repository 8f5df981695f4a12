// The optimiser's step over a flat buffer.
#include <cmath>

#include "ops/backends.h"
#include "ops/cpu/blocks.h"

namespace vla_bench::ops::cpu {
namespace {

template <class T>
double norm(const Context& context, const T* values, Index count) {
  const Blocks blocks{count, kElementBlock};
  double* partials = scratch<double>(blocks.count());
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index block = 0; block < blocks.count(); ++block) {
    const T* data = values + blocks.first(block);
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < blocks.length(block); ++i) {
      sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
    }
    partials[block] = sum;
  }
  double total = 0.0;
  for (Index block = 0; block < blocks.count(); ++block) total += partials[block];
  return std::sqrt(total);
}

/// AdamW's step `step`, counted from 1, on gradients times `gradient_scale`.
template <class T>
void adamw(const Context& context, const OptimiserStep<T>& args, Index step, double lr,
           double clip) {
  const double correction1 = 1.0 - std::pow(args.beta1, static_cast<double>(step));
  const double correction2 = 1.0 - std::pow(args.beta2, static_cast<double>(step));
  const T gradient_scale = static_cast<T>(clip);
  const T decay = static_cast<T>(1.0 - lr * args.weight_decay);
  const T beta1 = static_cast<T>(args.beta1);
  const T beta2 = static_cast<T>(args.beta2);
  const T one_minus_beta1 = static_cast<T>(1.0 - args.beta1);
  const T one_minus_beta2 = static_cast<T>(1.0 - args.beta2);
  const T step_size = static_cast<T>(lr / correction1);
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

}  // namespace

template <class T>
void optimiser_step(const Context& context, const OptimiserStep<T>& args) {
  TrainingState& state = *args.state;
  if (state.diverged) return;
  state.gradient_norm = norm(context, args.gradients, args.count);
  if (!std::isfinite(state.gradient_norm) || !std::isfinite(state.loss.loss)) {
    state.diverged = 1;
    return;
  }
  state.learning_rate = learning_rate(args.schedule, state.step);
  ++state.step;
  adamw(context, args, state.step, state.learning_rate,
        clip_factor(state.gradient_norm, args.clip_norm));
}

template void optimiser_step(const Context&, const OptimiserStep<float>&);
template void optimiser_step(const Context&, const OptimiserStep<double>&);

}  // namespace vla_bench::ops::cpu
