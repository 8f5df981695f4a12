// The penalty matrix A of vla.h in plain double-precision loops, one step at a time, every A kept;
// numbers in parentheses are its steps. S is the reference's of recurrence.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/recurrence/cpu_token.h"
#include "mixers/reference.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_memory.h"
#include "mixers/vla/vla_rule.h"

namespace vla_bench {
namespace mixers {
namespace vla {
namespace {

using namespace reference;  // NOLINT: the whole file is written in its terms

/// A token's values, named as in vla.h.
struct Token {
  Vec k, u, w, b, a;
  double delta = 1.0;          // before its clamp
  Square before{0}, after{0};  // A_{t-1}; A_t as (4) sees it
  Vec da, dk, df;              // what the memory's backward leaves
};

class ReferenceLane final : public LaneRule<double> {
 public:
  ReferenceLane(const VlaOptions& config, Index d)
      : config_(config), rule_(config, d), d_(d), A_(d) {}

  /// A lane of 0 tokens is a memory, which keeps only the latest token.
  void start(Index tokens, double* /*kept*/) override {
    keeps_ = tokens > 0;
    history_.clear();
    A_ = Square(d_);
    for (std::size_t i = 0; i < A_.d; ++i) A_(i, i) = 1.0 / config_.lambda_0;
  }

  void bind(const Tile& tile, const CoreInputs<double>& inputs,
            const RecurrenceRows<double>& rows) override {
    Vec u = zeros(tile.count * d_);
    RecurrenceRows<double> with_u = rows;
    with_u.own = u.data();
    for (Index i = 0; i < tile.count; ++i) {
      rule_.bind(CpuToken<double>(d_, tile, i, inputs, with_u));
      run_token(tile.first + i, row(rows.r, i), row(u.data(), i), rows.a + i * rows.stride);
    }
  }

  void bind_key(const Tile& tile, const double* key, const RecurrenceRows<double>& rows) override {
    std::copy_n(key, d_, rows.r);
    const Vec k = row(key, 0);
    const bool learned = rule_.penalty == Penalty::learned;
    run_token(tile.first, k, learned ? row(direction_, 0) : scaled(k, rule_.u_scale), rows.a);
  }
  void set_direction(const double* direction) { direction_ = direction; }
  std::vector<double> penalty_matrix() const { return A_.values; }

  void unbind(const Tile& tile, const CoreInputs<double>& inputs,
              const RecurrenceGradients<double>& gradients,
              const CoreGradients<double>& out) override {
    tile_ = tile;
    for (Index i = 0; i < tile.count; ++i) {
      rule_.unbind_query(CpuToken<double>(d_, tile, i, inputs, {}, gradients, &out));
      Token& token = history_[static_cast<std::size_t>(i)];
      token.da = row(gradients.da, i);
      token.dk = rule_.tied ? zeros(d_) : row(gradients.dr, i);
      token.df = rule_.normalises ? row(gradients.df, i) : zeros(d_);
    }
  }

  void finish(const CoreInputs<double>& inputs, const CoreGradients<double>& out) override {
    Square G(d_);
    for (Index t = tile_.count - 1; t >= 0; --t) {
      Token& token = history_[static_cast<std::size_t>(t)];
      const bool frozen = rule_.penalty == Penalty::frozen;
      const Vec du = frozen ? Vec() : token_backward(token, G);
      const RecurrenceGradients<double> gradients{.stride = 0,
                                                  .dr = token.dk.data(),
                                                  .da = token.da.data(),
                                                  .df = token.df.data(),
                                                  .down = du.data()};
      rule_.unbind_key(CpuToken<double>(d_, tile_, t, inputs, {}, gradients, &out));
    }
  }

 private:
  Vec row(const double* rows, Index i) const { return Vec(rows + i * d_, rows + (i + 1) * d_); }

  /// (2) to (4)
  void run_token(Index t, const Vec& k, const Vec& u, double* a) {
    Token token;
    token.k = k;
    token.u = u;
    token.before = A_;
    const bool held = config_.hold_after > 0 && t >= config_.hold_after;
    bool nudged = false;
    const auto nudge = [&] {
      for (std::size_t i = 0; i < A_.d; ++i) A_(i, i) += config_.per_eps;
    };
    if (rule_.penalty != Penalty::frozen) {
      token.w = held ? zeros(d_) : times(A_, u);
      token.delta = 1.0 + dot(u, token.w);
      add_outer(A_, token.w, token.w, -1.0 / std::max(token.delta, config_.stab_eps));
      nudged = !held && config_.period > 0 && (t + 1) % config_.period == 0;
    }
    if (nudged && !config_.gain) nudge();
    token.after = A_;
    token.b = times(A_, k);
    if (nudged && config_.gain) nudge();
    token.a = config_.write == WriteDirection::unit ? unit(token.b) : token.b;
    std::copy(token.a.begin(), token.a.end(), a);
    if (!keeps_) history_.clear();
    history_.push_back(std::move(token));
  }

  /// (4) and (2): adds to dk; G = dA moves to the token before. Returns du.
  Vec token_backward(Token& token, Square& G) const {
    const bool is_unit = config_.write == WriteDirection::unit;
    const Vec db = is_unit ? unit_backward(token.b, token.da) : token.da;
    add(token.dk, times(token.after, db));
    Vec du = zeros(d_);
    add_outer(G, db, token.k);
    const double clamped = std::max(token.delta, config_.stab_eps);
    Vec dw = scaled(times(G, token.w), -1.0 / clamped);
    add(dw, transposed_times(G, token.w), -1.0 / clamped);
    if (!(token.delta < config_.stab_eps)) {
      const double d_delta = dot(token.w, times(G, token.w)) / (clamped * clamped);
      add(dw, token.u, d_delta);
      add(du, token.w, d_delta);
    }
    add(du, transposed_times(token.before, dw));
    add_outer(G, dw, token.u);
    return du;
  }

  VlaOptions config_;
  VlaRule rule_;
  Index d_;
  bool keeps_ = false;
  Square A_;
  std::vector<Token> history_;
  Tile tile_{};
  const double* direction_ = nullptr;
};

class ReferenceRule final : public RecurrentRule<double> {
 public:
  ReferenceRule(const VlaOptions& config, Index d)
      : RecurrentRule<double>(d), config_(config), form_(VlaRule(config, d).form()) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<double>> make_lane() const override {
    return std::make_unique<ReferenceLane>(config_, d());
  }
  std::unique_ptr<HeadMemory<double>> make_memory(Index head) const override {
    return std::make_unique<VlaMemory<double, ReferenceLane>>(
        form_, d(), head, std::make_unique<ReferenceLane>(config_, d()));
  }
  Index own_state_size(Index d) const override { return VlaRule(config_, d).own_state_size(d); }

 private:
  VlaOptions config_;
  RecurrenceForm form_;
};

}  // namespace
}  // namespace vla
}  // namespace mixers

std::unique_ptr<mixers::RecurrentRule<double>> make_reference_rule(const VlaOptions& options,
                                                                   Index d_h) {
  return std::make_unique<mixers::vla::ReferenceRule>(options, d_h);
}

}  // namespace vla_bench
