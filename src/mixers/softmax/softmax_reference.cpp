// The reference of softmax attention; the numbers are the steps of softmax.h.
#include "mixers/reference.h"
#include "mixers/softmax/softmax_core.h"

namespace vla_bench {
namespace mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

struct Token {
  Vec q, k, v;
};

class SoftmaxReference final : public softmax::AttentionCore<double> {
 public:
  explicit SoftmaxReference(Index d_h)
      : AttentionCore(d_h, 0),  // the backward computes the weights again
        scale_(1.0 / std::sqrt(static_cast<double>(d_h))) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for (Index b = 0; b < inputs.dims.batch; ++b) {
      for (Index head = 0; head < inputs.dims.heads; ++head) {
        const std::vector<Token> tokens = read_lane(inputs, b, head);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          put(o, b * inputs.dims.tokens + static_cast<Index>(i), head,
              read(tokens, weights(tokens, i)));
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

 private:
  std::vector<Token> read_lane(const CoreInputs<double>& inputs, Index b, Index head) const {
    std::vector<Token> tokens;
    for (Index t = 0; t < inputs.dims.tokens; ++t) {
      const Index row = b * inputs.dims.tokens + t;
      tokens.push_back({.q = get(inputs.q, row, head, d_),
                        .k = get(inputs.k, row, head, d_),
                        .v = get(inputs.v, row, head, d_)});
    }
    return tokens;
  }

  /// p_i0 .. p_ii
  Vec weights(const std::vector<Token>& tokens, std::size_t i) const {
    Vec p;
    for (std::size_t j = 0; j <= i; ++j) {
      p.push_back(scale_ * dot(tokens[i].q, tokens[j].k));  // 1
    }
    const double largest = *std::max_element(p.begin(), p.end());
    double sum = 0.0;
    for (double x : p) sum += std::exp(x - largest);
    for (double& x : p) x = std::exp(x - largest) / sum;  // 2
    return p;
  }

  Vec read(const std::vector<Token>& tokens, const Vec& p) const {
    Vec o = zeros(d_);
    for (std::size_t j = 0; j < p.size(); ++j) add(o, tokens[j].v, p[j]);  // 3
    return o;
  }

  void backward_lane(const CoreInputs<double>& inputs, const CoreGradients<double>& gradients,
                     Index b, Index head) const {
    const std::vector<Token> tokens = read_lane(inputs, b, head);
    std::vector<Token> d(tokens.size(), Token{zeros(d_), zeros(d_), zeros(d_)});
    const Index first_row = b * inputs.dims.tokens;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const Vec g = get(gradients.d_o, first_row + static_cast<Index>(i), head, d_);
      const Vec p = weights(tokens, i);
      const double D = dot(g, read(tokens, p));
      for (std::size_t j = 0; j <= i; ++j) {
        add(d[j].v, g, p[j]);                                // 3
        const double dx = p[j] * (dot(g, tokens[j].v) - D);  // 2
        add(d[i].q, tokens[j].k, scale_ * dx);               // 1
        add(d[j].k, tokens[i].q, scale_ * dx);
      }
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const Index row = first_row + static_cast<Index>(i);
      put(gradients.dq, row, head, d[i].q);
      put(gradients.dk, row, head, d[i].k);
      put(gradients.dv, row, head, d[i].v);
    }
  }

  double scale_;
};

}  // namespace
}  // namespace mixers

std::unique_ptr<MixerCore<double>> make_attention_reference(const SoftmaxOptions& /*options*/,
                                                            Index d_h) {
  return std::make_unique<mixers::SoftmaxReference>(d_h);
}

}  // namespace vla_bench
