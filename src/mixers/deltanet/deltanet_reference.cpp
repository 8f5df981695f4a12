// DeltaNet as deltanet.h states it, step by step; the numbers are its steps.
#include "mixers/deltanet/deltanet.h"
#include "mixers/reference.h"

namespace vla_bench::mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

struct Token {
  Vec q, k, v;            // raw
  Vec query, key;         // q', k'
  Vec gate;               // g
  double strength = 1.0;  // b
  Vec r;                  // residual
  Square before, after;   // S_{t-1}, S_t
};

class DeltaNetReference final : public MixerCore<double> {
 public:
  DeltaNetReference(DeltaNetVariant variant, Index d_h) : variant_(variant), d_(d_h) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for (Index b = 0; b < inputs.dims.batch; ++b) {
      for (Index head = 0; head < inputs.dims.heads; ++head) {
        Index row = b * inputs.dims.tokens;
        for (const Token& token : run_lane(inputs, b, head)) {
          put(o, row++, head, times(token.after, token.query));  // 4
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
    return make_deltanet_memory<double>(variant_, d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * d_ * d_ * static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }  // recomputed

 private:
  bool gated() const { return variant_ == DeltaNetVariant::paper; }

  std::vector<Token> run_lane(const CoreInputs<double>& inputs, Index b, Index head) const {
    std::vector<Token> history;
    Square S(d_);
    for (Index t = 0; t < inputs.dims.tokens; ++t) {
      const Index row = b * inputs.dims.tokens + t;
      const Vec q = get(inputs.q, row, head, d_);
      const Vec k = get(inputs.k, row, head, d_);
      const Vec v = get(inputs.v, row, head, d_);
      const Vec aux = get(inputs.aux, row, head, gated() ? d_ : 1);
      // 1
      const Vec key = gated() ? unit(k) : unit(silu(k));
      const Vec query = gated() ? elu1(q) : unit(silu(q));
      Vec gate(static_cast<std::size_t>(d_), 1.0);
      double strength = 1.0;
      if (gated()) {
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = sigmoid(aux[i]);
      } else {
        strength = sigmoid(aux[0]);
      }
      // 2
      Vec r = v;
      add(r, times(S, key), -1.0);
      // 3
      const Square before = S;
      scale_rows(S, gate);
      add_outer(S, r, key, strength);
      history.push_back({.q = q,
                         .k = k,
                         .v = v,
                         .query = query,
                         .key = key,
                         .gate = gate,
                         .strength = strength,
                         .r = r,
                         .before = before,
                         .after = S});
    }
    return history;
  }

  void backward_lane(const CoreInputs<double>& inputs, const CoreGradients<double>& gradients,
                     Index b, Index head) const {
    const std::vector<Token> history = run_lane(inputs, b, head);
    Square dS(d_);
    for (Index t = inputs.dims.tokens - 1; t >= 0; --t) {
      const Token& token = history[static_cast<std::size_t>(t)];
      const Index row = b * inputs.dims.tokens + t;
      const Vec y = get(gradients.d_o, row, head, d_);
      // 4
      add_outer(dS, y, token.query);
      const Vec dquery = transposed_times(token.after, y);
      // 3
      const Vec dS_key = times(dS, token.key);
      const Vec dr = scaled(dS_key, token.strength);
      const double dstrength = dot(token.r, dS_key);
      Vec dkey = scaled(transposed_times(dS, token.r), token.strength);
      Vec dgate = zeros(d_);
      for (std::size_t i = 0; i < dS.d; ++i) {
        for (std::size_t j = 0; j < dS.d; ++j) dgate[i] += dS(i, j) * token.before(i, j);
      }
      scale_rows(dS, token.gate);
      // 2
      put(gradients.dv, row, head, dr);
      add(dkey, transposed_times(token.before, dr), -1.0);
      add_outer(dS, dr, token.key, -1.0);
      // 1
      if (gated()) {
        put(gradients.dk, row, head, unit_backward(token.k, dkey));
        put(gradients.dq, row, head, elu1_backward(token.q, dquery));
        for (std::size_t i = 0; i < dgate.size(); ++i) {
          dgate[i] *= token.gate[i] * (1.0 - token.gate[i]);
        }
        put(gradients.daux, row, head, dgate);
      } else {
        put(gradients.dk, row, head, silu_backward(token.k, unit_backward(silu(token.k), dkey)));
        put(gradients.dq, row, head, silu_backward(token.q, unit_backward(silu(token.q), dquery)));
        put(gradients.daux, row, head, {dstrength * token.strength * (1.0 - token.strength)});
      }
    }
  }

  static void scale_rows(Square& s, const Vec& by) {
    for (std::size_t i = 0; i < s.d; ++i) {
      for (std::size_t j = 0; j < s.d; ++j) s(i, j) *= by[i];
    }
  }

  DeltaNetVariant variant_;
  Index d_;
};

}  // namespace

std::unique_ptr<MixerCore<double>> make_deltanet_reference(const MixerConfig& config, Index d_h) {
  return std::make_unique<DeltaNetReference>(config.get<DeltaNetOptions>().variant, d_h);
}

}  // namespace vla_bench::mixers
