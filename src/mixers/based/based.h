// Based (Arora et al. 2024, arXiv:2402.18668): linear attention on few channels of keys and
// queries, whose feature map is the Taylor series of exp to its second term.
//
// One lane (batch element and head), from S_0 = 0 (d, F) and z_0 = 0 (F); q, k are raw projections
// of n = feature_dim channels, v of d:
//   1. phi(x) = [1, x / n^(1/4), vec(x x^T) / sqrt(2 n)]     (F), F = 1 + n + n^2
//   2. S_t = S_{t-1} + v_t phi(k_t)^T                        (d, F)
//   3. z_t = z_{t-1} + phi(k_t)                              (F)
//   4. c_t = z_t . phi(q_t);  o_t = S_t phi(q_t) / c_t       (d)
// phi(q) . phi(k) = 1 + s + s^2 / 2 with s = q . k / sqrt(n), at least 1/2: c_t >= t / 2 needs no
// floor.
//
// Backward, from the upstream g_t = dL/do_t, t = T .. 1; dS and dz accumulate over tokens:
//   4. dn = g / c;  dc = -(g . o) / c;  dS += dn phi(q)^T;  dphi(q) = S_t^T dn + dc z_t
//   3. dz += dc phi(q)
//   2. dv = dS phi(k);  dphi(k) = dS^T v + dz
//   1. through phi to q and k
//
// x x^T is symmetric, so production holds each pair i < j once, times sqrt(2): F' = 1 + n +
// n (n + 1) / 2 features (153 of 273 at n = 16) with the same phi(q) . phi(k), o and |S|. The
// reference has all F.
//
// A GPU runs F' features as ceil(F' / d) linear attentions of d channels without normaliser on the
// same values, one after the other, and adds what they read: 160 channels for 153 at d = 32, 192 at
// d = 64, 256 at d = 128.
//
// The layer's Wq and Wk map to n channels a head. The recall probe takes keys of n channels, at
// length sqrt(n) as softmax does, and writes v phi(k)^T.
//
// Cost per token and head, multiply-adds: forward 2 F' d, backward 6 F' d. State: F' (d + 1)
// values. Saved: 1 value per token and head.
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <string_view>

#include "config/enums.h"
#include "core/count.h"
#include "mixers/layout.h"
#include "mixers/recurrence/form.h"

namespace vla_bench {
template <class T>
class MixerCore;
struct Support;

struct BasedOptions {
  static constexpr std::string_view name = "based";
  static constexpr std::string_view title = "Based";
  static constexpr std::string_view colour = "#117733";
  static constexpr std::array more_implementations = {Implementation::recurrent,
                                                      Implementation::chunked};
  static constexpr double most_step_ms = 1.2;

  Index feature_dim = 16;

  template <class V>
  void visit(V& v) {
    v.field("feature_dim", feature_dim,
            {.help = "based: channels of a head's keys and queries, of whose products its features "
                     "consist",
             .min = 1,
             .max = 32});
  }
};

namespace mixers {

/// The features that production holds (F').
constexpr Index taylor_features(Index n) { return 1 + n + n * (n + 1) / 2; }

/// What multiplies x_i, x_i x_i and x_i x_j in them.
struct TaylorWeights {
  explicit TaylorWeights(Index n)
      : linear(1 / std::sqrt(std::sqrt(static_cast<double>(n)))),
        square(1 / std::sqrt(2 * static_cast<double>(n))),
        product(1 / std::sqrt(static_cast<double>(n))) {}

  double linear, square, product;
};

}  // namespace mixers

inline MixerLayout layout(const BasedOptions& options, Index /*d_h*/) {
  return {.key_width = options.feature_dim, .output_norm = true};
}

inline Index multiply_adds(const BasedOptions& options, LatencyPass pass, Index tokens, Index d) {
  return times({pass == LatencyPass::forward ? 2 : 6, tokens,
                mixers::taylor_features(options.feature_dim), d});
}

/// Numbers of a head's state after any number of tokens.
inline Index state_size(const BasedOptions& options, Index /*tokens*/, Index d) {
  return mixers::taylor_features(options.feature_dim) * (d + 1);
}

/// The recurrence of a block of features on a GPU.
inline mixers::RecurrenceForm block_form(const BasedOptions& /*options*/) {
  return {.normaliser = mixers::RecurrenceForm::Normaliser::sums_a};
}

/// Production core, float and double; any d.
template <class T>
std::unique_ptr<MixerCore<T>> make_attention_core(const BasedOptions& options, Index d_h);
/// Plain loops in double precision with all F features.
std::unique_ptr<MixerCore<double>> make_attention_reference(const BasedOptions& options, Index d_h);
/// The core on a GPU, token by token or in chunks, and whether it exists.
std::unique_ptr<MixerCore<float>> make_attention_cuda_core(const BasedOptions& options, Index d_h,
                                                           Implementation implementation);
Support attention_cuda_support(const BasedOptions& options, Index d_h,
                               Implementation implementation);

}  // namespace vla_bench
