// Linear attention as linear.h states it, step by step; the numbers are its steps.
#include "mixers/linear/linear.h"
#include "mixers/reference.h"

namespace vla_bench::mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

struct Token {
  Vec q, k, v;  // raw
  Vec f, p;     // features
  Square S;     // after this token
  Vec z;        // after this token
  double c = 0.0;
  Vec o;
};

/// The whole history of one lane.
std::vector<Token> run_lane(const CoreInputs<double>& inputs, Index b, Index head) {
  const auto [B, T, H, d] = inputs.dims;
  std::vector<Token> history;
  Square S(d);
  Vec z = zeros(d);
  for (Index t = 0; t < T; ++t) {
    const Index row = b * T + t;
    Token token{.q = get(inputs.q, row, head, d),
                .k = get(inputs.k, row, head, d),
                .v = get(inputs.v, row, head, d),
                .f = {},
                .p = {},
                .S = Square(0),
                .z = {},
                .c = 0.0,
                .o = {}};
    token.f = elu1(token.k);  // 1
    token.p = elu1(token.q);
    add_outer(S, token.v, token.f);   // 2
    add(z, token.f);                  // 3
    const Vec n = times(S, token.p);  // 4
    token.c = dot(z, token.p);        // 5
    token.o = scaled(n, 1.0 / std::max(token.c, kLinearEpsilon));
    token.S = S;
    token.z = z;
    history.push_back(std::move(token));
  }
  return history;
}

class LinearReference final : public MixerCore<double> {
 public:
  explicit LinearReference(Index d_h) : d_(d_h) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for (Index b = 0; b < inputs.dims.batch; ++b) {
      for (Index head = 0; head < inputs.dims.heads; ++head) {
        const std::vector<Token> history = run_lane(inputs, b, head);
        for (Index t = 0; t < inputs.dims.tokens; ++t) {
          put(o, b * inputs.dims.tokens + t, head, history[static_cast<std::size_t>(t)].o);
        }
      }
    }
  }

  void backward(const Context& /*context*/, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>& /*saved*/) override {
    for (Index b = 0; b < inputs.dims.batch; ++b) {
      for (Index head = 0; head < inputs.dims.heads; ++head) {
        backward_lane(inputs, gradients, b, head);
      }
    }
  }

  std::unique_ptr<HeadMemory<double>> memory() const override {
    return make_linear_memory<double>(d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * (d_ * d_ + d_) * static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }  // recomputed

 private:
  void backward_lane(const CoreInputs<double>& inputs, const CoreGradients<double>& gradients,
                     Index b, Index head) const {
    const Index T = inputs.dims.tokens;
    const std::vector<Token> history = run_lane(inputs, b, head);
    Square dS(d_);
    Vec dz = zeros(d_);
    for (Index t = T - 1; t >= 0; --t) {
      const Token& token = history[static_cast<std::size_t>(t)];
      const Index row = b * T + t;
      const Vec g = get(gradients.d_o, row, head, d_);
      const double c = std::max(token.c, kLinearEpsilon);
      const Vec dn = scaled(g, 1.0 / c);  // 5
      const double dc = token.c < kLinearEpsilon ? 0.0 : -dot(g, token.o) / c;
      add_outer(dS, dn, token.p);  // 4
      Vec dp = transposed_times(token.S, dn);
      add(dz, token.p, dc);  // 5
      add(dp, token.z, dc);
      Vec df = dz;                                       // 3
      put(gradients.dv, row, head, times(dS, token.f));  // 2
      add(df, transposed_times(dS, token.v));
      put(gradients.dk, row, head, elu1_backward(token.k, df));  // 1
      put(gradients.dq, row, head, elu1_backward(token.q, dp));
    }
  }

  Index d_;
};

}  // namespace

std::unique_ptr<MixerCore<double>> make_linear_reference(const MixerConfig& /*config*/, Index d_h) {
  return std::make_unique<LinearReference>(d_h);
}

}  // namespace vla_bench::mixers
