// recurrence.h in plain double-precision loops, one step at a time, every state kept; numbers are
// its steps. The production forms are tested against it; it is never optimised.
#include <algorithm>
#include <vector>

#include "mixers/recurrence/recurrence.h"
#include "mixers/reference.h"

namespace vla_bench::mixers {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms
using Residual = RecurrenceForm::Residual;

struct Token {
  Vec v, r, a, q, f;
  Vec decay;           // 1 value (head) or d
  Vec e;               // residual
  Grid before, after;  // S_{t-1}, S_t
  Vec z;               // after this token
  double denominator = 1.0;
  double c = 1.0;
  Vec o;
};

class RecurrentReference final : public MixerCore<double> {
 public:
  explicit RecurrentReference(std::unique_ptr<RecurrentRule<double>> rule)
      : rule_(std::move(rule)), form_(rule_->form()), d_(rule_->d()) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      Lane lane(*this, inputs, batch, head);
      for (Index t = 0; t < inputs.dims.tokens; ++t) {
        put(o, lane.tile.row(t), head, lane.history[static_cast<std::size_t>(t)].o);
      }
    });
  }

  void backward(const Context& /*context*/, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>& /*saved*/) override {
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      Lane lane(*this, inputs, batch, head);
      backward_lane(lane, inputs, gradients);
    });
  }

  std::unique_ptr<HeadMemory<double>> memory(Index head) const override {
    return rule_->make_memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * state_size(*rule_, d_, dims.value_channels()) *
           static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }  // computed again

 private:
  /// The rows of all tokens of a lane.
  struct Rows {
    explicit Rows(Index tokens, Index d) : size(static_cast<std::size_t>(tokens * d)) {}
    std::size_t size;
    Vec r = Vec(size), a = Vec(size), q = Vec(size), f = Vec(size), decay = Vec(size);
  };

  /// A lane after its forward pass.
  struct Lane {
    Lane(const RecurrentReference& core, const CoreInputs<double>& inputs, Index batch, Index head)
        : tile{.batch = batch,
               .head = head,
               .tokens = inputs.dims.tokens,
               .first = 0,
               .count = inputs.dims.tokens},
          kept(static_cast<std::size_t>(core.rule_->kept_size(inputs.dims.tokens))),
          rule(core.rule_->make_lane()) {
      Rows rows(tile.tokens, core.d_);
      rule->start(tile.tokens, kept.data());
      rule->bind(tile, inputs,
                 {.stride = core.d_,
                  .r = rows.r.data(),
                  .a = rows.a.data(),
                  .q = rows.q.data(),
                  .f = rows.f.data(),
                  .decay = rows.decay.data()});
      Grid S(inputs.dims.value_channels(), core.d_);
      Vec z = zeros(core.d_);
      for (Index t = 0; t < tile.tokens; ++t) {
        history.push_back(core.run_token(core.take_token(inputs, tile, rows, t), S, z));
      }
    }

    Tile tile;
    Vec kept;
    std::unique_ptr<LaneRule<double>> rule;
    std::vector<Token> history;
  };

  template <class Body>
  static void for_each_lane(const HeadDims& dims, const Body& body) {
    for (Index batch = 0; batch < dims.batch; ++batch) {
      for (Index head = 0; head < dims.heads; ++head) body(batch, head);
    }
  }

  Token take_token(const CoreInputs<double>& inputs, const Tile& tile, const Rows& rows,
                   Index t) const {
    const auto row = [&](const Vec& all, Index width) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(t * width);
      return Vec(first, first + static_cast<std::ptrdiff_t>(width));
    };
    Token token{.v = get(inputs.v, tile.row(t), tile.head, inputs.dims.value_channels()),
                .r = row(rows.r, d_),
                .a = row(rows.a, d_),
                .q = row(rows.q, d_),
                .f = row(rows.f, d_),
                .decay = row(rows.decay, form_.decay == Decay::head ? 1 : d_),
                .e = {},
                .before = Grid(0, 0),
                .after = Grid(0, 0),
                .z = {},
                .o = {}};
    if (form_.residual == Residual::along_a) token.r = token.a;
    if (form_.normaliser == RecurrenceForm::Normaliser::sums_a) token.f = token.a;
    return token;
  }

  /// D_t(S)
  void scale(const Token& token, Grid& S) const {
    for (std::size_t i = 0; i < S.rows; ++i) {
      for (std::size_t j = 0; j < S.columns; ++j) {
        if (form_.decay == Decay::head) S(i, j) *= token.decay[0];
        if (form_.decay == Decay::rows) S(i, j) *= token.decay[i];
        if (form_.decay == Decay::columns) S(i, j) *= token.decay[j];
      }
    }
  }

  Token run_token(Token token, Grid& S, Vec& z) const {
    token.before = S;
    token.e = token.v;
    if (form_.has_residual()) add(token.e, times(S, token.r), -1.0);  // 1
    scale(token, S);                                                  // 2
    add_outer(S, token.e, token.a);
    token.after = S;
    if (form_.normalises()) {  // 3
      add(z, token.f);
      token.denominator = dot(z, token.q);
      token.c = 1.0 / std::max(token.denominator, form_.floor);
    }
    token.z = z;
    token.o = scaled(times(S, token.q), token.c);  // 4
    return token;
  }

  /// dD
  Vec decay_gradient(const Grid& dS, const Grid& before) const {
    Vec gradient = zeros(form_.decay == Decay::head ? 1 : d_);
    for (std::size_t i = 0; i < dS.rows; ++i) {
      for (std::size_t j = 0; j < dS.columns; ++j) {
        const std::size_t of = form_.decay == Decay::rows      ? i
                               : form_.decay == Decay::columns ? j
                                                               : 0;
        gradient[of] += dS(i, j) * before(i, j);
      }
    }
    return gradient;
  }

  void backward_lane(Lane& lane, const CoreInputs<double>& inputs,
                     const CoreGradients<double>& gradients) const {
    Rows d_rows(lane.tile.tokens, d_);
    const auto keep = [](const Vec& values, Index t, Vec& rows) {
      std::copy(values.begin(), values.end(),
                rows.begin() + t * static_cast<std::ptrdiff_t>(values.size()));
    };
    const Index d_v = inputs.dims.value_channels();
    Grid dS(d_v, d_);
    Vec dz = zeros(d_);
    for (Index t = lane.tile.tokens - 1; t >= 0; --t) {
      const Token& token = lane.history[static_cast<std::size_t>(t)];
      const Index row = lane.tile.row(t);
      const Vec g = get(gradients.d_o, row, lane.tile.head, d_v);
      // 4
      const Vec dn = scaled(g, token.c);
      add_outer(dS, dn, token.q);
      Vec dq = transposed_times(token.after, dn);
      // 3
      if (form_.normalises() && !(token.denominator < form_.floor)) {
        const double dc = -dot(g, token.o) * token.c;
        add(dz, token.q, dc);
        add(dq, token.z, dc);
      }
      // 2
      const Vec de = times(dS, token.a);
      Vec da = transposed_times(dS, token.e);
      if (form_.decay_has_gradient) keep(decay_gradient(dS, token.before), t, d_rows.decay);
      scale(token, dS);
      // 1
      put(gradients.dv, row, lane.tile.head, de);
      if (form_.has_residual()) {
        const Vec dr = scaled(transposed_times(token.before, de), -1.0);
        keep(dr, t, d_rows.r);
        if (form_.residual == Residual::along_a) add(da, dr);
        add_outer(dS, de, token.r, -1.0);
      }
      if (form_.normaliser == RecurrenceForm::Normaliser::sums_a) add(da, dz);
      keep(dz, t, d_rows.f);
      keep(da, t, d_rows.a);
      keep(dq, t, d_rows.q);
    }
    lane.rule->unbind(lane.tile, inputs,
                      {.stride = d_,
                       .dr = d_rows.r.data(),
                       .da = d_rows.a.data(),
                       .dq = d_rows.q.data(),
                       .df = d_rows.f.data(),
                       .ddecay = d_rows.decay.data()},
                      gradients);
    lane.rule->finish(inputs, gradients);
  }

  std::unique_ptr<RecurrentRule<double>> rule_;
  RecurrenceForm form_;
  Index d_;
};

}  // namespace

std::unique_ptr<MixerCore<double>> make_recurrent_reference(
    std::unique_ptr<RecurrentRule<double>> rule) {
  return std::make_unique<RecurrentReference>(std::move(rule));
}

}  // namespace vla_bench::mixers
