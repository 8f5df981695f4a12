// Production VLA on the CPU: forward, saved state, one-token memory. Numbers in parentheses are the
// steps of vla.h. The backward is in vla_backward_cpu.cpp.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "mixers/feature_map.h"
#include "mixers/state_kernels.h"
#include "mixers/vla/vla_core.h"

namespace vla_bench::mixers {

namespace vla {

template <class T>
Settings<T>::Settings(const VlaOptions& config, Index d_h)
    : d(d_h),
      stride(padded<T>(d_h)),
      feature_map(config.feature_map),
      penalty(config.penalty),
      unit_write(config.write == WriteDirection::unit),
      tied(config.residual == Residual::write),
      normalise(config.normaliser == Normaliser::zq),
      period(config.period),
      u_scale(static_cast<T>(config.u_length(d_h))),
      inverse_lambda(static_cast<T>(1.0 / config.lambda_0)),
      per_eps(static_cast<T>(config.per_eps)),
      stab_eps(static_cast<T>(config.stab_eps)) {}

template <class T>
void reset(const Settings<T>& settings, LaneState<T> state) {
  std::fill_n(state.s, settings.state_size(), T(0));
  if (state.a == nullptr) return;
  for (Index j = 0; j < settings.d; ++j) {
    state.a[j * settings.stride + j] = settings.inverse_lambda;
  }
}

template <class T>
LaneInputs<T> lane_inputs(const CoreInputs<T>& inputs, Index batch, Index head, Index token) {
  const Index row = batch * inputs.dims.tokens + token;
  return {inputs.q.at(row, head), inputs.k.at(row, head),
          inputs.v.at(row, head), inputs.aux.empty() ? nullptr : inputs.aux.at(row, head),
          inputs.q.row_stride,    inputs.k.row_stride,
          inputs.v.row_stride,    inputs.aux.row_stride};
}

template <class T>
void compute_features(const Settings<T>& settings, const LaneInputs<T>& inputs, Index count,
                      const Features<T>& features) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  const T floor = static_cast<T>(kUnitFloor);
  for (Index t = 0; t < count; ++t) {
    T* f = features.f + t * stride;
    T* k = features.k + t * stride;
    T* u = features.u + t * stride;
    apply_feature_map(settings.feature_map, inputs.q + t * inputs.q_stride, features.q + t * stride,
                      d);
    apply_feature_map(settings.feature_map, inputs.k + t * inputs.k_stride, f, d);
    const T f_norm = std::sqrt(dot(f, f, stride));
    features.f_norm[t] = f_norm;
    const T f_scale = 1 / std::max(f_norm, floor);
    for (Index i = 0; i < d; ++i) k[i] = f[i] * f_scale;
    if (settings.penalty == Penalty::learned) {
      const T* aux = inputs.aux + t * inputs.aux_stride;
      std::copy_n(aux, d, u);
      const T u_norm = std::sqrt(dot(u, u, stride));
      features.u_norm[t] = u_norm;
      const T u_factor = settings.u_scale / std::max(u_norm, floor);
      for (Index i = 0; i < d; ++i) u[i] *= u_factor;
    } else if (settings.penalty == Penalty::key) {
      for (Index i = 0; i < d; ++i) u[i] = settings.u_scale * k[i];
    }
  }
  std::fill_n(features.u + count * stride, stride, T(0));
}

namespace {

/// (2) to (4) for all tokens of a segment. `w` and `b` are work vectors of `stride`.
template <class T>
void advance_penalty(const Settings<T>& settings, LaneState<T> state, const Features<T>& features,
                     Index first, Index count, const Trace<T>& trace, T* w, T* negative_w) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  const T floor = static_cast<T>(kUnitFloor);
  if (settings.has_penalty()) read_rows(d, stride, state.a, features.u, w);
  for (Index t = 0; t < count; ++t) {
    const T* k = features.k + t * stride;
    T* a = trace.a + t * stride;  // b first, then scaled in place
    if (settings.has_penalty()) {
      const T* next_u = features.u + (t + 1) * stride;
      const T delta = 1 + dot(features.u + t * stride, w, stride);
      trace.delta[t] = delta;
      const T scale = 1 / std::sqrt(std::max(delta, settings.stab_eps));
      T* scaled_w = trace.w + t * stride;
      for (Index i = 0; i < stride; ++i) {
        // Products of this pair commute exactly, so A stays symmetric to the last bit.
        scaled_w[i] = w[i] * scale;
        negative_w[i] = -scaled_w[i];
      }
      update_read_rows(d, stride, state.a, negative_w, scaled_w, k, a, next_u, w);
      if (settings.nudged(first + t)) {
        for (Index j = 0; j < d; ++j) state.a[j * stride + j] += settings.per_eps;
        for (Index i = 0; i < stride; ++i) {
          a[i] += settings.per_eps * k[i];
          w[i] += settings.per_eps * next_u[i];
        }
      }
    } else {
      for (Index i = 0; i < stride; ++i) a[i] = settings.inverse_lambda * k[i];
    }
    const T b_norm = std::sqrt(dot(a, a, stride));
    trace.b_norm[t] = b_norm;
    if (settings.unit_write) {
      const T a_scale = 1 / std::max(b_norm, floor);
      for (Index i = 0; i < stride; ++i) a[i] *= a_scale;
    }
  }
}

}  // namespace

template <class T>
void advance(const Settings<T>& settings, LaneState<T> state, const Features<T>& features,
             const T* v, Index v_stride, Index first, Index count, const Trace<T>& trace, T* o,
             Index o_stride, T* work) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  advance_penalty(settings, state, features, first, count, trace, work, work + stride);

  T* prediction = work;
  T* numerator = work + stride;
  const T* zero = features.u + count * stride;
  const T* directions = settings.tied ? trace.a : features.k;
  read_rows(d, stride, state.s, directions, prediction);
  for (Index t = 0; t < count; ++t) {
    T* e = trace.e + t * stride;
    const T* q = features.q + t * stride;
    const T* f = features.f + t * stride;
    for (Index i = 0; i < d; ++i) e[i] = v[t * v_stride + i] - prediction[i];
    for (Index i = d; i < stride; ++i) e[i] = 0;
    const T* next = t + 1 < count ? directions + (t + 1) * stride : zero;
    update_read_rows(d, stride, state.s, trace.a + t * stride, e, q, numerator, next, prediction);
    for (Index i = 0; i < stride; ++i) state.z[i] += f[i];
    T scale = 1;
    if (settings.normalise) {
      trace.denominator[t] = dot(state.z, q, stride);
      scale = 1 / std::max(trace.denominator[t], settings.stab_eps);
    }
    for (Index i = 0; i < d; ++i) o[t * o_stride + i] = numerator[i] * scale;
  }
}

template <class T>
Workspace<T>::Workspace(const Settings<T>& settings) {
  const Index row = settings.stride;
  const Index scalars = padded<T>(kSegment);
  block_.resize(Device::cpu, row * (7 * kSegment + 1 + 3) + 5 * scalars + settings.state_size());
  T* next = block_.data();
  const auto take = [&next](Index size) {
    T* taken = next;
    next += size;
    return taken;
  };
  features.q = take(kSegment * row);
  features.f = take(kSegment * row);
  features.k = take(kSegment * row);
  features.u = take((kSegment + 1) * row);
  trace.e = take(kSegment * row);
  trace.a = take(kSegment * row);
  trace.w = take(kSegment * row);
  work = take(3 * row);
  features.f_norm = take(scalars);
  features.u_norm = take(scalars);
  trace.b_norm = take(scalars);
  trace.delta = take(scalars);
  trace.denominator = take(scalars);
  state = take(settings.state_size());
}

template <class T>
VlaCore<T>::VlaCore(const VlaOptions& config, Index d_h) : settings_(config, d_h) {}

template <class T>
void VlaCore<T>::forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                         Array<T>* saved) {
  const HeadDims& dims = inputs.dims;
  const SavedLayout layout(settings_, dims);
  if (saved != nullptr) saved->resize(Device::cpu, layout.total);

  make_workspaces(workspaces_, context.threads, settings_);

#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index lane = 0; lane < dims.lanes(); ++lane) {
    const Workspace<T>& workspace = workspaces_[static_cast<std::size_t>(omp_get_thread_num())];
    const Index batch = lane / dims.heads;
    const Index head = lane % dims.heads;
    T* block = saved != nullptr ? saved->data() + lane * layout.lane : nullptr;
    LaneState<T> state(settings_, workspace.state);
    vla::reset(settings_, state);
    for (Index first = 0; first < dims.tokens; first += kSegment) {
      const Index count = std::min(kSegment, dims.tokens - first);
      const LaneInputs<T> tokens = lane_inputs(inputs, batch, head, first);
      Trace<T> trace = workspace.trace;
      if (block != nullptr) {
        std::copy_n(workspace.state, settings_.state_size(),
                    layout.checkpoint(block, first / kSegment));
        trace = layout.trace(block).from(first, settings_.stride);
      }
      compute_features(settings_, tokens, count, workspace.features);
      advance(settings_, state, workspace.features, tokens.v, tokens.v_stride, first, count, trace,
              o.at(batch * dims.tokens + first, head), o.row_stride, workspace.work);
    }
  }
}

template <class T>
Index VlaCore<T>::state_bytes(const HeadDims& dims) const {
  const Index matrices = settings_.has_penalty() ? 2 : 1;
  return dims.lanes() * (matrices * settings_.d + 1) * settings_.d * static_cast<Index>(sizeof(T));
}

template <class T>
Index VlaCore<T>::saved_bytes(const HeadDims& dims) const {
  return SavedLayout(settings_, dims).total * static_cast<Index>(sizeof(T));
}

// ---- One token at a time ------------------------------------------------------------------------

namespace {

template <class T>
class VlaMemory final : public HeadMemory<T> {
 public:
  explicit VlaMemory(const Settings<T>& settings)
      : settings_(settings), workspace_(settings), state_(settings_, workspace_.state) {
    reset();
  }

  void reset() override {
    vla::reset(settings_, state_);
    token_ = 0;
  }

  void step(const T* q, const T* k, const T* v, const T* aux, T* o) override {
    compute_features(settings_, LaneInputs<T>{q, k, v, aux, 0, 0, 0, 0}, 1, workspace_.features);
    write_features(v, o);
  }

  void write(const T* key, const T* value, const T* direction) override {
    const Features<T>& features = workspace_.features;
    const Index d = settings_.d;
    std::copy_n(key, d, features.f);
    std::copy_n(key, d, features.k);
    std::copy_n(key, d, features.q);
    if (settings_.penalty == Penalty::learned) {
      if (direction == nullptr) throw std::logic_error("vla: write needs a penalty direction");
      std::copy_n(direction, d, features.u);
    } else {
      for (Index i = 0; i < d; ++i) features.u[i] = settings_.u_scale * key[i];
    }
    std::fill_n(features.u + settings_.stride, settings_.stride, T(0));
    std::vector<T> unread(static_cast<std::size_t>(d));
    write_features(value, unread.data());
  }

  void read(const T* query, T* out) const override {
    std::vector<T> sum(static_cast<std::size_t>(settings_.stride));
    read_rows(settings_.d, settings_.stride, state_.s, query, sum.data());
    std::copy_n(sum.data(), settings_.d, out);
  }

  double state_norm() const override { return frobenius(state_.s); }

  std::optional<double> penalty_norm() const override {
    if (state_.a != nullptr) return frobenius(state_.a);
    return static_cast<double>(settings_.inverse_lambda) * std::sqrt(settings_.d);
  }

  std::optional<StepJacobian> jacobian() const override {
    const T* a = workspace_.trace.a;
    const T* k = settings_.tied ? a : workspace_.features.k;
    return StepJacobian{{k, k + settings_.d}, {a, a + settings_.d}};
  }

 private:
  void write_features(const T* v, T* o) {
    advance(settings_, state_, workspace_.features, v, 0, token_, 1, workspace_.trace, o, 0,
            workspace_.work);
    ++token_;
  }

  double frobenius(const T* matrix) const {
    double sum = 0.0;
    for (Index i = 0; i < settings_.d * settings_.stride; ++i) {
      sum += static_cast<double>(matrix[i]) * static_cast<double>(matrix[i]);
    }
    return std::sqrt(sum);
  }

  Settings<T> settings_;
  Workspace<T> workspace_;
  LaneState<T> state_;
  Index token_ = 0;
};

}  // namespace

template <class T>
std::unique_ptr<HeadMemory<T>> VlaCore<T>::memory() const {
  return std::make_unique<VlaMemory<T>>(settings_);
}

template struct Settings<float>;
template struct Settings<double>;
template struct Workspace<float>;
template struct Workspace<double>;
template LaneInputs<float> lane_inputs(const CoreInputs<float>&, Index, Index, Index);
template LaneInputs<double> lane_inputs(const CoreInputs<double>&, Index, Index, Index);
template void compute_features(const Settings<float>&, const LaneInputs<float>&, Index,
                               const Features<float>&);
template void compute_features(const Settings<double>&, const LaneInputs<double>&, Index,
                               const Features<double>&);
template void reset(const Settings<float>&, LaneState<float>);
template void reset(const Settings<double>&, LaneState<double>);
template void advance(const Settings<float>&, LaneState<float>, const Features<float>&,
                      const float*, Index, Index, Index, const Trace<float>&, float*, Index,
                      float*);
template void advance(const Settings<double>&, LaneState<double>, const Features<double>&,
                      const double*, Index, Index, Index, const Trace<double>&, double*, Index,
                      double*);

}  // namespace vla

template <class T>
std::unique_ptr<MixerCore<T>> make_vla_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<vla::VlaCore<T>>(config.get<VlaOptions>(), d_h);
}
template std::unique_ptr<MixerCore<float>> make_vla_core(const MixerConfig&, Index);
template std::unique_ptr<MixerCore<double>> make_vla_core(const MixerConfig&, Index);

}  // namespace vla_bench::mixers
