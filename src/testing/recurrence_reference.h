// The recurrence and its backward in plain double loops, for tests of kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "mixers/heads.h"
#include "mixers/recurrence/form.h"
#include "testing/gpu.h"

namespace vla_bench::testing::recurrence {

using mixers::Decay;
using Values = std::vector<double>;

struct Rule {
  Decay decay = Decay::none;
  bool residual = false;
  bool normaliser = false;  // with f = a

  Index decay_width(Index d) const {
    if (decay == Decay::none) return 0;
    return decay == Decay::head ? 1 : d;
  }
};

inline std::vector<Rule> all_rules() {
  std::vector<Rule> rules;
  for (Decay decay : {Decay::none, Decay::head, Decay::rows, Decay::columns}) {
    for (bool residual : {false, true}) {
      for (bool normaliser : {false, true}) {
        // With a decay the normaliser is a kernel and a scale of its own: checked without one.
        if (small_tests() && normaliser && decay != Decay::none) continue;
        rules.push_back({decay, residual, normaliser});
      }
    }
  }
  return rules;
}

inline std::string describe(const Rule& rule) {
  constexpr std::array kNames = {"no", "head", "rows", "columns"};
  return std::string(kNames[static_cast<std::size_t>(rule.decay)]) + " decay" +
         (rule.residual ? " residual" : "") + (rule.normaliser ? " normaliser" : "");
}

inline constexpr double kFloor = 1e-6;

/// What a rule reads, in numbers that a float holds.
struct Tensors {
  HeadDims dims;
  Values r, a, q, v, d_o;  // (B, T, H, d)
  Values decay;            // (B, T, H, 1 or d)
};

/// Keys and queries are positive, so that no z . q is near 0, and short enough for S to stay in
/// bounds; r is a key near a. Decays lie between `least_decay` and 1.
inline Tensors random_tensors(const Rule& rule, const HeadDims& dims, double least_decay = 0.8) {
  Tensors tensors{.dims = dims};
  std::uint32_t lane = 0;
  const auto fill = [&](Values& values, Index width, const auto& number) {
    Rng rng(71, RngStream::benchmark, 0, lane++);
    values.resize(static_cast<std::size_t>(dims.rows() * dims.heads * width));
    for (double& value : values) value = static_cast<float>(number(rng));
  };
  const double length = 1.0 / std::sqrt(static_cast<double>(dims.d_h));
  const auto key = [&](Rng& rng) { return length * std::abs(rng.normal()); };
  fill(tensors.a, dims.d_h, key);
  fill(tensors.q, dims.d_h, key);
  const auto value = [](Rng& rng) { return 0.7 * rng.normal(); };
  fill(tensors.v, dims.d_h, value);
  fill(tensors.d_o, dims.d_h, value);
  fill(tensors.decay, rule.decay_width(dims.d_h),
       [&](Rng& rng) { return least_decay + (1.0 - least_decay) * rng.uniform(); });
  if (rule.residual) {
    fill(tensors.r, dims.d_h, [&](Rng& rng) { return 0.3 * length * rng.normal(); });
    for (std::size_t i = 0; i < tensors.r.size(); ++i) {
      tensors.r[i] = static_cast<float>(tensors.r[i] + tensors.a[i]);
    }
  }
  return tensors;
}

struct Results {
  Values o, e, dv, dq, da, dr, ddecay;
  Values df, dq_normaliser;  // what passes through the normaliser

  static constexpr std::array kNames = {"o",  "e",      "dv", "dq",           "da",
                                        "dr", "ddecay", "df", "dq_normaliser"};
  std::array<const Values*, 9> all() const {
    return {&o, &e, &dv, &dq, &da, &dr, &ddecay, &df, &dq_normaliser};
  }
};

/// One lane in plain double loops; numbers are the steps of recurrence_cuda.h.
class ReferenceLane {
 public:
  ReferenceLane(const Rule& rule, const Tensors& tensors, Index batch, Index head)
      : rule_(rule), in_(tensors), d_(tensors.dims.d_h), batch_(batch), head_(head) {}

  void run(Results& out) {
    const Index tokens = in_.dims.tokens;
    states_.assign(1, Values(static_cast<std::size_t>(d_ * d_)));
    sums_.assign(1, Values(static_cast<std::size_t>(d_)));
    for (Index t = 0; t < tokens; ++t) step(t, out);
    ds_.assign(static_cast<std::size_t>(d_ * d_), 0.0);
    dz_.assign(static_cast<std::size_t>(d_), 0.0);
    for (Index t = tokens; t-- > 0;) step_back(t, out);
  }

 private:
  std::size_t at(Index t, Index i, Index width) const {
    const HeadDims& dims = in_.dims;
    return static_cast<std::size_t>(((batch_ * dims.tokens + t) * dims.heads + head_) * width + i);
  }
  std::size_t at(Index t, Index i) const { return at(t, i, d_); }
  std::size_t element(Index i, Index j) const { return static_cast<std::size_t>(i * d_ + j); }
  /// Where the number stands that scales S_ij.
  std::size_t decay_at(Index t, Index i, Index j) const {
    if (rule_.decay == Decay::head) return at(t, 0, 1);
    return at(t, rule_.decay == Decay::rows ? i : j);
  }
  double decay(Index t, Index i, Index j) const {
    return rule_.decay == Decay::none ? 1.0 : in_.decay[decay_at(t, i, j)];
  }
  double along(Index t, const Values& z) const {
    double sum = 0.0;
    for (Index j = 0; j < d_; ++j) sum += z[static_cast<std::size_t>(j)] * in_.q[at(t, j)];
    return sum;
  }

  void step(Index t, Results& out) {
    const Values& before = states_.back();
    Values state(before.size());
    Values z = sums_.back();
    for (Index j = 0; j < d_; ++j) z[static_cast<std::size_t>(j)] += in_.a[at(t, j)];
    const double c = rule_.normaliser ? 1.0 / std::max(along(t, z), kFloor) : 1.0;
    for (Index i = 0; i < d_; ++i) {
      double e = in_.v[at(t, i)];  // 1
      for (Index j = 0; j < d_ && rule_.residual; ++j) {
        e -= before[element(i, j)] * in_.r[at(t, j)];
      }
      double n = 0.0;
      for (Index j = 0; j < d_; ++j) {  // 2, 3
        double& s = state[element(i, j)];
        s = decay(t, i, j) * before[element(i, j)] + e * in_.a[at(t, j)];
        n += s * in_.q[at(t, j)];
      }
      out.e[at(t, i)] = e;
      out.o[at(t, i)] = c * n;
    }
    states_.push_back(std::move(state));
    sums_.push_back(std::move(z));
  }

  void step_back(Index t, Results& out) {
    const Values& before = states_[static_cast<std::size_t>(t)];
    const Values& after = states_[static_cast<std::size_t>(t) + 1];
    const double c = rule_.normaliser ? step_normaliser_back(t, out) : 1.0;
    for (Index i = 0; i < d_; ++i) {
      const double dn = c * in_.d_o[at(t, i)];
      double de = 0.0;
      for (Index j = 0; j < d_; ++j) {
        double& ds = ds_[element(i, j)];
        ds += dn * in_.q[at(t, j)];  // 3
        out.dq[at(t, j)] += after[element(i, j)] * dn;
        de += ds * in_.a[at(t, j)];  // 2
        out.da[at(t, j)] += ds * out.e[at(t, i)];
        if (rule_.decay != Decay::none) {
          out.ddecay[decay_at(t, i, j)] += ds * before[element(i, j)];
        }
        ds *= decay(t, i, j);
      }
      out.dv[at(t, i)] = de;  // 1
      for (Index j = 0; j < d_ && rule_.residual; ++j) {
        ds_[element(i, j)] -= de * in_.r[at(t, j)];
        out.dr[at(t, j)] -= before[element(i, j)] * de;
      }
    }
  }

  /// Gives 1 / c.
  double step_normaliser_back(Index t, Results& out) {
    const Values& z = sums_[static_cast<std::size_t>(t) + 1];
    const double c = along(t, z);
    double dc = 0.0;
    for (Index i = 0; i < d_; ++i) dc -= in_.d_o[at(t, i)] * out.o[at(t, i)] / c;
    for (Index j = 0; j < d_; ++j) {
      const auto channel = static_cast<std::size_t>(j);
      dz_[channel] += dc * in_.q[at(t, j)];
      out.df[at(t, j)] = dz_[channel];
      out.dq_normaliser[at(t, j)] = dc * z[channel];
    }
    return 1.0 / c;
  }

  const Rule& rule_;
  const Tensors& in_;
  Index d_, batch_, head_;
  std::vector<Values> states_, sums_;  // S and z, from before the first token on
  Values ds_, dz_;
};

inline Results run_reference(const Rule& rule, const Tensors& tensors) {
  const HeadDims& dims = tensors.dims;
  Results out;
  for (Values* values : {&out.o, &out.e, &out.dv, &out.dq, &out.da}) {
    values->resize(tensors.a.size());
  }
  out.dr.resize(tensors.r.size());
  out.ddecay.resize(tensors.decay.size());
  if (rule.normaliser) {
    out.df.resize(tensors.a.size());
    out.dq_normaliser.resize(tensors.a.size());
  }
  for (Index b = 0; b < dims.batch; ++b) {
    for (Index h = 0; h < dims.heads; ++h) ReferenceLane(rule, tensors, b, h).run(out);
  }
  return out;
}

}  // namespace vla_bench::testing::recurrence
