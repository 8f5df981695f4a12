// vla_chunked.h in double precision, one step at a time; numbers are its steps. The chunked forms
// are tested against it; it is never optimised.
#define EIGEN_DONT_PARALLELIZE  // one thread, as the other references
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "core/error.h"
#include "mixers/recurrence/cpu_token.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_chunked.h"
#include "mixers/vla/vla_rule.h"

namespace vla_bench {
namespace mixers {
namespace vla {
namespace {

using Matrix = Eigen::MatrixXd;  // tokens are columns, one behind the other in memory
using Vector = Eigen::VectorXd;

Matrix sym(const Matrix& m) { return 0.5 * (m + m.transpose()); }
Matrix tril(const Matrix& m) { return m.triangularView<Eigen::Lower>(); }
Matrix triu(const Matrix& m) { return m.triangularView<Eigen::Upper>(); }
/// Returns m L^-T and m L^-1.
Matrix over_transposed(const Matrix& m, const Matrix& L) {
  return L.transpose().triangularView<Eigen::Upper>().solve<Eigen::OnTheRight>(m);
}
Matrix over(const Matrix& m, const Matrix& L) {
  return L.triangularView<Eigen::Lower>().solve<Eigen::OnTheRight>(m);
}

/// A chunk's tokens.
struct Chunk {
  Index first;
  Matrix u, k;           // (d, C); k only where directions are wanted
  Vector before, after;  // (C): per_eps times the nudges
  bool along_key;        // every u is u_scale k
};

/// Nudges up to and including the one that follows the lane's token number `token` (from 1).
Index nudges(const VlaOptions& options, Index token) {
  if (options.period == 0) return 0;
  if (options.hold_after > 0) token = std::min(token, options.hold_after);
  return token / options.period;
}

Chunk make_chunk(const VlaOptions& options, Index first, const Matrix& u, const Matrix& k) {
  const Index C = u.cols();
  Chunk chunk{.first = first,
              .u = u,
              .k = k,
              .before = Vector(C),
              .after = Vector(C),
              .along_key = options.penalty == Penalty::key && options.u_length(u.rows()) > 0};
  const auto since_entry = [&](Index token) {
    return options.per_eps * static_cast<double>(nudges(options, token) - nudges(options, first));
  };
  for (Index t = 0; t < C; ++t) {
    chunk.before(t) = since_entry(first + t);
    chunk.after(t) = since_entry(first + t + 1);
    if (options.hold_after > 0 && first + t >= options.hold_after) {
      chunk.u.col(t).setZero();
      chunk.along_key = false;
    }
  }
  return chunk;
}

/// 2
struct Cholesky {
  Matrix L;
  std::vector<bool> floored;
  bool any_floored = false;
  Index low_pivots = 0;
};
/// Of the symmetric matrix that has M's lower triangle.
Cholesky factor(const Matrix& M, double floor) {
  const Index C = M.rows();
  Cholesky cholesky{.L = Matrix::Zero(C, C),
                    .floored = std::vector<bool>(static_cast<std::size_t>(C))};
  Matrix& L = cholesky.L;
  for (Index t = 0; t < C; ++t) {
    const Index below = C - 1 - t;
    const double delta = M(t, t) - L.row(t).head(t).squaredNorm();
    if (!(delta >= kLeastPivot)) ++cholesky.low_pivots;
    if (delta < floor) {
      cholesky.any_floored = cholesky.floored[static_cast<std::size_t>(t)] = true;
    }
    L(t, t) = std::sqrt(std::max(delta, floor));
    L.col(t).tail(below) =
        (M.col(t).tail(below) - L.bottomLeftCorner(below, t) * L.row(t).head(t).transpose()) /
        L(t, t);
  }
  return cholesky;
}

/// A chunk going forward.
struct Pass {
  Matrix A;  // at entry
  Matrix W, Z;
  Cholesky cholesky;
};

/// 1 to 3 and 5; moves A to the chunk's exit.
Pass pass_forward(const Chunk& chunk, double floor, Matrix& A) {
  const Index C = chunk.u.cols();
  Pass pass{.A = A, .W = {}, .Z = {}, .cholesky = {}};
  pass.W = A * chunk.u + chunk.u * chunk.before.asDiagonal();
  pass.cholesky = factor(Matrix::Identity(C, C) + tril(chunk.u.transpose() * pass.W), floor);
  pass.Z = over_transposed(pass.W, pass.cholesky.L);
  A = sym(A - pass.Z * pass.Z.transpose());
  A.diagonal().array() += chunk.after(C - 1);
  return pass;
}

/// b of 4
Matrix directions(const Chunk& chunk, const Pass& pass, double u_length) {
  if (chunk.along_key && !pass.cholesky.any_floored) {
    const Vector scales = (u_length * pass.cholesky.L.diagonal()).cwiseInverse();
    return pass.Z * scales.asDiagonal() + chunk.k * (chunk.after - chunk.before).asDiagonal();
  }
  return pass.A * chunk.k + chunk.k * chunk.after.asDiagonal() -
         pass.Z * triu(pass.Z.transpose() * chunk.k);
}

/// 9, no pivot at its floor
Matrix factor_gradient(const Matrix& L, const Matrix& dZ, const Matrix& Z) {
  const Matrix lower = dZ.transpose() * Z;
  const Matrix R = lower.selfadjointView<Eigen::Lower>();
  const Matrix left = L.transpose().triangularView<Eigen::Upper>().solve(R);
  Matrix dM = -tril(over(left, L));
  dM.diagonal() *= 0.5;
  return dM;
}

/// 9, pivot by pivot
Matrix floored_factor_gradient(const Cholesky& cholesky, Matrix dL) {
  const Matrix& L = cholesky.L;
  const Index C = L.rows();
  Matrix dM = Matrix::Zero(C, C);
  for (Index j = C - 1; j >= 0; --j) {
    const Index below = C - 1 - j;
    dM.col(j).tail(below) = dL.col(j).tail(below) / L(j, j);
    const double d_pivot = dL(j, j) - dM.col(j).tail(below).dot(L.col(j).tail(below));
    dL.bottomLeftCorner(below, j) -= dM.col(j).tail(below) * L.row(j).head(j);
    dL.row(j).head(j) -= dM.col(j).tail(below).transpose() * L.bottomLeftCorner(below, j);
    if (!cholesky.floored[static_cast<std::size_t>(j)]) dM(j, j) = d_pivot / (2.0 * L(j, j));
    dL.row(j).head(j) -= 2.0 * dM(j, j) * L.row(j).head(j);
  }
  return dM;
}

/// 7
Matrix key_gradient(const Chunk& chunk, const Pass& pass, const Matrix& db) {
  return pass.A * db + db * chunk.after.asDiagonal() - pass.Z * triu(pass.Z.transpose() * db);
}

/// 8 to 11; moves G to the chunk's entry and returns du.
Matrix pass_backward(const Chunk& chunk, const Pass& pass, const Matrix& db, Matrix& G) {
  const Matrix& Z = pass.Z;
  const Matrix dZ =
      -2.0 * G * Z - db * tril(chunk.k.transpose() * Z) - chunk.k * tril(db.transpose() * Z);
  const Matrix Y = over(dZ, pass.cholesky.L);
  const Matrix dM = pass.cholesky.any_floored
                        ? floored_factor_gradient(pass.cholesky, -tril(Y.transpose() * Z))
                        : factor_gradient(pass.cholesky.L, dZ, Z);
  const Matrix dW = Y + chunk.u * dM;
  const Matrix du = pass.A * dW + dW * chunk.before.asDiagonal() + pass.W * dM.transpose();
  G += sym(db * chunk.k.transpose() + dW * chunk.u.transpose());
  return du;
}

/// R of R R^T = J, positive semidefinite: Cholesky, the largest pivot first, until only rounding is
/// left. In the order of channels, a small pivot of a singular J would leave an error of 1e-16 over
/// that pivot.
Matrix root(const Matrix& J) {
  Matrix left = J, R = Matrix::Zero(J.rows(), J.cols());
  const double least = 1e-15 * J.diagonal().maxCoeff();
  for (Index column = 0; column < J.cols(); ++column) {
    Index largest = 0;
    const double pivot = left.diagonal().maxCoeff(&largest);
    if (!(pivot > least)) break;
    R.col(column) = left.col(largest) / std::sqrt(pivot);
    left -= R.col(column) * R.col(column).transpose();
  }
  return R;
}

/// 12
PenaltyElement start_of_element(Index d) {
  return {.E = Matrix::Identity(d, d), .C = Matrix::Zero(d, d), .J = Matrix::Zero(d, d)};
}
void extend(PenaltyElement& element, const Chunk& chunk) {
  const Pass pass = pass_forward(chunk, 0.0, element.C);
  const Matrix Y = over_transposed(element.E.transpose() * chunk.u, pass.cholesky.L);
  element.E -= pass.Z * Y.transpose();
  element.J += Y * Y.transpose();
}

using Segment = std::vector<Chunk>;

std::vector<Segment> cut(const VlaOptions& options, const ChunkPlan& plan, const Matrix& u,
                         const Matrix& k) {
  std::vector<Segment> segments;
  for (const std::vector<TokenRange>& ranges : mixers::cut(u.cols(), plan)) {
    Segment& segment = segments.emplace_back();
    for (const auto& [first, count] : ranges) {
      segment.push_back(
          make_chunk(options, first, u.middleCols(first, count), k.middleCols(first, count)));
    }
  }
  return segments;
}

class ChunkedLane final : public LaneRule<double> {
 public:
  ChunkedLane(const VlaOptions& options, Index d, const ChunkPlan& plan, Index* low_pivots)
      : options_(options), rule_(options, d), d_(d), plan_(plan), low_pivots_(low_pivots) {}

  void bind(const Tile& tile, const CoreInputs<double>& inputs,
            const RecurrenceRows<double>& rows) override {
    if (tile.first != 0 || tile.count != tile.tokens || rows.stride != d_) {
      throw std::logic_error("vla in chunks takes a lane as one tile");
    }
    Matrix u(d_, tile.tokens);
    RecurrenceRows<double> with_u = rows;
    with_u.own = u.data();
    for (Index t = 0; t < tile.tokens; ++t) {
      rule_.bind(CpuToken<double>(d_, tile, t, inputs, with_u));
    }
    segments_ = cut(options_, plan_, u, Eigen::Map<const Matrix>(rows.r, d_, tile.tokens));
    run_segments();
    b_.resize(d_, tile.tokens);
    for_each_chunk([&](const Chunk& chunk, const Pass& pass) {
      b_.middleCols(chunk.first, chunk.u.cols()) = directions(chunk, pass, rule_.u_scale);
      if (low_pivots_ != nullptr) *low_pivots_ += pass.cholesky.low_pivots;
    });
    Eigen::Map<Matrix>(rows.a, d_, tile.tokens) = b_;
    if (!rule_.unit_write) return;
    for (Index t = 0; t < tile.tokens; ++t) {
      double* a = rows.a + t * d_;
      make_unit(CpuVector<double>{{d_}}, a);
    }
  }

  void unbind(const Tile& tile, const CoreInputs<double>& inputs,
              const RecurrenceGradients<double>& gradients,
              const CoreGradients<double>& out) override {
    const Matrix db = direction_gradients(gradients.da, tile.tokens);
    Matrix dk = Matrix::Zero(d_, tile.tokens), du = dk, df = dk;
    if (!rule_.tied) dk = Eigen::Map<const Matrix>(gradients.dr, d_, tile.tokens);
    if (rule_.normalises) df = Eigen::Map<const Matrix>(gradients.df, d_, tile.tokens);
    for_each_chunk([&](const Chunk& chunk, const Pass& pass) {
      const Index C = chunk.u.cols();
      dk.middleCols(chunk.first, C) += key_gradient(chunk, pass, db.middleCols(chunk.first, C));
    });
    run_segments_back(db, du);
    const RecurrenceGradients<double> all{
        .stride = d_, .dr = dk.data(), .dq = gradients.dq, .df = df.data(), .down = du.data()};
    for (Index t = 0; t < tile.tokens; ++t) {
      rule_.unbind(CpuToken<double>(d_, tile, t, inputs, {}, all, &out));
    }
  }

  void bind_key(const Tile& /*tile*/, const double* /*key*/,
                const RecurrenceRows<double>& /*rows*/) override {
    throw std::logic_error("a memory of vla steps token by token");
  }

 private:
  template <class Body>
  void for_each_chunk(const Body& body) const {
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      for (std::size_t j = 0; j < segments_[i].size(); ++j) body(segments_[i][j], passes_[i][j]);
    }
  }

  /// 12 and 13: A from one segment to the next, by elements, and every segment with its own A.
  /// Nothing waits for the last segment's A_out.
  void run_segments() {
    passes_.assign(segments_.size(), {});
    F_.assign(segments_.size(), Matrix::Identity(d_, d_));
    Matrix A_in = Matrix::Identity(d_, d_) / options_.lambda_0;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      Matrix A = A_in;
      for (const Chunk& chunk : segments_[i]) {
        passes_[i].push_back(pass_forward(chunk, options_.stab_eps, A));
      }
      if (i + 1 == segments_.size()) break;
      PenaltyElement element = start_of_element(d_);
      for (const Chunk& chunk : segments_[i]) extend(element, chunk);
      AfterElement after = apply(element, A_in);
      A_in = after.A;
      F_[i] = after.F;
    }
  }

  Matrix run_segment_back(std::size_t i, const Matrix& db, Matrix G, Matrix& du) const {
    for (std::size_t j = segments_[i].size(); j-- > 0;) {
      const Chunk& chunk = segments_[i][j];
      const Index C = chunk.u.cols();
      du.middleCols(chunk.first, C) =
          pass_backward(chunk, passes_[i][j], db.middleCols(chunk.first, C), G);
    }
    return G;
  }

  /// 15. Nothing waits for G at the first segment's entry.
  void run_segments_back(const Matrix& db, Matrix& du) const {
    Matrix G_out = Matrix::Zero(d_, d_);
    for (std::size_t i = segments_.size(); i-- > 0;) {
      run_segment_back(i, db, G_out, du);
      if (i == 0) break;
      Matrix local_du(d_, db.cols());
      const Matrix G_local = run_segment_back(i, db, Matrix::Zero(d_, d_), local_du);
      G_out = F_[i].transpose() * G_out * F_[i] + G_local;
    }
  }

  /// 6
  Matrix direction_gradients(const double* da, Index tokens) const {
    Matrix db = Eigen::Map<const Matrix>(da, d_, tokens);
    if (!rule_.unit_write) return db;
    for (Index t = 0; t < tokens; ++t) {
      Vector a = b_.col(t);
      double *direction = a.data(), *gradient = db.col(t).data();
      const CpuVector<double> vector{{d_}};
      const double length = make_unit(vector, direction);
      unit_backward(vector, direction, length, gradient);
    }
    return db;
  }

  VlaOptions options_;
  VlaRule rule_;
  Index d_;
  ChunkPlan plan_;
  Index* low_pivots_;
  std::vector<Segment> segments_;
  std::vector<std::vector<Pass>> passes_;
  std::vector<Matrix> F_;  // (13); the last segment has none: no G comes to it
  Matrix b_;               // (d, T)
};

class ChunkedRule final : public RecurrentRule<double> {
 public:
  ChunkedRule(const VlaOptions& options, Index d, const ChunkPlan& plan, Index* low_pivots)
      : RecurrentRule<double>(d),
        options_(options),
        form_(VlaRule(options, d).form()),
        plan_(plan),
        low_pivots_(low_pivots) {}

  const RecurrenceForm& form() const override { return form_; }
  std::unique_ptr<LaneRule<double>> make_lane() const override {
    return std::make_unique<ChunkedLane>(options_, d(), plan_, low_pivots_);
  }
  std::unique_ptr<HeadMemory<double>> make_memory(Index head) const override {
    return make_reference_rule(options_, d())->make_memory(head);
  }
  Index own_state_size(Index d) const override { return VlaRule(options_, d).own_state_size(d); }

 private:
  VlaOptions options_;
  RecurrenceForm form_;
  ChunkPlan plan_;
  Index* low_pivots_;
};

}  // namespace

PenaltyElement penalty_element(const VlaOptions& options, Index first, const Matrix& u,
                               Index chunk) {
  PenaltyElement element = start_of_element(u.rows());
  const auto segments = mixers::cut(u.cols(), {.chunk = chunk});
  for (const TokenRange& range : segments.front()) {
    const Matrix part = u.middleCols(range.first, range.count);
    extend(element, make_chunk(options, first + range.first, part, part));
  }
  return element;
}

AfterElement apply(const PenaltyElement& element, const Matrix& A_in) {
  const Index d = A_in.rows();
  const Matrix R = root(element.J);
  const Matrix W = A_in * R;
  const Matrix L = (Matrix::Identity(d, d) + R.transpose() * W).llt().matrixL();
  const Matrix Z = over_transposed(W, L);
  return {.A = sym(element.C + element.E * sym(A_in - Z * Z.transpose()) * element.E.transpose()),
          .F = element.E * (Matrix::Identity(d, d) - over(Z, L) * R.transpose())};
}

PenaltyElement compose(const PenaltyElement& one, const PenaltyElement& two) {
  const Index d = one.C.rows();
  const Matrix R = root(one.C);
  const Matrix L = (Matrix::Identity(d, d) + R.transpose() * two.J * R).llt().matrixL();
  const Matrix H = over_transposed(R, L);
  const Matrix V = two.J * one.E;
  const Matrix M = H.transpose() * V;
  return {.E = two.E * (one.E - H * M),
          .C = two.C + two.E * H * (two.E * H).transpose(),
          .J = sym(one.J + one.E.transpose() * V - M.transpose() * M)};
}

}  // namespace vla
}  // namespace mixers

std::unique_ptr<mixers::RecurrentRule<double>> make_chunked_reference_rule(
    const VlaOptions& options, Index d_h, const mixers::ChunkPlan& plan, Index* low_pivots) {
  mixers::check_plan(plan);
  if (options.penalty == Penalty::frozen) return make_reference_rule(options, d_h);
  if (plan.chunks_per_segment > 0 && options.stab_eps > 1.0) {
    throw BadInput("vla.stab_eps: segments need at most 1, since a higher floor can be met");
  }
  return std::make_unique<mixers::vla::ChunkedRule>(options, d_h, plan, low_pivots);
}

}  // namespace vla_bench
