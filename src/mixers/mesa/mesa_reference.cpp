// H of mesa.h in plain double-precision loops, one step at a time, every H kept; numbers are its
// steps. G is the reference's of recurrence.h.
#include <cmath>
#include <vector>

#include "mixers/mesa/mesa.h"
#include "mixers/recurrence/cpu_token.h"
#include "mixers/reference.h"

namespace vla_bench {
namespace mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

/// L of A = L L^T.
Square cholesky(const Square& A) {
  Square L(static_cast<Index>(A.d));
  for (std::size_t i = 0; i < A.d; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = A(i, j);
      for (std::size_t l = 0; l < j; ++l) sum -= L(i, l) * L(j, l);
      L(i, j) = i == j ? std::sqrt(sum) : sum / L(j, j);
    }
  }
  return L;
}

/// x of (H + diag(lambda)) x = b.
Vec solve(Square H, const Vec& lambda, Vec b) {
  for (std::size_t i = 0; i < H.d; ++i) H(i, i) += lambda[i];
  const Square L = cholesky(H);
  for (std::size_t i = 0; i < H.d; ++i) {
    for (std::size_t j = 0; j < i; ++j) b[i] -= L(i, j) * b[j];
    b[i] /= L(i, i);
  }
  for (std::size_t i = H.d; i-- > 0;) {
    for (std::size_t j = i + 1; j < H.d; ++j) b[i] -= L(j, i) * b[j];
    b[i] /= L(i, i);
  }
  return b;
}

/// A token's values, named as in mesa.h.
struct Token {
  Vec k, a, x;  // a = beta k'
  double gamma = 1.0;
  Square before{0}, after{0};  // H_{t-1}, H_t
  Vec dx, da;                  // what the recurrence's backward leaves
  double dgamma = 0.0;
};

class ReferenceLane final : public LaneRule<double> {
 public:
  ReferenceLane(const MesaRule& rule, Index d) : rule_(rule), d_(d) {}

  void start(Index /*tokens*/, double* /*kept*/) override { history_.clear(); }

  void bind(const Tile& tile, const CoreInputs<double>& inputs,
            const RecurrenceRows<double>& rows) override {
    Vec queries = zeros(tile.count * d_);
    RecurrenceRows<double> with_query = rows;
    with_query.own = queries.data();
    Square H(d_);
    for (Index i = 0; i < tile.count; ++i) {
      const CpuToken<double> at(d_, tile, i, inputs, with_query);
      rule_.bind(at);
      const Ridge<CpuToken<double>> ridge(at, at.parameter_channels(0), rule_.as_given);
      lambda_ = row(ridge.lambda.values, 0);
      Token token{.k = row(rows.r, i), .a = row(rows.a, i), .x = {}, .gamma = rows.decay[i]};
      token.before = H;
      for (double& value : H.values) value *= token.gamma;  // 3
      add_outer(H, token.k, token.a);
      token.after = H;
      token.x = solve(H, lambda_, row(queries.data(), i));  // 4
      std::copy(token.x.begin(), token.x.end(), rows.q + i * d_);
      history_.push_back(std::move(token));
    }
  }
  void bind_key(const Tile& /*tile*/, const double* /*key*/,
                const RecurrenceRows<double>& /*rows*/) override {}  // its memory is production's

  void unbind(const Tile& tile, const CoreInputs<double>& /*inputs*/,
              const RecurrenceGradients<double>& gradients,
              const CoreGradients<double>& /*out*/) override {
    tile_ = tile;
    for (Index i = 0; i < tile.count; ++i) {
      Token& token = history_[static_cast<std::size_t>(i)];
      token.dx = row(gradients.dq, i);
      token.da = row(gradients.da, i);
      token.dgamma = gradients.ddecay[i];
    }
  }
  void finish(const CoreInputs<double>& inputs, const CoreGradients<double>& out) override {
    Square dH(d_);
    for (Index t = tile_.count - 1; t >= 0; --t) {
      Token& token = history_[static_cast<std::size_t>(t)];
      const Vec y = solve(token.after, lambda_, token.dx);  // 4
      add_outer(dH, y, token.x, -0.5);
      add_outer(dH, token.x, y, -0.5);
      Vec dk = times(dH, token.a);  // 3
      add(token.da, times(dH, token.k));
      token.dgamma += dot(dH.values, token.before.values);
      for (double& value : dH.values) value *= token.gamma;

      Vec negative_y = scaled(y, -1.0);
      const Tile one{tile_.batch, tile_.head, tile_.tokens, t, 1};
      RecurrenceRows<double> answer;
      answer.own = token.x.data();
      const RecurrenceGradients<double> gradients{.stride = 0,
                                                  .dr = dk.data(),
                                                  .da = token.da.data(),
                                                  .dq = negative_y.data(),
                                                  .ddecay = &token.dgamma};
      rule_.unbind(CpuToken<double>(d_, one, 0, inputs, answer, gradients, &out));
    }
  }

 private:
  Vec row(const double* rows, Index i) const { return Vec(rows + i * d_, rows + (i + 1) * d_); }

  MesaRule rule_;
  Index d_;
  Vec lambda_;
  std::vector<Token> history_;
  Tile tile_{};
};

class ReferenceRule final : public RecurrentRule<double> {
 public:
  ReferenceRule(const MesaOptions& options, Index d)
      : RecurrentRule<double>(d), options_(options), form_(MesaRule{options.as_given}.form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<double>> make_lane() const override {
    return std::make_unique<ReferenceLane>(MesaRule{options_.as_given}, d());
  }
  std::unique_ptr<HeadMemory<double>> make_memory(Index head) const override {
    return make_chain_rule<double>(options_, d())->make_memory(head);
  }
  Index own_state_size(Index d) const override { return d * d; }

 private:
  MesaOptions options_;
  RecurrenceForm form_;
};

}  // namespace
}  // namespace mixers

std::unique_ptr<mixers::RecurrentRule<double>> make_reference_rule(const MesaOptions& options,
                                                                   Index d_h) {
  return std::make_unique<mixers::ReferenceRule>(options, d_h);
}

}  // namespace vla_bench
