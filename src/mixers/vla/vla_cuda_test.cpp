#include <limits>
#include <numeric>

#include "config/read.h"
#include "core/cuda/stream_context.h"
#include "mixers/vla/vla_chunked_cuda.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

using namespace vla_bench::testing;

std::vector<MixerConfig> variants() {
  const VlaOptions vla;
  std::vector<VlaOptions> all(1, vla);
  for (FeatureMap map : {FeatureMap::identity, FeatureMap::relu, FeatureMap::silu}) {
    all.push_back(vla);
    all.back().feature_map = map;
    // z . q' of maps that take both signs comes close to 0, where no float code agrees with
    // another.
    if (map != FeatureMap::relu) all.back().normaliser = Normaliser::none;
  }
  for (Penalty penalty : {Penalty::key, Penalty::frozen}) {
    for (WriteDirection write : {WriteDirection::unit, WriteDirection::raw}) {
      all.push_back(vla);
      all.back().penalty = penalty;
      all.back().write = write;
      // A raw write grows the state without bound unless lambda_0 is of order 1.
      if (write == WriteDirection::raw) all.back().lambda_0 = 1.0;
    }
  }
  all.push_back(vla);
  all.back().residual = Residual::write;
  all.push_back(all.back());
  all.back().penalty = Penalty::frozen;
  all.push_back(vla);
  all.back().penalty = Penalty::key;
  all.back().u_scale = 1.0;
  all.back().residual = Residual::write;
  all.push_back(vla);
  all.back().period = 0;
  all.push_back(vla);
  all.back().period = 3;
  all.back().per_eps = 0.05;
  all.back().lambda_0 = 0.5;
  all.push_back(all.back());
  all.back().hold_after = 10;
  all.push_back(vla);
  all.back().normaliser = Normaliser::none;
  std::vector<MixerConfig> mixers;
  for (const VlaOptions& options : all) mixers.push_back({.options = options});
  return mixers;
}

TEST(VlaCuda, EveryVariantEqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : variants()) {
    for (const HeadDims& dims :
         {HeadDims{2, 45, 2, 16}, HeadDims{1, 41, 2, 32}, HeadDims{1, 23, 1, 64}}) {
      SCOPED_TRACE(mixer_label(mixer));
      expect_gpu_matches_reference(mixer, random_tensors(mixer, dims, 42));
    }
  }
}

void expect_chunks_match_reference(const MixerConfig& mixer, const HeadDims& dims,
                                   double tolerance = 0.0,
                                   Precision precision = Precision::float32) {
  SCOPED_TRACE(mixer_label(mixer));
  const auto core = make_mixer_core<float>(mixer, dims.d_h, Device::cuda, Implementation::chunked);
  expect_gpu_matches_reference(*core, mixer, random_tensors(mixer, dims, 42), tolerance, precision);
}

TEST(VlaCuda, EveryVariantInChunksEqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const MixerConfig& mixer : variants()) {
    for (const HeadDims& dims :
         {HeadDims{2, 45, 2, 16}, HeadDims{1, 70, 2, 32}, HeadDims{1, 130, 1, 64}}) {
      expect_chunks_match_reference(mixer, dims);
    }
  }
}

TEST(VlaCuda, SegmentsOfChunksEqualTheReference) {
  VLA_NEEDS_GPU();
  const Index tokens = small_tests() ? 300 : 1200;  // four segments
  for (Penalty penalty : {Penalty::learned, Penalty::key}) {
    for (Index d : {16, 64, 128}) {
      const MixerConfig mixer{.options = VlaOptions{.penalty = penalty}};
      expect_chunks_match_reference(mixer, {1, tokens, 1, d});
      expect_chunks_match_reference(mixer, {1, tokens, 1, d}, 2e-2, Precision::tf32);
    }
  }
}

TEST(VlaCuda, ChunksOfEveryLengthEqualTheReference) {
  VLA_NEEDS_GPU();
  for (Index period : {0, 1, 7, 20}) {
    const MixerConfig mixer{.options = VlaOptions{.period = period}};
    for (Index d : {16, 32, 64, 128}) {
      for (Index tokens : {1, 5, 63, 64, 65})
        expect_chunks_match_reference(mixer, {2, tokens, 1, d});
    }
    expect_chunks_match_reference(mixer, {1, small_tests() ? 130 : 1000, 1, 64});
  }
  const MixerConfig vla{.options = VlaOptions{}};
  if (!small_tests()) expect_chunks_match_reference(vla, {1, 4097, 1, 64});
  for (Index lanes : {75, 150, 300}) expect_chunks_match_reference(vla, {lanes / 3, 65, 3, 16});
}

/// The largest error of all results, relative to its own values or a tenth of the largest of all.
double largest_error(const CoreRun& actual, const CoreRun& expected) {
  const auto wanted = expected.all();
  double scale = 0.0, largest = 0.0;
  for (const auto& [name, values] : wanted) {
    for (double value : *values) scale = std::max(scale, std::abs(value));
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double error = worst_error(std::span<const double>(*actual.all()[i].second),
                                     std::span<const double>(*wanted[i].second), 0.1 * scale)
                             .error;
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

// A small lambda_0 and keys that are (nearly) the same: b = A k is a small difference of large
// terms, and no float32 code keeps its digits.
TEST(VlaCuda, ChunksLoseAtMostADigitMoreOnAlikeKeys) {
  VLA_NEEDS_GPU();
  const MixerConfig mixer{
      .options = VlaOptions{.penalty = Penalty::key, .u_scale = 1.0, .lambda_0 = 1e-3}};
  for (double noise : {0.0, 0.01}) {
    for (Index d : {16, 32, 64, 128}) {
      CoreTensors tensors = random_tensors(mixer, {1, 200, 1, d}, 46);
      for (std::size_t i = static_cast<std::size_t>(d); i < tensors.k.size(); ++i) {
        const double first = tensors.k[i % static_cast<std::size_t>(d)];
        tensors.k[i] = static_cast<float>(first + noise * tensors.k[i]);
      }
      const CoreRun expected = run_core<double>(*reference_core(mixer, d), tensors);
      const auto error = [&](Implementation implementation) {
        const auto core = make_mixer_core<float>(mixer, d, Device::cuda, implementation);
        return largest_error(run_core<float>(*core, tensors, gpu_context(Precision::float32)),
                             expected);
      };
      EXPECT_LE(error(Implementation::chunked),
                std::max(1e-4, 10.0 * error(Implementation::recurrent)))
          << "d " << d << " noise " << noise;
    }
  }
}

// 1 + u . w is never below 1, so delta's floor is raised above that.
TEST(VlaCuda, EqualsTheReferenceWithAnActiveFloorOfDelta) {
  VLA_NEEDS_GPU();
  const MixerConfig floored{.options = VlaOptions{.u_scale = 0.2, .stab_eps = 1.5}};
  expect_gpu_matches_reference(floored, random_tensors(floored, {2, 33, 2, 16}, 44));
}

using Values = std::vector<double>;

/// Directions and keys of unit length over sqrt(d) and of unit length, in numbers that a float
/// holds, and what the penalty path makes of them.
struct PenaltyCase {
  HeadDims dims;
  mixers::cuda::PenaltySettings settings{
      .inverse_lambda = 2.0F, .stab_eps = 1e-6F, .per_eps = 0.05F, .period = 7};
  float u_scale = 0.0F;  // u = u_scale k
  int segments = 1;
  mixers::cuda::Grade grade = mixers::cuda::Grade::float32;
};

struct PenaltyResults {
  Values a, w, b_norm, delta, du, dk;

  static constexpr std::array kNames = {"a", "w", "|b|", "delta", "du", "dk"};
  std::array<const Values*, 6> all() const { return {&a, &w, &b_norm, &delta, &du, &dk}; }
  static bool at_float32(std::size_t i) { return i == 1 || i == 3; }  // whatever the grade
};

struct PenaltyInputs {
  Values u, k, da;  // (B, T, H, d)
};

PenaltyInputs random_inputs(const PenaltyCase& test) {
  const HeadDims& dims = test.dims;
  Rng rng(73, RngStream::benchmark, 0, 0);
  const auto unit = [&] {
    Values x(static_cast<std::size_t>(dims.d_h));
    double squares = 0.0;
    for (double& value : x) squares += std::pow(value = rng.normal(), 2);
    for (double& value : x) value /= std::sqrt(squares);
    return x;
  };
  PenaltyInputs inputs;
  for (Index row = 0; row < dims.rows() * dims.heads; ++row) {
    const bool held = row / dims.heads % dims.tokens >= test.settings.nudged_tokens;
    const Values k = unit();
    const Values other = unit();
    for (std::size_t i = 0; i < k.size(); ++i) {
      const double key = static_cast<float>(k[i]);
      const double own = other[i] / std::sqrt(static_cast<double>(dims.d_h));
      const double u = test.u_scale > 0.0F ? test.u_scale * key : own;
      inputs.k.push_back(key);
      inputs.u.push_back(held ? 0.0 : static_cast<float>(u));
      inputs.da.push_back(static_cast<float>(rng.normal()));
    }
  }
  return inputs;
}

/// (2) to (4) of vla.h and back, one token after the other.
class PenaltyLane {
 public:
  PenaltyLane(const PenaltyCase& test, const PenaltyInputs& in, Index lane, PenaltyResults& out)
      : test_(test), in_(in), lane_(lane), out_(out), A_(1, Values(d_ * d_)), G_(d_ * d_) {
    for (std::size_t i = 0; i < d_; ++i) A_[0][i * d_ + i] = test.settings.inverse_lambda;
  }

  void forward(Index t) {
    const std::size_t row = this->row(t);
    const double* u = in_.u.data() + row * d_;
    double* w = out_.w.data() + row * d_;
    double* a = out_.a.data() + row * d_;
    Values A = A_.back();
    multiply(A, u, w);
    out_.delta[row] = 1.0 + dot(u, w);
    const double root = std::sqrt(floored(row));
    for (std::size_t i = 0; i < d_; ++i) w[i] /= root;
    for (std::size_t i = 0; i < d_; ++i) {
      for (std::size_t j = 0; j < d_; ++j) A[i * d_ + j] -= w[i] * w[j];
      if (is_nudged(t)) A[i * d_ + i] += settings().per_eps;
    }
    multiply(A, in_.k.data() + row * d_, a);
    out_.b_norm[row] = std::sqrt(dot(a, a));
    for (std::size_t i = 0; settings().unit_write && i < d_; ++i) a[i] /= out_.b_norm[row];
    A_.push_back(std::move(A));
  }

  void backward(Index t) {
    const std::size_t row = this->row(t);
    const double* u = in_.u.data() + row * d_;
    const double* k = in_.k.data() + row * d_;
    const double* a = out_.a.data() + row * d_;
    const double* w = out_.w.data() + row * d_;
    double* du = out_.du.data() + row * d_;
    Values db(in_.da.begin() + row * d_, in_.da.begin() + (row + 1) * d_), dw(d_), Gw(d_);
    if (settings().unit_write) {
      const double along = dot(a, db.data());
      for (std::size_t i = 0; i < d_; ++i) db[i] = (db[i] - a[i] * along) / out_.b_norm[row];
    }
    multiply(A_[static_cast<std::size_t>(t + 1)], db.data(), out_.dk.data() + row * d_);
    add_to_G(db.data(), k);
    multiply(G_, w, Gw.data());
    const double delta = floored(row);
    const bool is_floored = out_.delta[row] < settings().stab_eps;
    const double d_delta = is_floored ? 0.0 : dot(w, Gw.data()) / delta;
    for (std::size_t i = 0; i < d_; ++i) dw[i] = -2.0 * Gw[i] / std::sqrt(delta) + d_delta * u[i];
    multiply(A_[static_cast<std::size_t>(t)], dw.data(), du);
    for (std::size_t i = 0; i < d_; ++i) du[i] += d_delta * std::sqrt(delta) * w[i];
    add_to_G(dw.data(), u);
  }

 private:
  const mixers::cuda::PenaltySettings& settings() const { return test_.settings; }
  std::size_t row(Index t) const {
    const HeadDims& dims = test_.dims;
    return static_cast<std::size_t>((lane_ / dims.heads * dims.tokens + t) * dims.heads +
                                    lane_ % dims.heads);
  }
  double floored(std::size_t row) const {
    return std::max<double>(out_.delta[row], settings().stab_eps);
  }
  bool is_nudged(Index t) const {
    return settings().period > 0 && (t + 1) % settings().period == 0 &&
           t + 1 <= settings().nudged_tokens;
  }
  double dot(const double* x, const double* y) const {
    return std::inner_product(x, x + d_, y, 0.0);
  }
  void multiply(const Values& matrix, const double* x, double* y) const {
    for (std::size_t i = 0; i < d_; ++i) y[i] = dot(x, matrix.data() + i * d_);
  }
  /// G += sym(x y^T)
  void add_to_G(const double* x, const double* y) {
    for (std::size_t i = 0; i < d_; ++i) {
      for (std::size_t j = 0; j < d_; ++j) G_[i * d_ + j] += 0.5 * (x[i] * y[j] + y[i] * x[j]);
    }
  }

  const PenaltyCase& test_;
  const PenaltyInputs& in_;
  Index lane_;
  PenaltyResults& out_;
  std::size_t d_ = static_cast<std::size_t>(test_.dims.d_h);
  std::vector<Values> A_;  // before every token, and behind the last
  Values G_;
};

PenaltyResults run_reference(const PenaltyCase& test, const PenaltyInputs& in) {
  const HeadDims& dims = test.dims;
  PenaltyResults out{.a = in.k, .w = in.u, .b_norm = {}, .delta = {}, .du = in.u, .dk = in.k};
  out.b_norm.resize(static_cast<std::size_t>(dims.rows() * dims.heads));
  out.delta.resize(out.b_norm.size());
  for (Index lane = 0; lane < dims.lanes(); ++lane) {
    PenaltyLane penalty(test, in, lane, out);
    for (Index t = 0; t < dims.tokens; ++t) penalty.forward(t);
    for (Index t = dims.tokens; t-- > 0;) penalty.backward(t);
  }
  return out;
}

/// With `padding` numbers behind a row, so that copies of 16 bytes are aligned or are not. Also
/// expects that no pivot is low.
PenaltyResults run_chunks(const PenaltyCase& test, const PenaltyInputs& in, Index padding) {
  const HeadDims& dims = test.dims;
  const Index width = dims.heads * dims.d_h;
  const Index stride = width + padding;
  const auto size = static_cast<std::size_t>(dims.rows() * stride);
  const auto upload = [&](const Values* values) {
    std::vector<float> host(size, std::numeric_limits<float>::quiet_NaN());
    for (Index i = 0; values != nullptr && i < dims.rows() * width; ++i) {
      host[static_cast<std::size_t>(i / width * stride + i % width)] =
          static_cast<float>((*values)[static_cast<std::size_t>(i)]);
    }
    return to_device(Device::cuda, host);
  };
  const auto download = [&](const Array<float>& array) {
    const std::vector<float> host = to_host(array);
    Values values;
    for (Index i = 0; i < dims.rows(); ++i) {
      values.insert(values.end(), host.begin() + i * stride, host.begin() + i * stride + width);
    }
    return values;
  };
  const auto scalars = [&] {
    return to_device(Device::cuda,
                     std::vector<float>(static_cast<std::size_t>(dims.rows() * dims.heads)));
  };
  const auto view = [&](Array<float>& array) {
    return mixers::cuda::TokenView<float>(array.data(), dims.tokens * stride, stride, dims.d_h);
  };
  Array<float> u = upload(&in.u), k = upload(&in.k), da = upload(&in.da);
  Array<float> a = upload(nullptr), w = upload(nullptr), db = upload(nullptr);
  Array<float> du = upload(nullptr), dk = upload(nullptr);
  Array<float> b_norm = scalars(), delta = scalars();
  const int segments = mixers::cuda::penalty_segments(dims, test.settings, test.segments);
  Array<float> workspace, ends;
  workspace.resize(Device::cuda, mixers::cuda::penalty_workspace_size(dims, segments));
  ends.resize(Device::cuda, mixers::cuda::penalty_ends_size(dims, segments));
  Array<int> low_pivots = to_device(Device::cuda, std::vector<int>(1));
  mixers::cuda::PenaltyForward args{.dims = dims, .settings = test.settings};
  args.u = view(u);
  args.k = view(k);
  args.a = view(a);
  args.w = view(w);
  args.b_norm = b_norm.data();
  args.delta = delta.data();
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const mixers::cuda::PenaltyChunks chunks{.grade = test.grade,
                                           .u_scale = test.u_scale,
                                           .segments = segments,
                                           .workspace = workspace.data(),
                                           .low_pivots = low_pivots.data(),
                                           .ends = ends.data()};
  mixers::cuda::penalty_forward_chunked(stream, args, chunks);
  mixers::cuda::PenaltyBackward back{.dims = dims, .settings = test.settings};
  back.u = args.u;
  back.k = args.k;
  back.a = args.a;
  back.w = args.w;
  back.b_norm = b_norm.data();
  back.delta = delta.data();
  back.da = view(da);
  back.db = view(db);
  mixers::cuda::penalty_backward_chunked(stream, back, ends.data(), view(du), view(dk), chunks);
  const auto doubles = [](const std::vector<float>& x) { return Values(x.begin(), x.end()); };
  EXPECT_EQ(to_host(low_pivots), std::vector<int>(1));
  return {download(a),  download(w), doubles(to_host(b_norm)), doubles(to_host(delta)),
          download(du), download(dk)};
}

void expect_chunks_match(const PenaltyCase& test, double tf32_tolerance = 0.0) {
  const PenaltyInputs inputs = random_inputs(test);
  const PenaltyResults expected = run_reference(test, inputs);
  for (Index padding : {0, 1}) {
    const PenaltyResults actual = run_chunks(test, inputs, padding);
    for (std::size_t i = 0; i < PenaltyResults::kNames.size(); ++i) {
      const bool is_rounded = tf32_tolerance > 0.0 && !PenaltyResults::at_float32(i);
      EXPECT_TRUE(near(
          testing::describe(test.dims) + " " + PenaltyResults::kNames[i] + ", " +
              std::to_string(test.segments) + " segments, padding " + std::to_string(padding),
          std::span<const double>(*actual.all()[i]), std::span<const double>(*expected.all()[i]),
          is_rounded ? tf32_tolerance : rounding_tolerance<float>(test.dims), 1e-300));
    }
  }
}

TEST(PenaltyChunks, EqualTheRecurrence) {
  VLA_NEEDS_GPU();
  for (const HeadDims& dims : gpu_shapes()) {
    for (int segments : {1, 4}) expect_chunks_match({.dims = dims, .segments = segments});
  }
}

// Nudges at every token, at none, between chunks and up to a token; u along k, whose directions
// take the short form, and where tokens are held; a raw write; a floor that is met.
TEST(PenaltyChunks, EqualTheRecurrenceInEverySetting) {
  VLA_NEEDS_GPU();
  for (Index d : {16, 32, 64, 128}) {
    const HeadDims dims{1, small_tests() ? 100 : 300, 2, d};
    for (int segments : {1, 3}) {
      for (int period : {0, 1, 20, 32, 64}) {
        PenaltyCase test{.dims = dims, .segments = segments};
        test.settings.period = period;
        expect_chunks_match(test);
        test.u_scale = 0.5F;
        expect_chunks_match(test);
        test.settings.nudged_tokens = 70;
        expect_chunks_match(test);
        test.settings.unit_write = false;
        expect_chunks_match(test);
      }
    }
    for (float u_scale : {0.0F, 0.5F}) {
      PenaltyCase floored{.dims = dims, .u_scale = u_scale};
      floored.settings.stab_eps = 1.2F;
      expect_chunks_match(floored);
    }
  }
}

// Fewer distinct directions in a segment than channels: J is singular.
TEST(PenaltyChunks, JoinShortSegments) {
  VLA_NEEDS_GPU();
  for (Index d : {64, 128}) expect_chunks_match({.dims = {1, 4 * 64, 1, d}, .segments = 8});
}

// So many that neighbouring elements are composed before they are joined.
TEST(PenaltyChunks, ComposeManySegments) {
  VLA_NEEDS_GPU();
  for (Index d : {16, 32, 64}) {
    expect_chunks_match({.dims = {2, 16 * 64, 1, d}, .segments = 16});
  }
}

// TF32 keeps 2^-11 of a product's operands, of which A k has d.
TEST(PenaltyChunks, AreCloseInTf32) {
  VLA_NEEDS_GPU();
  for (Index d : {16, 32, 64, 128}) {
    expect_chunks_match({.dims = {2, 130, 1, d}, .segments = 2, .grade = mixers::cuda::Grade::tf32},
                        1e-2);
  }
}

TEST(PenaltyChunks, AreCutToFillTheChip) {
  const mixers::cuda::PenaltySettings settings{.stab_eps = 1e-4F};
  const auto plan = [&](const HeadDims& dims) {
    return mixers::cuda::plan_penalty_segments(dims, settings, 132);
  };
  EXPECT_EQ(plan({4, 4 * 256 - 1, 1, 64}), 1);
  EXPECT_EQ(plan({4, 4 * 256, 1, 64}), 4);
  EXPECT_EQ(plan({4, 4096, 1, 64}), 16);
  EXPECT_EQ(plan({4, 131072, 1, 64}), 66);
  EXPECT_EQ(plan({66, 4096, 1, 64}), 4);
  EXPECT_EQ(plan({67, 4096, 1, 64}), 1);
  EXPECT_EQ(plan({1, 131072, 16, 128}), 8);
  const mixers::cuda::PenaltySettings floored{.stab_eps = 1.5F};
  EXPECT_EQ(mixers::cuda::plan_penalty_segments({1, 131072, 1, 64}, floored, 132), 1);
}

TEST(PenaltyChunks, RepeatBitForBit) {
  VLA_NEEDS_GPU();
  for (Index d : {16, 32, 64, 128}) {
    const PenaltyCase test{.dims = {2, 300, 2, d}, .segments = 4};
    const PenaltyInputs inputs = random_inputs(test);
    const PenaltyResults first = run_chunks(test, inputs, 0);
    const PenaltyResults second = run_chunks(test, inputs, 0);
    for (std::size_t i = 0; i < PenaltyResults::kNames.size(); ++i) {
      EXPECT_EQ(*first.all()[i], *second.all()[i]) << PenaltyResults::kNames[i];
    }
  }
}

}  // namespace
}  // namespace vla_bench
