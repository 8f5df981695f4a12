// Backward of production VLA on the CPU, segment by segment from the end. Numbers in parentheses
// are the steps of vla.h, walked in reverse. Within a segment the memory path of all tokens comes
// first (it needs nothing of the penalty path's gradients), then the penalty path.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/feature_map.h"
#include "mixers/state_kernels.h"
#include "mixers/vla/vla_core.h"

namespace vla_bench::mixers::vla {
namespace {

/// What the passes over one segment read.
template <class T>
struct Segment {
  Index first, count;
  Index row, head;  // of the first token in the (B, T, H, d) views
  Trace<const T> trace;
  LaneState<const T> start;
  const CoreGradients<T>& gradients;
};

/// States before every token, from the checkpoint and the saved rank-one factors.
template <class T>
void recompute_history(const Settings<T>& settings, const Segment<T>& segment,
                       const Features<T>& features, const BackwardWorkspace<T>& ws) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  const Index matrix = d * stride;
  for (Index i = 0; i < d; ++i) {
    for (Index j = 0; j < d; ++j) ws.s_history[i * stride + j] = segment.start.s[j * stride + i];
  }
  for (Index t = 0; t + 1 < segment.count; ++t) {
    const T* s = ws.s_history + t * matrix;
    copy_updated_rows(d, stride, s, segment.trace.e + t * stride, segment.trace.a + t * stride,
                      ws.s_history + (t + 1) * matrix);
  }
  for (Index t = 0; t < segment.count; ++t) {
    const T* before = t == 0 ? segment.start.z : ws.z_history + (t - 1) * stride;
    const T* f = features.f + t * stride;
    T* z = ws.z_history + t * stride;
    for (Index i = 0; i < stride; ++i) z[i] = before[i] + f[i];
  }
  if (!settings.has_penalty()) return;
  std::copy_n(segment.start.a, matrix, ws.a_history);
  for (Index t = 0; t + 1 < segment.count; ++t) {
    const T* scaled_w = segment.trace.w + t * stride;
    T* after = ws.a_history + (t + 1) * matrix;
    for (Index i = 0; i < stride; ++i) ws.read[i] = -scaled_w[i];
    copy_updated_rows(d, stride, ws.a_history + t * matrix, ws.read, scaled_w, after);
    if (settings.nudged(segment.first + t)) {
      for (Index j = 0; j < d; ++j) after[j * stride + j] += settings.per_eps;
    }
  }
}

/// (8) to (5): sets dq', df, dk, da and dv of every token; ds and dz move to the segment's start.
template <class T>
void memory_backward(const Settings<T>& settings, const Segment<T>& segment,
                     const Features<T>& features, const BackwardWorkspace<T>& ws) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  for (Index t = segment.count - 1; t >= 0; --t) {
    const T* q = features.q + t * stride;
    const T* k = features.k + t * stride;
    const T* e = segment.trace.e + t * stride;
    const T* a = segment.trace.a + t * stride;
    const T* s_before = ws.s_history + t * d * stride;
    const T* upstream = segment.gradients.d_o.at(segment.row + t, segment.head);
    const T* o = segment.gradients.o.at(segment.row + t, segment.head);
    T* dq = ws.dq + t * stride;
    T* df = ws.df + t * stride;
    T* dk = ws.dk + t * stride;
    T* da = ws.da + t * stride;

    T scale = 1;
    T d_denominator = 0;
    if (settings.normalise) {
      const T denominator = segment.trace.denominator[t];
      scale = 1 / std::max(denominator, settings.stab_eps);
      if (!(denominator < settings.stab_eps)) {
        T product = 0;
        for (Index i = 0; i < d; ++i) product += upstream[i] * o[i];
        d_denominator = -product * scale;
      }
    }
    for (Index i = 0; i < d; ++i) ws.dn[i] = upstream[i] * scale;  // tail stays zero
    // S_t^T dn = S_{t-1}^T dn + a (e.dn), so the state before the token serves both products.
    update_dot_read_rows<T>({.d = d,
                             .stride = stride,
                             .m = ws.ds,
                             .x = ws.dn,
                             .y = q,
                             .z = a,
                             .dots = ws.de,
                             .c1 = e,
                             .out1 = da,
                             .other = s_before,
                             .out2 = ws.read});
    const T e_dn = dot(e, ws.dn, stride);
    const T* z = ws.z_history + t * stride;
    for (Index i = 0; i < stride; ++i) {
      dq[i] = ws.read[i] + e_dn * a[i] + d_denominator * z[i];
      ws.dz[i] += d_denominator * q[i];
      df[i] = ws.dz[i];
    }
    T* dv = segment.gradients.dv.at(segment.row + t, segment.head);
    for (Index i = 0; i < d; ++i) {
      dv[i] = ws.de[i];
      ws.de[i] = -ws.de[i];
    }
    update_read_other_rows(d, stride, ws.ds, ws.de, settings.tied ? a : k, s_before, ws.dr);
    for (Index i = 0; i < stride; ++i) {
      dk[i] = settings.tied ? T(0) : ws.dr[i];
      if (settings.tied) da[i] += ws.dr[i];
    }
  }
}

/// Gradient of unit(x) = y at |x| = norm: (dy - y (y.dy)) / norm, or dy / floor below the floor.
template <class T>
void unit_backward(const T* y, T norm, const T* dy, T* dx, Index length) {
  const T floor = static_cast<T>(kUnitFloor);
  const T along = norm < floor ? T(0) : dot(y, dy, length);
  const T scale = 1 / std::max(norm, floor);
  for (Index i = 0; i < length; ++i) dx[i] = (dy[i] - y[i] * along) * scale;
}

/// (4) and (2): adds to dk, returns du of the token in ws.du.
template <class T>
void penalty_backward(const Settings<T>& settings, const Segment<T>& segment, Index t,
                      const Features<T>& features, const BackwardWorkspace<T>& ws) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  const T* k = features.k + t * stride;
  const T* u = features.u + t * stride;
  const T* scaled_w = segment.trace.w + t * stride;  // w' = w / sqrt(delta)
  const T* a_before = ws.a_history + t * d * stride;
  T* dk = ws.dk + t * stride;

  symmetric_update_read_rows<T>({.d = d,
                                 .stride = stride,
                                 .m = ws.da_matrix,
                                 .x = ws.db,
                                 .y = k,
                                 .c1 = scaled_w,
                                 .out1 = ws.gw,
                                 .other = a_before,
                                 .out2 = ws.read});
  // A_t db = A_{t-1} db - w' (w'.db) [+ per_eps db]
  const T w_db = dot(scaled_w, ws.db, stride);
  const T nudge = settings.nudged(segment.first + t) ? settings.per_eps : T(0);
  for (Index i = 0; i < stride; ++i) {
    dk[i] += ws.read[i] - scaled_w[i] * w_db + nudge * ws.db[i];
  }
  // dw = -2 G w / delta = -2 G w' / sqrt(delta);  ddelta = -(w'.dw) / (2 sqrt(delta))
  const T delta = segment.trace.delta[t];
  const T root = std::sqrt(std::max(delta, settings.stab_eps));
  const T factor = -2 / root;
  for (Index i = 0; i < stride; ++i) ws.dw[i] = factor * ws.gw[i];
  const T d_delta = delta < settings.stab_eps ? T(0) : -dot(scaled_w, ws.dw, stride) / (2 * root);
  for (Index i = 0; i < stride; ++i) ws.dw[i] += d_delta * u[i];
  symmetric_update_read_rows<T>({.d = d,
                                 .stride = stride,
                                 .m = ws.da_matrix,
                                 .x = ws.dw,
                                 .y = u,
                                 .c1 = u,
                                 .out1 = ws.gw,
                                 .other = a_before,
                                 .out2 = ws.du});
  for (Index i = 0; i < stride; ++i) ws.du[i] += d_delta * root * scaled_w[i];
}

/// (4) to (1): finishes dq, dk and daux of every token of the segment.
template <class T>
void features_backward(const Settings<T>& settings, const Segment<T>& segment,
                       const LaneInputs<T>& inputs, const Features<T>& features,
                       const BackwardWorkspace<T>& ws) {
  const Index d = settings.d;
  const Index stride = settings.stride;
  const CoreGradients<T>& out = segment.gradients;
  for (Index t = segment.count - 1; t >= 0; --t) {
    const T* a = segment.trace.a + t * stride;
    const T* k = features.k + t * stride;
    T* df = ws.df + t * stride;
    T* dk = ws.dk + t * stride;
    const Index row = segment.row + t;
    const T* da = ws.da + t * stride;
    if (settings.unit_write) {
      unit_backward(a, segment.trace.b_norm[t], da, ws.db, stride);
    } else {
      std::copy_n(da, stride, ws.db);
    }
    if (settings.has_penalty()) {
      penalty_backward(settings, segment, t, features, ws);
      if (settings.penalty == Penalty::key) {
        for (Index i = 0; i < stride; ++i) dk[i] += settings.u_scale * ws.du[i];
      } else {
        // u = u_scale y, y = unit(aux): dy = u_scale du. u_scale = 0 leaves no direction.
        const T* u = features.u + t * stride;
        const T inverse = settings.u_scale > 0 ? 1 / settings.u_scale : T(0);
        for (Index i = 0; i < stride; ++i) {
          ws.gw[i] = u[i] * inverse;
          ws.du[i] *= settings.u_scale;
        }
        unit_backward(ws.gw, features.u_norm[t], ws.du, ws.read, stride);
        std::copy_n(ws.read, d, out.daux.at(row, segment.head));
      }
    } else {
      for (Index i = 0; i < stride; ++i) dk[i] += settings.inverse_lambda * ws.db[i];
    }
    unit_backward(k, features.f_norm[t], dk, ws.read, stride);
    for (Index i = 0; i < stride; ++i) df[i] += ws.read[i];
    feature_map_backward(settings.feature_map, inputs.k + t * inputs.k_stride,
                         features.f + t * stride, df, out.dk.at(row, segment.head), d);
    feature_map_backward(settings.feature_map, inputs.q + t * inputs.q_stride,
                         features.q + t * stride, ws.dq + t * stride, out.dq.at(row, segment.head),
                         d);
  }
}

}  // namespace

template <class T>
void VlaCore<T>::backward(const Context& context, const CoreInputs<T>& inputs,
                          const CoreGradients<T>& gradients, const Array<T>& saved) {
  const HeadDims& dims = inputs.dims;
  const SavedLayout layout(settings_, dims);
  make_workspaces(backward_workspaces_, context.threads, settings_);

#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (Index lane = 0; lane < dims.lanes(); ++lane) {
    const BackwardWorkspace<T>& ws =
        backward_workspaces_[static_cast<std::size_t>(omp_get_thread_num())];
    const Features<T>& features = ws.forward.features;
    const Index batch = lane / dims.heads;
    const Index head = lane % dims.heads;
    const T* block = saved.data() + lane * layout.lane;
    ws.reset(settings_);
    for (Index index = layout.segments - 1; index >= 0; --index) {
      const Index first = index * kSegment;
      const Segment<T> segment{
          .first = first,
          .count = std::min(kSegment, dims.tokens - first),
          .row = batch * dims.tokens + first,
          .head = head,
          .trace = layout.trace(block).from(first, settings_.stride),
          .start = LaneState<const T>(settings_, layout.checkpoint(block, index)),
          .gradients = gradients,
      };
      const LaneInputs<T> tokens = lane_inputs(inputs, batch, head, first);
      compute_features(settings_, tokens, segment.count, features);
      recompute_history(settings_, segment, features, ws);
      memory_backward(settings_, segment, features, ws);
      features_backward(settings_, segment, tokens, features, ws);
    }
  }
}

template void VlaCore<float>::backward(const Context&, const CoreInputs<float>&,
                                       const CoreGradients<float>&, const Array<float>&);
template void VlaCore<double>::backward(const Context&, const CoreInputs<double>&,
                                        const CoreGradients<double>&, const Array<double>&);

}  // namespace vla_bench::mixers::vla
