// chunked.h in double precision, one step at a time; numbers are its steps. The chunked forms are
// tested against it; it is never optimised.
#define EIGEN_DONT_PARALLELIZE  // one thread, as the other references
#include <Eigen/Dense>
#include <algorithm>
#include <vector>

#include "core/error.h"
#include "mixers/recurrence/chunked.h"

namespace vla_bench::mixers {
namespace {

using Matrix = Eigen::MatrixXd;  // tokens are columns, one behind the other in memory
using Vector = Eigen::VectorXd;
using Residual = RecurrenceForm::Residual;
using Normaliser = RecurrenceForm::Normaliser;

/// Tokens of a lane. `decays`: numbers of a token's alpha.
struct Rows {
  Rows(Index d, Index decays, Index tokens)
      : r(Matrix::Zero(d, tokens)),
        a(Matrix::Zero(d, tokens)),
        q(Matrix::Zero(d, tokens)),
        f(Matrix::Zero(d, tokens)),
        alpha(Matrix::Ones(decays, tokens)) {}
  Matrix r, a, q, f;
  Matrix alpha;  // (decays, T)
};

/// 1, of a decay (C).
Matrix left_after(const Vector& alpha) {
  const Index C = alpha.size();
  Matrix gamma = Matrix::Zero(C + 1, C + 1);
  for (Index s = 0; s <= C; ++s) {
    gamma(s, s) = 1.0;
    for (Index t = s + 1; t <= C; ++t) gamma(s, t) = gamma(s, t - 1) * alpha(t - 1);
  }
  return gamma;
}

/// Key channels that fade alike: all of them, or one where every channel has a decay of its own.
struct Channels {
  Index first, count;
  Matrix gamma;  // (C + 1, C + 1)

  auto of(const Matrix& rows) const { return rows.middleRows(first, count); }
  auto of(Matrix& rows) const { return rows.middleRows(first, count); }

  // The blocks of Gamma that the steps use; those of pairs are triangular.
  Matrix at_reads(const Matrix& pairs) const {
    return pairs.cwiseProduct(gamma.block(1, 1, pairs.rows(), pairs.cols()));
  }
  Matrix at_residuals(const Matrix& pairs) const {
    return pairs.cwiseProduct(gamma.block(1, 0, pairs.rows(), pairs.cols()));
  }
  auto entry_to_reads() const { return gamma.row(0).tail(gamma.cols() - 1); }
  auto entry_to_residuals() const { return gamma.row(0).head(gamma.cols() - 1); }
  auto writes_to_exit() const { return gamma.col(gamma.cols() - 1).tail(gamma.cols() - 1); }
  double entry_to_exit() const { return gamma(0, gamma.cols() - 1); }
};

std::vector<Channels> channels_of(const Matrix& alpha, Index d) {
  std::vector<Channels> all;
  const Index count = d / alpha.rows();
  for (Index i = 0; i < alpha.rows(); ++i) {
    all.push_back({.first = i * count, .count = count, .gamma = left_after(alpha.row(i))});
  }
  return all;
}

/// A chunk's tokens and what does not depend on S.
struct Chunk {
  Chunk(const Rows& rows, const TokenRange& range)
      : first(range.first),
        count(range.count),
        r(rows.r.middleCols(first, count)),
        a(rows.a.middleCols(first, count)),
        q(rows.q.middleCols(first, count)),
        channels(channels_of(rows.alpha.middleCols(first, count), r.rows())),
        r_at_entry(r),
        q_at_entry(q),
        a_at_exit(a),
        X(Matrix::Identity(count, count)),
        P(Matrix::Zero(count, count)) {
    for (const Channels& some : channels) {
      X += some.at_residuals(some.of(a).transpose() * some.of(r));  // 2
      P += some.at_reads(some.of(a).transpose() * some.of(q));
      some.of(r_at_entry) *= some.entry_to_residuals().asDiagonal();
      some.of(q_at_entry) *= some.entry_to_reads().asDiagonal();
      some.of(a_at_exit) *= some.writes_to_exit().asDiagonal();
    }
  }
  /// S from the chunk's entry to its exit, without its writes.
  Matrix faded(Matrix S) const {
    for (const Channels& some : channels) {
      S.middleCols(some.first, some.count) *= some.entry_to_exit();
    }
    return S;
  }

  Index first, count;
  Matrix r, a, q;  // (d, C)
  std::vector<Channels> channels;
  // r_t * Gamma(0, t - 1), q_t * Gamma(0, t), a_s * Gamma(s, C)
  Matrix r_at_entry, q_at_entry, a_at_exit;
  Matrix X, P;  // (C, C)
};

/// A chunk going forward; linear in the S that enters its segment.
struct Pass {
  Matrix S;     // at entry
  Matrix e, n;  // (d, C)
};

/// 3 to 5; moves S to the chunk's exit.
Pass pass_forward(const Chunk& chunk, const Matrix& v, Matrix& S) {
  Pass pass{.S = S, .e = {}, .n = {}};
  pass.e = v - S * chunk.r_at_entry;
  chunk.X.triangularView<Eigen::UnitUpper>().solveInPlace<Eigen::OnTheRight>(pass.e);
  pass.n = S * chunk.q_at_entry + pass.e * chunk.P;
  S = chunk.faded(S) + pass.e * chunk.a_at_exit.transpose();
  return pass;
}

/// A chunk going backward.
struct BackwardPass {
  Matrix D;   // dS at the chunk's exit
  Matrix de;  // (d, C)
};

/// 8 and 11; moves D to the chunk's entry.
BackwardPass pass_backward(const Chunk& chunk, const Matrix& dn, Matrix& D) {
  BackwardPass pass{.D = D, .de = {}};
  pass.de = D * chunk.a_at_exit + dn * chunk.P.transpose();
  chunk.X.transpose().triangularView<Eigen::UnitLower>().solveInPlace<Eigen::OnTheRight>(pass.de);
  D = chunk.faded(D) + dn * chunk.q_at_entry.transpose() - pass.de * chunk.r_at_entry.transpose();
  return pass;
}

/// Gradients of a lane's rows.
struct RowGradients {
  RowGradients(Index d, Index decays, Index tokens)
      : dr(Matrix::Zero(d, tokens)), da(dr), dq(dr), df(dr), dalpha(Matrix::Zero(decays, tokens)) {}
  Matrix dr, da, dq, df;
  Matrix dalpha;  // (decays, T)
};

/// 13, of the chunk's channels `some`.
Vector decay_gradients(const Chunk& chunk, const Channels& some, const Pass& pass,
                       const BackwardPass& back, const Matrix& dn) {
  const Index C = chunk.count;
  const Matrix S = pass.S.middleCols(some.first, some.count);
  const Matrix D = back.D.middleCols(some.first, some.count);
  Matrix M = Matrix::Zero(C + 1, C + 1);
  M.row(0).tail(C) += (S * some.of(chunk.q)).cwiseProduct(dn).colwise().sum();
  M.row(0).head(C) -= (S * some.of(chunk.r)).cwiseProduct(back.de).colwise().sum();
  M(0, C) += D.cwiseProduct(S).sum();
  M.block(1, 1, C, C) +=
      (pass.e.transpose() * dn).cwiseProduct(some.of(chunk.a).transpose() * some.of(chunk.q));
  M.block(1, 0, C, C) -=
      (pass.e.transpose() * back.de).cwiseProduct(some.of(chunk.a).transpose() * some.of(chunk.r));
  M.col(C).tail(C) += pass.e.cwiseProduct(D * some.of(chunk.a)).colwise().sum().transpose();
  Vector dalpha(C);
  for (Index t = 1; t <= C; ++t) {
    dalpha(t - 1) = some.gamma.col(t - 1).head(t).dot(
        M.topRightCorner(t, C + 1 - t) * some.gamma.row(t).tail(C + 1 - t).transpose());
  }
  return dalpha;
}

/// 9, 10 and 13
void put_gradients(const Chunk& chunk, const Pass& pass, const BackwardPass& back, const Matrix& dn,
                   RowGradients& gradients) {
  const Matrix e_dn = pass.e.transpose() * dn;
  const Matrix e_de = pass.e.transpose() * back.de;
  const Matrix S_dn = pass.S.transpose() * dn;
  const Matrix S_de = pass.S.transpose() * back.de;
  const Matrix D_e = back.D.transpose() * pass.e;
  for (std::size_t i = 0; i < chunk.channels.size(); ++i) {
    const Channels& some = chunk.channels[i];
    const Matrix dP = some.at_reads(e_dn);
    const Matrix dX = -some.at_residuals(e_de);
    const auto block = [&](Matrix& all) {
      return all.block(some.first, chunk.first, some.count, chunk.count);
    };
    block(gradients.dq) =
        some.of(S_dn) * some.entry_to_reads().asDiagonal() + some.of(chunk.a) * dP;
    block(gradients.dr) =
        -some.of(S_de) * some.entry_to_residuals().asDiagonal() + some.of(chunk.a) * dX;
    block(gradients.da) = some.of(D_e) * some.writes_to_exit().asDiagonal() +
                          some.of(chunk.q) * dP.transpose() + some.of(chunk.r) * dX.transpose();
    gradients.dalpha.row(static_cast<Index>(i)).segment(chunk.first, chunk.count) =
        decay_gradients(chunk, some, pass, back, dn).transpose();
  }
}

using Segment = std::vector<Chunk>;

std::vector<Segment> cut(const Rows& rows, const ChunkPlan& plan) {
  std::vector<Segment> segments;
  for (const std::vector<TokenRange>& ranges : mixers::cut(rows.q.cols(), plan)) {
    Segment& segment = segments.emplace_back();
    for (const TokenRange& range : ranges) segment.emplace_back(rows, range);
  }
  return segments;
}

/// A segment's chunks from a given S, which moves to the segment's exit.
std::vector<Pass> run(const Segment& segment, const Matrix& v, Matrix& S) {
  std::vector<Pass> passes;
  for (const Chunk& chunk : segment) {
    passes.push_back(pass_forward(chunk, v.middleCols(chunk.first, chunk.count), S));
  }
  return passes;
}

/// A segment's chunks against time from a given D, which moves to the segment's entry.
std::vector<BackwardPass> run_back(const Segment& segment, const Matrix& dn, Matrix& D) {
  std::vector<BackwardPass> passes;
  for (auto chunk = segment.rbegin(); chunk != segment.rend(); ++chunk) {
    passes.push_back(pass_backward(*chunk, dn.middleCols(chunk->first, chunk->count), D));
  }
  std::reverse(passes.begin(), passes.end());
  return passes;
}

/// A segment with the S that enters it known.
struct JoinedSegment {
  std::vector<Pass> passes;
  Matrix Phi;
};

/// 14: every segment for itself, then S from one to the next. S_in of the first segment is 0, so
/// that it needs no maps.
std::vector<JoinedSegment> run_segments(const std::vector<Segment>& segments, const Matrix& v) {
  const Index d = v.rows();
  const Matrix no_values = Matrix::Zero(d, v.cols());
  std::vector<JoinedSegment> joined;
  Matrix S_in = Matrix::Zero(d, d);
  for (const Segment& segment : segments) {
    Matrix S_local = Matrix::Zero(d, d);
    JoinedSegment now{.passes = run(segment, v, S_local), .Phi = Matrix::Identity(d, d)};
    if (!joined.empty()) {
      const std::vector<Pass> maps = run(segment, no_values, now.Phi);
      for (std::size_t i = 0; i < maps.size(); ++i) {
        now.passes[i].S += S_in * maps[i].S;
        now.passes[i].e += S_in * maps[i].e;
        now.passes[i].n += S_in * maps[i].n;
      }
    }
    S_in = S_in * now.Phi + S_local;
    joined.push_back(std::move(now));
  }
  return joined;
}

/// 15: likewise against time. Nothing waits for D at the first segment's entry.
std::vector<std::vector<BackwardPass>> run_segments_back(const std::vector<Segment>& segments,
                                                         const std::vector<JoinedSegment>& joined,
                                                         const Matrix& dn) {
  const Index d = dn.rows();
  std::vector<std::vector<BackwardPass>> passes(segments.size());
  Matrix D_out = Matrix::Zero(d, d);
  for (std::size_t i = segments.size(); i-- > 0;) {
    Matrix D = D_out;
    passes[i] = run_back(segments[i], dn, D);
    if (i == 0) break;
    Matrix D_local = Matrix::Zero(d, d);
    run_back(segments[i], dn, D_local);
    D_out = D_out * joined[i].Phi.transpose() + D_local;
  }
  return passes;
}

class ChunkedReference final : public MixerCore<double> {
 public:
  ChunkedReference(std::unique_ptr<RecurrentRule<double>> rule, const ChunkPlan& plan)
      : rule_(std::move(rule)), form_(rule_->form()), d_(rule_->d()), plan_(plan) {}

  void forward(const Context& /*context*/, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>* saved) override {
    if (saved != nullptr) saved->resize(Device::cpu, 0);
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      const Lane lane(*this, inputs, batch, head);
      put(lane.tile, lane.o, o);
    });
  }

  void backward(const Context& /*context*/, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>& /*saved*/) override {
    for_each_lane(inputs.dims, [&](Index batch, Index head) {
      const Lane lane(*this, inputs, batch, head);
      backward_lane(lane, inputs, gradients);
    });
  }

  std::unique_ptr<HeadMemory<double>> memory(Index head) const override {
    return rule_->make_memory(head);
  }
  Index state_bytes(const HeadDims& dims) const override {
    return dims.lanes() * state_size(*rule_, d_, d_) * static_cast<Index>(sizeof(double));
  }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }  // computed again

 private:
  /// A lane after its forward pass.
  struct Lane {
    Lane(const ChunkedReference& core, const CoreInputs<double>& inputs, Index batch, Index head)
        : tile{.batch = batch,
               .head = head,
               .tokens = inputs.dims.tokens,
               .first = 0,
               .count = inputs.dims.tokens},
          kept(static_cast<std::size_t>(core.rule_->kept_size(inputs.dims.tokens))),
          rule(core.rule_->make_lane()),
          rows(core.d_, core.decays(), tile.tokens) {
      core.bind(inputs, *this);
      segments = cut(rows, core.plan_);
      joined = run_segments(segments, core.get(inputs.v, tile));
      o = Matrix(core.d_, tile.tokens);
      for (std::size_t i = 0; i < segments.size(); ++i) {
        for (std::size_t j = 0; j < segments[i].size(); ++j) {
          o.middleCols(segments[i][j].first, segments[i][j].count) = joined[i].passes[j].n;
        }
      }
      core.normalise(*this);
    }

    Tile tile;
    std::vector<double> kept;
    std::unique_ptr<LaneRule<double>> rule;
    Rows rows;
    std::vector<Segment> segments;
    std::vector<JoinedSegment> joined;
    Matrix z;                // (d, T)
    Vector denominators, c;  // (T)
    Matrix o;                // (d, T)
  };

  /// Numbers of a token's alpha.
  Index decays() const { return form_.decay == Decay::columns ? d_ : 1; }

  template <class Body>
  static void for_each_lane(const HeadDims& dims, const Body& body) {
    for (Index batch = 0; batch < dims.batch; ++batch) {
      for (Index head = 0; head < dims.heads; ++head) body(batch, head);
    }
  }

  Matrix get(HeadView<const double> view, const Tile& tile) const {
    Matrix values(d_, tile.tokens);
    gather(tile, view, d_, values.data(), d_);
    return values;
  }
  void put(const Tile& tile, const Matrix& values, HeadView<double> view) const {
    for (Index t = 0; t < tile.tokens; ++t) {
      std::copy_n(values.col(t).data(), d_, view.at(tile.row(t), tile.head));
    }
  }

  void bind(const CoreInputs<double>& inputs, Lane& lane) const {
    lane.rule->start(lane.tile.tokens, lane.kept.data());
    lane.rule->bind(lane.tile, inputs,
                    {.stride = d_,
                     .r = lane.rows.r.data(),
                     .a = lane.rows.a.data(),
                     .q = lane.rows.q.data(),
                     .f = lane.rows.f.data(),
                     .decay = lane.rows.alpha.data()});
    if (form_.residual == Residual::none) lane.rows.r.setZero();
    if (form_.residual == Residual::along_a) lane.rows.r = lane.rows.a;
    if (form_.normaliser == Normaliser::sums_a) lane.rows.f = lane.rows.a;
    if (form_.decay == Decay::none) lane.rows.alpha.setOnes();
  }

  /// 6 and the rest of 4
  void normalise(Lane& lane) const {
    lane.c = Vector::Ones(lane.tile.tokens);
    if (!form_.normalises()) return;
    lane.z = lane.rows.f;
    for (Index t = 1; t < lane.tile.tokens; ++t) lane.z.col(t) += lane.z.col(t - 1);
    lane.denominators = lane.z.cwiseProduct(lane.rows.q).colwise().sum().transpose();
    lane.c = lane.denominators.cwiseMax(form_.floor).cwiseInverse();
    lane.o = lane.o * lane.c.asDiagonal();
  }

  /// 12
  void normaliser_backward(const Lane& lane, const Matrix& g, RowGradients& gradients) const {
    Vector dz = Vector::Zero(d_);
    for (Index t = lane.tile.tokens - 1; t >= 0; --t) {
      if (!(lane.denominators(t) < form_.floor)) {
        const double dc = -g.col(t).dot(lane.o.col(t)) * lane.c(t);
        dz += dc * lane.rows.q.col(t);
        gradients.dq.col(t) += dc * lane.z.col(t);
      }
      gradients.df.col(t) = dz;
    }
  }

  /// 7 to 15
  void backward_lane(const Lane& lane, const CoreInputs<double>& inputs,
                     const CoreGradients<double>& out) const {
    const Matrix g = get(out.d_o, lane.tile);
    const Matrix dn = g * lane.c.asDiagonal();
    const auto passes = run_segments_back(lane.segments, lane.joined, dn);
    RowGradients gradients(d_, decays(), lane.tile.tokens);
    Matrix dv(d_, lane.tile.tokens);
    for (std::size_t i = 0; i < passes.size(); ++i) {
      for (std::size_t j = 0; j < passes[i].size(); ++j) {
        const Chunk& chunk = lane.segments[i][j];
        put_gradients(chunk, lane.joined[i].passes[j], passes[i][j],
                      dn.middleCols(chunk.first, chunk.count), gradients);
        dv.middleCols(chunk.first, chunk.count) = passes[i][j].de;
      }
    }
    if (form_.normalises()) normaliser_backward(lane, g, gradients);
    if (form_.residual == Residual::along_a) gradients.da += gradients.dr;
    if (form_.normaliser == Normaliser::sums_a) gradients.da += gradients.df;
    put(lane.tile, dv, out.dv);
    lane.rule->unbind(lane.tile, inputs,
                      {.stride = d_,
                       .dr = gradients.dr.data(),
                       .da = gradients.da.data(),
                       .dq = gradients.dq.data(),
                       .df = gradients.df.data(),
                       .ddecay = gradients.dalpha.data()},
                      out);
    lane.rule->finish(inputs, out);
  }

  std::unique_ptr<RecurrentRule<double>> rule_;
  RecurrenceForm form_;
  Index d_;
  ChunkPlan plan_;
};

}  // namespace

std::vector<std::vector<TokenRange>> cut(Index tokens, const ChunkPlan& plan) {
  std::vector<std::vector<TokenRange>> segments;
  for (Index first = 0; first < tokens; first += plan.chunk) {
    const bool full = !segments.empty() && plan.chunks_per_segment > 0 &&
                      static_cast<Index>(segments.back().size()) == plan.chunks_per_segment;
    if (segments.empty() || full) segments.emplace_back();
    segments.back().push_back({first, std::min(plan.chunk, tokens - first)});
  }
  return segments;
}

void check_plan(const ChunkPlan& plan) {
  if (plan.chunk < 1) throw BadInput("a chunk has at least 1 token");
}

Support supports_chunks(const RecurrenceForm& form) {
  if (form.decay != Decay::rows) return {};
  return {.ok = false, .reason = "no chunks for a state whose channels of values decay apart"};
}

std::unique_ptr<MixerCore<double>> make_chunked_reference(
    std::unique_ptr<RecurrentRule<double>> rule, const ChunkPlan& plan) {
  const Support support = supports_chunks(rule->form());
  if (!support.ok) throw BadInput(support.reason);
  check_plan(plan);
  return std::make_unique<ChunkedReference>(std::move(rule), plan);
}

}  // namespace vla_bench::mixers
