// based.h in plain double-precision loops, one step at a time, every state kept; numbers are its
// steps. The production cores are tested against it; it is never optimised.
#include <vector>

#include "mixers/based/based.h"
#include "mixers/reference.h"

namespace vla_bench {
namespace mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

/// 1
Vec features(const Vec& x) {
  const auto n = static_cast<double>(x.size());
  Vec phi = {1.0};
  for (const double xi : x) phi.push_back(xi / std::pow(n, 0.25));
  for (const double xi : x) {
    for (const double xj : x) phi.push_back(xi * xj / std::sqrt(2.0 * n));
  }
  return phi;
}
/// dL/dx
Vec features_backward(const Vec& x, const Vec& dphi) {
  const std::size_t n = x.size();
  const auto count = static_cast<double>(n);
  Vec dx(n);
  for (std::size_t i = 0; i < n; ++i) {
    dx[i] = dphi[1 + i] / std::pow(count, 0.25);
    for (std::size_t j = 0; j < n; ++j) {
      dx[i] += (dphi[1 + n + i * n + j] + dphi[1 + n + j * n + i]) * x[j] / std::sqrt(2.0 * count);
    }
  }
  return dx;
}

/// (d, F)
using Rows = std::vector<Vec>;

struct Token {
  Vec q, k, v;  // raw
  Vec phi_q, phi_k;
  Rows state;  // S_t
  Vec z;       // z_t
  double c = 0.0;
  Vec o;
};

class BasedReference final : public MixerCore<double> {
 public:
  BasedReference(Index n, Index d) : n_(n), d_(d) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      const std::vector<Token> lane = run_lane(inputs, batch, head);
      for (Index t = 0; t < inputs.dims.tokens; ++t) {
        put(o, batch * inputs.dims.tokens + t, head, lane[static_cast<std::size_t>(t)].o);
      }
    });
  }

  void backward(const Context& /*context*/, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>& /*saved*/) override {
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      backward_lane(run_lane(inputs, batch, head), gradients, batch, head);
    });
  }

  /// Production's.
  std::unique_ptr<HeadMemory<double>> memory(Index head) const override {
    return make_attention_core<double>(BasedOptions{.feature_dim = n_}, d_)->memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override {
    const Index features = 1 + n_ + n_ * n_;
    return dims.lanes() * features * (d_ + 1) * static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }  // computed again

 private:
  template <class Body>
  static void for_each_lane(const HeadDims& dims, const Body& body) {
    for (Index batch = 0; batch < dims.batch; ++batch) {
      for (Index head = 0; head < dims.heads; ++head) body(batch, head);
    }
  }

  std::vector<Token> run_lane(const CoreInputs<double>& inputs, Index batch, Index head) const {
    const Index features_count = 1 + n_ + n_ * n_;
    Rows state(static_cast<std::size_t>(d_), zeros(features_count));
    Vec z = zeros(features_count);
    std::vector<Token> lane;
    for (Index t = 0; t < inputs.dims.tokens; ++t) {
      const Index row = batch * inputs.dims.tokens + t;
      Token token{.q = get(inputs.q, row, head, n_),
                  .k = get(inputs.k, row, head, n_),
                  .v = get(inputs.v, row, head, d_),
                  .phi_q = {},
                  .phi_k = {},
                  .state = {},
                  .z = {},
                  .o = {}};
      token.phi_q = features(token.q);  // 1
      token.phi_k = features(token.k);
      for (std::size_t i = 0; i < state.size(); ++i) add(state[i], token.phi_k, token.v[i]);  // 2
      add(z, token.phi_k);                                                                    // 3
      token.c = dot(z, token.phi_q);                                                          // 4
      for (const Vec& values : state) token.o.push_back(dot(values, token.phi_q) / token.c);
      token.state = state;
      token.z = z;
      lane.push_back(token);
    }
    return lane;
  }

  void backward_lane(const std::vector<Token>& lane, const CoreGradients<double>& gradients,
                     Index batch, Index head) const {
    const auto tokens = static_cast<Index>(lane.size());
    Rows d_state(static_cast<std::size_t>(d_), zeros(1 + n_ + n_ * n_));
    Vec dz = zeros(1 + n_ + n_ * n_);
    for (Index t = tokens - 1; t >= 0; --t) {
      const Token& token = lane[static_cast<std::size_t>(t)];
      const Index row = batch * tokens + t;
      const Vec g = get(gradients.d_o, row, head, d_);
      const Vec dn = scaled(g, 1.0 / token.c);  // 4
      const double dc = -dot(g, token.o) / token.c;
      Vec dphi_q = scaled(token.z, dc);
      Vec dphi_k = zeros(1 + n_ + n_ * n_), dv;
      add(dz, token.phi_q, dc);  // 3
      for (std::size_t i = 0; i < d_state.size(); ++i) {
        add(d_state[i], token.phi_q, dn[i]);
        add(dphi_q, token.state[i], dn[i]);
        dv.push_back(dot(d_state[i], token.phi_k));  // 2
        add(dphi_k, d_state[i], token.v[i]);
      }
      add(dphi_k, dz);
      put(gradients.dv, row, head, dv);
      put(gradients.dq, row, head, features_backward(token.q, dphi_q));  // 1
      put(gradients.dk, row, head, features_backward(token.k, dphi_k));
    }
  }

  Index n_, d_;
};

}  // namespace
}  // namespace mixers

std::unique_ptr<MixerCore<double>> make_attention_reference(const BasedOptions& options,
                                                            Index d_h) {
  return std::make_unique<mixers::BasedReference>(options.feature_dim, d_h);
}

}  // namespace vla_bench
