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
  Values a, w, b_norm, delta;

  static constexpr std::array kNames = {"a", "w", "|b|", "delta"};
  std::array<const Values*, 4> all() const { return {&a, &w, &b_norm, &delta}; }
};

struct PenaltyInputs {
  Values u, k;  // (B, T, H, d)
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
    }
  }
  return inputs;
}

/// (2) to (4) of vla.h, one lane and one token after the other.
PenaltyResults run_reference(const PenaltyCase& test, const PenaltyInputs& in) {
  const HeadDims& dims = test.dims;
  const auto d = static_cast<std::size_t>(dims.d_h);
  const mixers::cuda::PenaltySettings& settings = test.settings;
  PenaltyResults out{.a = in.k, .w = in.u, .b_norm = {}, .delta = {}};
  out.b_norm.resize(in.k.size() / d);
  out.delta.resize(in.k.size() / d);
  for (Index lane = 0; lane < dims.lanes(); ++lane) {
    Values A(d * d);
    for (std::size_t i = 0; i < d; ++i) A[i * d + i] = settings.inverse_lambda;
    for (Index t = 0; t < dims.tokens; ++t) {
      const auto row = static_cast<std::size_t>((lane / dims.heads * dims.tokens + t) * dims.heads +
                                                lane % dims.heads);
      const double* u = in.u.data() + row * d;
      const double* k = in.k.data() + row * d;
      double* w = out.w.data() + row * d;
      double* a = out.a.data() + row * d;
      const auto product = [&](const double* x, double* y) {
        for (std::size_t i = 0; i < d; ++i) {
          y[i] = std::inner_product(x, x + d, A.data() + i * d, 0.0);
        }
      };
      product(u, w);
      const double delta = 1.0 + std::inner_product(u, u + d, w, 0.0);
      const double floored = std::max<double>(delta, settings.stab_eps);
      for (std::size_t i = 0; i < d; ++i) w[i] /= std::sqrt(floored);
      const bool nudge =
          settings.period > 0 && (t + 1) % settings.period == 0 && t + 1 <= settings.nudged_tokens;
      for (std::size_t i = 0; i < d; ++i) {
        for (std::size_t j = 0; j < d; ++j) A[i * d + j] -= w[i] * w[j];
        if (nudge) A[i * d + i] += settings.per_eps;
      }
      product(k, a);
      out.delta[row] = delta;
      out.b_norm[row] = std::sqrt(std::inner_product(a, a + d, a, 0.0));
      for (std::size_t i = 0; settings.unit_write && i < d; ++i) a[i] /= out.b_norm[row];
    }
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
  Array<float> u = upload(&in.u), k = upload(&in.k), a = upload(nullptr), w = upload(nullptr);
  Array<float> b_norm = scalars(), delta = scalars();
  const int segments = mixers::cuda::penalty_segments(dims, test.settings, test.segments);
  Array<float> workspace =
      to_device(Device::cuda, std::vector<float>(static_cast<std::size_t>(std::max<Index>(
                                  1, mixers::cuda::penalty_workspace_size(dims, segments)))));
  Array<int> low_pivots = to_device(Device::cuda, std::vector<int>(1));
  mixers::cuda::PenaltyForward args{.dims = dims, .settings = test.settings};
  args.u = view(u);
  args.k = view(k);
  args.a = view(a);
  args.w = view(w);
  args.b_norm = b_norm.data();
  args.delta = delta.data();
  mixers::cuda::penalty_forward_chunked(vla_bench::cuda::stream_context().stream(), args,
                                        {.grade = test.grade,
                                         .u_scale = test.u_scale,
                                         .segments = test.segments,
                                         .workspace = workspace.data(),
                                         .low_pivots = low_pivots.data()});
  const auto doubles = [](const std::vector<float>& x) { return Values(x.begin(), x.end()); };
  EXPECT_EQ(to_host(low_pivots), std::vector<int>(1));
  return {download(a), download(w), doubles(to_host(b_norm)), doubles(to_host(delta))};
}

void expect_chunks_match(const PenaltyCase& test, double a_tolerance = 0.0) {
  const PenaltyInputs inputs = random_inputs(test);
  const PenaltyResults expected = run_reference(test, inputs);
  for (Index padding : {0, 1}) {
    const PenaltyResults actual = run_chunks(test, inputs, padding);
    for (std::size_t i = 0; i < PenaltyResults::kNames.size(); ++i) {
      const bool of_directions = i == 0 || i == 2;
      EXPECT_TRUE(near(
          testing::describe(test.dims) + " " + PenaltyResults::kNames[i] + ", " +
              std::to_string(test.segments) + " segments, padding " + std::to_string(padding),
          std::span<const double>(*actual.all()[i]), std::span<const double>(*expected.all()[i]),
          of_directions && a_tolerance > 0.0 ? a_tolerance : rounding_tolerance<float>(test.dims),
          1e-300));
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

// TF32 keeps 2^-11 of a product's operands, of which A k has d.
TEST(PenaltyChunks, AreCloseWithDirectionsInTf32) {
  VLA_NEEDS_GPU();
  for (Index d : {16, 32, 64, 128}) {
    expect_chunks_match({.dims = {2, 130, 1, d}, .segments = 2, .grade = mixers::cuda::Grade::tf32},
                        5e-3);
  }
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
