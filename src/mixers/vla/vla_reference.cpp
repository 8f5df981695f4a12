// VLA in plain double-precision loops: the equations of vla.h, one at a time, every state kept.
// Read it beside the paper; the production core is tested against it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mixers/feature_map.h"
#include "mixers/vla/vla.h"

namespace vla_bench::mixers {
namespace {

using Vec = std::vector<double>;

/// Row-major d x d.
struct Mat {
  Index d;
  Vec values;

  explicit Mat(Index size) : d(size), values(static_cast<std::size_t>(size * size), 0.0) {}
  double& operator()(Index i, Index j) { return values[static_cast<std::size_t>(i * d + j)]; }
  double operator()(Index i, Index j) const { return values[static_cast<std::size_t>(i * d + j)]; }
};

double dot(const Vec& x, const Vec& y) {
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

double norm(const Vec& x) { return std::sqrt(dot(x, x)); }

Vec scaled(const Vec& x, double factor) {
  Vec y = x;
  for (double& value : y) value *= factor;
  return y;
}

void add_scaled(Vec& y, double factor, const Vec& x) {
  for (std::size_t i = 0; i < x.size(); ++i) y[i] += factor * x[i];
}

Vec unit(const Vec& x) { return scaled(x, 1.0 / std::max(norm(x), kUnitFloor)); }

/// Gradient of unit(x) for upstream dy.
Vec unit_backward(const Vec& x, const Vec& dy) {
  const double length = norm(x);
  if (length < kUnitFloor) return scaled(dy, 1.0 / kUnitFloor);
  const Vec y = scaled(x, 1.0 / length);
  Vec dx = dy;
  add_scaled(dx, -dot(y, dy), y);
  return scaled(dx, 1.0 / length);
}

Vec times(const Mat& m, const Vec& x) {
  Vec y(x.size(), 0.0);
  for (Index i = 0; i < m.d; ++i) {
    for (Index j = 0; j < m.d; ++j) {
      y[static_cast<std::size_t>(i)] += m(i, j) * x[static_cast<std::size_t>(j)];
    }
  }
  return y;
}

Vec transposed_times(const Mat& m, const Vec& x) {
  Vec y(x.size(), 0.0);
  for (Index i = 0; i < m.d; ++i) {
    for (Index j = 0; j < m.d; ++j) {
      y[static_cast<std::size_t>(j)] += m(i, j) * x[static_cast<std::size_t>(i)];
    }
  }
  return y;
}

void add_outer(Mat& m, double factor, const Vec& x, const Vec& y) {
  for (Index i = 0; i < m.d; ++i) {
    for (Index j = 0; j < m.d; ++j) {
      m(i, j) += factor * x[static_cast<std::size_t>(i)] * y[static_cast<std::size_t>(j)];
    }
  }
}

double frobenius(const Mat& m) { return norm(m.values); }

/// A token's values, named as in vla.h.
struct Token {
  Vec q_raw, kappa, v, aux;
  Vec q, f, k, u, w, b, a, e, o;
  double delta = 1.0;        // before its clamp
  double denominator = 1.0;  // before its clamp
};

struct State {
  Mat a, s;
  Vec z;

  State(Index d, double lambda_0) : a(d), s(d), z(static_cast<std::size_t>(d), 0.0) {
    for (Index i = 0; i < d; ++i) a(i, i) = 1.0 / lambda_0;
  }
};

struct TokenGradients {
  Vec dq, dkappa, dv, daux;
};

/// One lane: `history[t]` is the state before token t.
class Lane {
 public:
  Lane(const VlaOptions& config, Index d) : config_(config), d_(d), u_scale_(config.u_length(d)) {
    history.emplace_back(d, config.lambda_0);
  }

  void write(Token token) {
    const Vec& kappa = token.kappa;
    token.q = features(token.q_raw);
    token.f = features(kappa);
    token.k = unit(token.f);
    if (config_.penalty == Penalty::learned) token.u = scaled(unit(token.aux), u_scale_);
    write_features(std::move(token));
  }

  /// (2) to (8), after (1).
  void write_features(Token token) {
    if (config_.penalty != Penalty::learned) token.u = scaled(token.k, u_scale_);
    State state = history.back();
    if (config_.penalty != Penalty::frozen) {
      token.w = times(state.a, token.u);
      token.delta = 1.0 + dot(token.u, token.w);
      add_outer(state.a, -1.0 / std::max(token.delta, config_.stab_eps), token.w, token.w);
      if (next_is_nudged()) {
        for (Index i = 0; i < d_; ++i) state.a(i, i) += config_.per_eps;
      }
    }
    token.b = times(state.a, token.k);
    token.a = config_.write == WriteDirection::unit ? unit(token.b) : token.b;
    token.e = token.v;
    add_scaled(token.e, -1.0, times(state.s, residual_direction(token)));
    add_outer(state.s, 1.0, token.e, token.a);
    add_scaled(state.z, 1.0, token.f);
    double scale = 1.0;
    if (config_.normaliser == Normaliser::zq) {
      token.denominator = dot(state.z, token.q);
      scale = 1.0 / std::max(token.denominator, config_.stab_eps);
    }
    token.o = scaled(times(state.s, token.q), scale);
    tokens.push_back(std::move(token));
    history.push_back(std::move(state));
  }

  /// d_o[t] upstream; gradients[t] of the raw inputs.
  std::vector<TokenGradients> backward(const std::vector<Vec>& d_o) const;

  /// Drops everything but the newest state and token.
  void forget() {
    forgotten_ += static_cast<Index>(tokens.size()) - 1;
    history.erase(history.begin(), history.end() - 1);
    tokens.erase(tokens.begin(), tokens.end() - 1);
  }

  std::vector<State> history;
  std::vector<Token> tokens;

 private:
  /// Whether the nudge follows the token that is being written.
  bool next_is_nudged() const {
    const Index token = forgotten_ + static_cast<Index>(tokens.size());  // from 0
    return config_.period > 0 && (token + 1) % config_.period == 0;
  }
  const Vec& residual_direction(const Token& token) const {
    return config_.residual == Residual::key ? token.k : token.a;
  }
  Vec features(const Vec& x) const {
    Vec y(x.size());
    apply_feature_map(config_.feature_map, x.data(), y.data(), d_);
    return y;
  }

  VlaOptions config_;
  Index d_;
  double u_scale_;
  Index forgotten_ = 0;  // tokens
};

std::vector<TokenGradients> Lane::backward(const std::vector<Vec>& d_o) const {
  const std::size_t size = static_cast<std::size_t>(d_);
  std::vector<TokenGradients> gradients(tokens.size());
  Mat ds(d_);
  Mat da_matrix(d_);
  Vec dz(size, 0.0);
  for (std::size_t t = tokens.size(); t-- > 0;) {
    const Token& token = tokens[t];
    const State& before = history[t];
    const State& after = history[t + 1];
    const bool normalised = config_.normaliser == Normaliser::zq;
    const double scale = normalised ? 1.0 / std::max(token.denominator, config_.stab_eps) : 1.0;
    // (8)
    const Vec dn = scaled(d_o[t], scale);
    add_outer(ds, 1.0, dn, token.q);
    Vec dq = transposed_times(after.s, dn);
    // (7)
    if (normalised && !(token.denominator < config_.stab_eps)) {
      const double dc = -dot(d_o[t], token.o) * scale;
      add_scaled(dz, dc, token.q);
      add_scaled(dq, dc, after.z);
    }
    Vec df = dz;
    // (6)
    const Vec de = times(ds, token.a);
    Vec da = transposed_times(ds, token.e);
    // (5)
    Vec dk(size, 0.0);
    const Vec dr = scaled(transposed_times(before.s, de), -1.0);
    add_scaled(config_.residual == Residual::key ? dk : da, 1.0, dr);
    add_outer(ds, -1.0, de, residual_direction(token));
    // (4)
    const Vec db = config_.write == WriteDirection::unit ? unit_backward(token.b, da) : da;
    add_scaled(dk, 1.0, times(after.a, db));
    // (3), (2)
    Vec du(size, 0.0);
    if (config_.penalty != Penalty::frozen) {
      add_outer(da_matrix, 1.0, db, token.k);
      const double clamped = std::max(token.delta, config_.stab_eps);
      Vec dw = scaled(times(da_matrix, token.w), -1.0 / clamped);
      add_scaled(dw, -1.0 / clamped, transposed_times(da_matrix, token.w));
      if (!(token.delta < config_.stab_eps)) {
        const double d_delta = dot(token.w, times(da_matrix, token.w)) / (clamped * clamped);
        add_scaled(dw, d_delta, token.u);
        add_scaled(du, d_delta, token.w);
      }
      add_scaled(du, 1.0, transposed_times(before.a, dw));
      add_outer(da_matrix, 1.0, dw, token.u);
    }
    // (1)
    TokenGradients& out = gradients[t];
    if (config_.penalty == Penalty::learned) {
      out.daux = unit_backward(token.aux, scaled(du, u_scale_));
    } else if (config_.penalty == Penalty::key) {
      add_scaled(dk, u_scale_, du);
    }
    add_scaled(df, 1.0, unit_backward(token.f, dk));
    out.dkappa.resize(size);
    feature_map_backward(config_.feature_map, token.kappa.data(), token.f.data(), df.data(),
                         out.dkappa.data(), d_);
    out.dq.resize(size);
    feature_map_backward(config_.feature_map, token.q_raw.data(), token.q.data(), dq.data(),
                         out.dq.data(), d_);
    out.dv = de;
  }
  return gradients;
}

Vec vector_at(const HeadView<const double>& view, Index row, Index head, Index d) {
  if (view.empty()) return {};
  const double* from = view.at(row, head);
  return Vec(from, from + d);
}

void store_at(const HeadView<double>& view, Index row, Index head, const Vec& values) {
  if (!view.empty()) std::copy(values.begin(), values.end(), view.at(row, head));
}

class VlaReferenceMemory final : public HeadMemory<double> {
 public:
  VlaReferenceMemory(const VlaOptions& config, Index d)
      : config_(config), d_(d), lane_(config, d) {}

  void reset() override { lane_ = Lane(config_, d_); }
  void step(const double* q, const double* k, const double* v, const double* aux,
            double* o) override {
    Token token{.q_raw = Vec(q, q + d_), .kappa = Vec(k, k + d_), .v = Vec(v, v + d_), .aux = {}};
    if (config_.penalty == Penalty::learned) token.aux.assign(aux, aux + d_);
    lane_.write(std::move(token));
    lane_.forget();
    std::copy(lane_.tokens.back().o.begin(), lane_.tokens.back().o.end(), o);
  }
  void write(const double* key, const double* value, const double* direction) override {
    Token token;
    token.k = token.f = token.q = Vec(key, key + d_);
    token.v = Vec(value, value + d_);
    if (config_.penalty == Penalty::learned) token.u.assign(direction, direction + d_);
    lane_.write_features(std::move(token));
    lane_.forget();
  }
  void read(const double* query, double* out) const override {
    const Vec result = times(lane_.history.back().s, Vec(query, query + d_));
    std::copy(result.begin(), result.end(), out);
  }
  double state_norm() const override { return frobenius(lane_.history.back().s); }
  std::optional<double> penalty_norm() const override { return frobenius(lane_.history.back().a); }
  std::optional<StepJacobian> jacobian() const override {
    if (lane_.tokens.empty()) return std::nullopt;
    const Token& token = lane_.tokens.back();
    return StepJacobian{config_.residual == Residual::key ? token.k : token.a, token.a};
  }

 private:
  VlaOptions config_;
  Index d_;
  Lane lane_;
};

class VlaReference final : public MixerCore<double> {
 public:
  VlaReference(const VlaOptions& config, Index d_h) : config_(config), d_(d_h) {}

  void forward(const Context&, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>*) override {
    for_each_lane(inputs, [&](const Lane& lane, Index first_row, Index head) {
      for (std::size_t t = 0; t < lane.tokens.size(); ++t) {
        store_at(o, first_row + static_cast<Index>(t), head, lane.tokens[t].o);
      }
    });
  }

  void backward(const Context&, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>&) override {
    for_each_lane(inputs, [&](const Lane& lane, Index first_row, Index head) {
      std::vector<Vec> d_o;
      for (std::size_t t = 0; t < lane.tokens.size(); ++t) {
        d_o.push_back(vector_at(gradients.d_o, first_row + static_cast<Index>(t), head, d_));
      }
      const std::vector<TokenGradients> result = lane.backward(d_o);
      for (std::size_t t = 0; t < result.size(); ++t) {
        const Index row = first_row + static_cast<Index>(t);
        store_at(gradients.dq, row, head, result[t].dq);
        store_at(gradients.dk, row, head, result[t].dkappa);
        store_at(gradients.dv, row, head, result[t].dv);
        store_at(gradients.daux, row, head, result[t].daux);
      }
    });
  }

  std::unique_ptr<HeadMemory<double>> memory() const override {
    return std::make_unique<VlaReferenceMemory>(config_, d_);
  }
  Index state_bytes(const HeadDims& dims) const override {
    const Index matrices = config_.penalty == Penalty::frozen ? 1 : 2;  // S, and A unless it stays
    return dims.lanes() * (matrices * d_ + 1) * d_ * static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims&) const override { return 0; }  // backward runs forward again

 private:
  template <class Body>
  void for_each_lane(const CoreInputs<double>& inputs, const Body& body) const {
    const HeadDims& dims = inputs.dims;
    for (Index batch = 0; batch < dims.batch; ++batch) {
      for (Index head = 0; head < dims.heads; ++head) {
        Lane lane(config_, d_);
        for (Index t = 0; t < dims.tokens; ++t) {
          const Index row = batch * dims.tokens + t;
          Token token;
          token.q_raw = vector_at(inputs.q, row, head, d_);
          token.kappa = vector_at(inputs.k, row, head, d_);
          token.v = vector_at(inputs.v, row, head, d_);
          token.aux = vector_at(inputs.aux, row, head, d_);
          lane.write(std::move(token));
        }
        body(lane, batch * dims.tokens, head);
      }
    }
  }

  VlaOptions config_;
  Index d_;
};

}  // namespace

std::unique_ptr<MixerCore<double>> make_vla_reference(const MixerConfig& config, Index d_h) {
  return std::make_unique<VlaReference>(config.get<VlaOptions>(), d_h);
}

}  // namespace vla_bench::mixers
