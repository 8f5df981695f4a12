#include "mixers/recurrence/recurrence_cuda.h"

#include <limits>
#include <optional>

#include "core/cuda/check.h"
#include "core/cuda/stream_context.h"
#include "mixers/recurrence/chunked_cuda.h"
#include "testing/gpu.h"

namespace vla_bench::mixers::cuda {
namespace {

using namespace vla_bench::testing;
using Values = std::vector<double>;

struct Rule {
  Decay decay = Decay::none;
  bool residual = false;
  bool normaliser = false;  // with f = a

  Index decay_width(Index d) const {
    if (decay == Decay::none) return 0;
    return decay == Decay::head ? 1 : d;
  }
};

std::vector<Rule> all_rules() {
  std::vector<Rule> rules;
  for (Decay decay : {Decay::none, Decay::head, Decay::rows, Decay::columns}) {
    for (bool residual : {false, true}) {
      for (bool normaliser : {false, true}) {
        // With a decay the normaliser is a kernel and a scale of its own: checked without one.
        if (small_tests() && normaliser && decay != Decay::none) continue;
        rules.push_back({decay, residual, normaliser});
      }
    }
  }
  return rules;
}

std::string describe(const Rule& rule) {
  constexpr std::array kNames = {"no", "head", "rows", "columns"};
  return std::string(kNames[static_cast<std::size_t>(rule.decay)]) + " decay" +
         (rule.residual ? " residual" : "") + (rule.normaliser ? " normaliser" : "");
}

constexpr double kFloor = 1e-6;

/// What a rule reads, in numbers that a float holds.
struct Tensors {
  HeadDims dims;
  Values r, a, q, v, d_o;  // (B, T, H, d)
  Values decay;            // (B, T, H, 1 or d)
};

/// Keys and queries are positive, so that no z . q is near 0, and short enough for S to stay in
/// bounds; r is a key near a. Decays lie between `least_decay` and 1.
Tensors random_tensors(const Rule& rule, const HeadDims& dims, double least_decay = 0.8) {
  Tensors tensors{.dims = dims};
  std::uint32_t lane = 0;
  const auto fill = [&](Values& values, Index width, const auto& number) {
    Rng rng(71, RngStream::benchmark, 0, lane++);
    values.resize(static_cast<std::size_t>(dims.rows() * dims.heads * width));
    for (double& value : values) value = static_cast<float>(number(rng));
  };
  const double length = 1.0 / std::sqrt(static_cast<double>(dims.d_h));
  const auto key = [&](Rng& rng) { return length * std::abs(rng.normal()); };
  fill(tensors.a, dims.d_h, key);
  fill(tensors.q, dims.d_h, key);
  const auto value = [](Rng& rng) { return 0.7 * rng.normal(); };
  fill(tensors.v, dims.d_h, value);
  fill(tensors.d_o, dims.d_h, value);
  fill(tensors.decay, rule.decay_width(dims.d_h),
       [&](Rng& rng) { return least_decay + (1.0 - least_decay) * rng.uniform(); });
  if (rule.residual) {
    fill(tensors.r, dims.d_h, [&](Rng& rng) { return 0.3 * length * rng.normal(); });
    for (std::size_t i = 0; i < tensors.r.size(); ++i) {
      tensors.r[i] = static_cast<float>(tensors.r[i] + tensors.a[i]);
    }
  }
  return tensors;
}

struct Results {
  Values o, e, dv, dq, da, dr, ddecay;
  Values df, dq_normaliser;  // what passes through the normaliser

  static constexpr std::array kNames = {"o",  "e",      "dv", "dq",           "da",
                                        "dr", "ddecay", "df", "dq_normaliser"};
  std::array<const Values*, 9> all() const {
    return {&o, &e, &dv, &dq, &da, &dr, &ddecay, &df, &dq_normaliser};
  }
};

/// One lane in plain double loops; numbers are the steps of recurrence_cuda.h.
class ReferenceLane {
 public:
  ReferenceLane(const Rule& rule, const Tensors& tensors, Index batch, Index head)
      : rule_(rule), in_(tensors), d_(tensors.dims.d_h), batch_(batch), head_(head) {}

  void run(Results& out) {
    const Index tokens = in_.dims.tokens;
    states_.assign(1, Values(static_cast<std::size_t>(d_ * d_)));
    sums_.assign(1, Values(static_cast<std::size_t>(d_)));
    for (Index t = 0; t < tokens; ++t) step(t, out);
    ds_.assign(static_cast<std::size_t>(d_ * d_), 0.0);
    dz_.assign(static_cast<std::size_t>(d_), 0.0);
    for (Index t = tokens; t-- > 0;) step_back(t, out);
  }

 private:
  std::size_t at(Index t, Index i, Index width) const {
    const HeadDims& dims = in_.dims;
    return static_cast<std::size_t>(((batch_ * dims.tokens + t) * dims.heads + head_) * width + i);
  }
  std::size_t at(Index t, Index i) const { return at(t, i, d_); }
  std::size_t element(Index i, Index j) const { return static_cast<std::size_t>(i * d_ + j); }
  /// Where the number stands that scales S_ij.
  std::size_t decay_at(Index t, Index i, Index j) const {
    if (rule_.decay == Decay::head) return at(t, 0, 1);
    return at(t, rule_.decay == Decay::rows ? i : j);
  }
  double decay(Index t, Index i, Index j) const {
    return rule_.decay == Decay::none ? 1.0 : in_.decay[decay_at(t, i, j)];
  }
  double along(Index t, const Values& z) const {
    double sum = 0.0;
    for (Index j = 0; j < d_; ++j) sum += z[static_cast<std::size_t>(j)] * in_.q[at(t, j)];
    return sum;
  }

  void step(Index t, Results& out) {
    const Values& before = states_.back();
    Values state(before.size());
    Values z = sums_.back();
    for (Index j = 0; j < d_; ++j) z[static_cast<std::size_t>(j)] += in_.a[at(t, j)];
    const double c = rule_.normaliser ? 1.0 / std::max(along(t, z), kFloor) : 1.0;
    for (Index i = 0; i < d_; ++i) {
      double e = in_.v[at(t, i)];  // 1
      for (Index j = 0; j < d_ && rule_.residual; ++j) {
        e -= before[element(i, j)] * in_.r[at(t, j)];
      }
      double n = 0.0;
      for (Index j = 0; j < d_; ++j) {  // 2, 3
        double& s = state[element(i, j)];
        s = decay(t, i, j) * before[element(i, j)] + e * in_.a[at(t, j)];
        n += s * in_.q[at(t, j)];
      }
      out.e[at(t, i)] = e;
      out.o[at(t, i)] = c * n;
    }
    states_.push_back(std::move(state));
    sums_.push_back(std::move(z));
  }

  void step_back(Index t, Results& out) {
    const Values& before = states_[static_cast<std::size_t>(t)];
    const Values& after = states_[static_cast<std::size_t>(t) + 1];
    const double c = rule_.normaliser ? step_normaliser_back(t, out) : 1.0;
    for (Index i = 0; i < d_; ++i) {
      const double dn = c * in_.d_o[at(t, i)];
      double de = 0.0;
      for (Index j = 0; j < d_; ++j) {
        double& ds = ds_[element(i, j)];
        ds += dn * in_.q[at(t, j)];  // 3
        out.dq[at(t, j)] += after[element(i, j)] * dn;
        de += ds * in_.a[at(t, j)];  // 2
        out.da[at(t, j)] += ds * out.e[at(t, i)];
        if (rule_.decay != Decay::none) {
          out.ddecay[decay_at(t, i, j)] += ds * before[element(i, j)];
        }
        ds *= decay(t, i, j);
      }
      out.dv[at(t, i)] = de;  // 1
      for (Index j = 0; j < d_ && rule_.residual; ++j) {
        ds_[element(i, j)] -= de * in_.r[at(t, j)];
        out.dr[at(t, j)] -= before[element(i, j)] * de;
      }
    }
  }

  /// Gives 1 / c.
  double step_normaliser_back(Index t, Results& out) {
    const Values& z = sums_[static_cast<std::size_t>(t) + 1];
    const double c = along(t, z);
    double dc = 0.0;
    for (Index i = 0; i < d_; ++i) dc -= in_.d_o[at(t, i)] * out.o[at(t, i)] / c;
    for (Index j = 0; j < d_; ++j) {
      const auto channel = static_cast<std::size_t>(j);
      dz_[channel] += dc * in_.q[at(t, j)];
      out.df[at(t, j)] = dz_[channel];
      out.dq_normaliser[at(t, j)] = dc * z[channel];
    }
    return 1.0 / c;
  }

  const Rule& rule_;
  const Tensors& in_;
  Index d_, batch_, head_;
  std::vector<Values> states_, sums_;  // S and z, from before the first token on
  Values ds_, dz_;
};

Results run_reference(const Rule& rule, const Tensors& tensors) {
  const HeadDims& dims = tensors.dims;
  Results out;
  for (Values* values : {&out.o, &out.e, &out.dv, &out.dq, &out.da}) {
    values->resize(tensors.a.size());
  }
  out.dr.resize(tensors.r.size());
  out.ddecay.resize(tensors.decay.size());
  if (rule.normaliser) {
    out.df.resize(tensors.a.size());
    out.dq_normaliser.resize(tensors.a.size());
  }
  for (Index b = 0; b < dims.batch; ++b) {
    for (Index h = 0; h < dims.heads; ++h) ReferenceLane(rule, tensors, b, h).run(out);
  }
  return out;
}

/// (B, T, H, width) on the GPU with `padding` numbers behind a row's heads, NaN as everything that
/// nobody has written; a width of 0 is an array that is not there.
class Rows {
 public:
  Rows(const HeadDims& dims, Index width, Index padding)
      : dims_(dims), width_(width), stride_(dims.heads * width + padding) {
    if (width > 0) upload(std::vector<float>(size(), kNaN));
  }
  Rows(const HeadDims& dims, Index padding, const Values& values)
      : Rows(dims, static_cast<Index>(values.size()) / (dims.rows() * dims.heads), padding) {
    if (width_ == 0) return;
    std::vector<float> host(size(), kNaN);
    const Index row = dims.heads * width_;
    for (Index i = 0; i < dims.rows(); ++i) {
      for (Index j = 0; j < row; ++j) {
        host[static_cast<std::size_t>(i * stride_ + j)] =
            static_cast<float>(values[static_cast<std::size_t>(i * row + j)]);
      }
    }
    upload(host);
  }

  TokenView<float> view() {
    if (width_ == 0) return {};
    return {data_.data(), dims_.tokens * stride_, stride_, width_};
  }
  float* data() { return data_.data(); }

  Values values() const {
    Values result;
    if (width_ == 0) return result;
    const std::vector<float> host = to_host(data_);
    for (Index i = 0; i < dims_.rows(); ++i) {
      const auto row = host.begin() + i * stride_;
      result.insert(result.end(), row, row + dims_.heads * width_);
      for (Index j = dims_.heads * width_; j < stride_; ++j) {
        EXPECT_TRUE(std::isnan(row[j])) << "wrote behind row " << i;
      }
    }
    return result;
  }

 private:
  static constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  std::size_t size() const { return static_cast<std::size_t>(dims_.rows() * stride_); }
  void upload(const std::vector<float>& host) { data_ = to_device(Device::cuda, host); }

  HeadDims dims_;
  Index width_, stride_;
  Array<float> data_;
};

struct CudaOptions {
  Index padding = 0;  // 0: four channels are read at once
  bool wants_ddecay = true;
  bool constant_decay = false;  // the first token's, with strides of 0
  // Passes in chunks; a forward in chunks leaves no checkpoints for another backward.
  std::optional<ChunkedOptions> chunked{}, chunked_backward{};
};

/// Memory that nobody has written.
Array<float> scratch(Index size) {
  return to_device(Device::cuda, std::vector<float>(static_cast<std::size_t>(size),
                                                    std::numeric_limits<float>::quiet_NaN()));
}

/// Returns the scratch memory, for the backward.
Array<float> run_chunks(const RecurrenceInputs& inputs, const RecurrenceForward& forward,
                        ChunkedOptions options) {
  Array<float> states = scratch(chunked_scratch_size(inputs.dims, options.plan));
  options.scratch = states.data();
  chunked_forward(vla_bench::cuda::stream_context().stream(), inputs, forward, options);
  return states;
}
void run_chunks_back(const RecurrenceInputs& inputs, const RecurrenceBackward& backward,
                     const Array<float>& forward_states, ChunkedOptions options) {
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  Array<float> states = scratch(
      chunked_backward_scratch_size(inputs.dims, options.plan, backward.ddecay.data != nullptr));
  Array<float> sums = scratch(normaliser_backward_scratch_size(inputs.dims));
  options.scratch = states.data();
  options.sums = sums.data();
  if (forward_states.size() > 0) options.forward_scratch = forward_states.data();
  chunked_backward(stream, inputs, backward, options);
  VLA_CUDA(cudaStreamSynchronize(stream));
}

Results run_cuda(const Rule& rule, const Tensors& tensors, const CudaOptions& options = {}) {
  const HeadDims& dims = tensors.dims;
  const Index d = dims.d_h;
  const Index padding = options.padding;
  const cudaStream_t stream = vla_bench::cuda::stream_context().stream();
  const bool wants_ddecay = options.wants_ddecay && rule.decay != Decay::none;
  const bool in_pass = rule.normaliser && rule.decay == Decay::none && !rule.residual;
  const auto absent_unless = [](bool wanted, Index width) { return wanted ? width : 0; };

  Rows r(dims, padding, tensors.r), a(dims, padding, tensors.a), q(dims, padding, tensors.q);
  Rows v(dims, padding, tensors.v), d_o(dims, padding, tensors.d_o);
  Rows decay(dims, padding, tensors.decay);
  Rows o(dims, d, padding), e(dims, absent_unless(rule.residual, d), padding);
  Rows denominator(dims, 1, 0), scale(dims, 1, 0), d_denominator(dims, 1, 0);
  Array<float> checkpoints =
      to_device(Device::cuda, std::vector<float>(static_cast<std::size_t>(checkpoint_size(dims))));

  RecurrenceInputs inputs{.dims = dims, .r = r.view(), .a = a.view(), .q = q.view()};
  inputs.decay_kind = rule.decay;
  inputs.decay = decay.view();
  if (options.constant_decay) inputs.decay.batch = inputs.decay.token = 0;

  RecurrenceForward forward{.v = v.view(), .o = o.view(), .e = e.view()};
  forward.checkpoints = wants_ddecay ? checkpoints.data() : nullptr;
  if (in_pass) {
    forward.denominator = denominator.data();
    forward.floor = static_cast<float>(kFloor);
  } else if (rule.normaliser) {
    Rows sums({1, normaliser_scratch_size(dims), 1, 1}, 1, 0);
    normaliser_forward(stream, {.dims = dims,
                                .f = a.view(),
                                .q = q.view(),
                                .floor = static_cast<float>(kFloor),
                                .denominator = denominator.data(),
                                .scale = scale.data(),
                                .sums = options.chunked ? sums.data() : nullptr});
    VLA_CUDA(cudaStreamSynchronize(stream));
    inputs.scale = scale.data();
  }
  Array<float> forward_states;
  if (options.chunked) {
    forward_states = run_chunks(inputs, forward, *options.chunked);
  } else {
    recurrence_forward(stream, inputs, forward);
  }

  Rows dv(dims, d, padding), dq(dims, d, padding), da(dims, d, padding);
  Rows dr(dims, absent_unless(rule.residual, d), padding);
  Rows ddecay(dims, absent_unless(wants_ddecay, rule.decay_width(d)), padding);
  Rows df(dims, absent_unless(rule.normaliser, d), padding);
  Rows dq_normaliser(dims, absent_unless(rule.normaliser, d), padding);
  RecurrenceBackward backward{.e = rule.residual ? e.view() : v.view(),
                              .d_o = d_o.view(),
                              .de = dv.view(),
                              .dq = dq.view(),
                              .da = da.view(),
                              .dr = dr.view(),
                              .ddecay = ddecay.view(),
                              .checkpoints = checkpoints.data()};
  if (rule.normaliser) {
    normaliser_terms(stream, {.dims = dims,
                              .o = o.view(),
                              .d_o = d_o.view(),
                              .denominator = denominator.data(),
                              .floor = static_cast<float>(kFloor),
                              .scale = scale.data(),
                              .d_denominator = d_denominator.data()});
    inputs.scale = scale.data();
    backward.normaliser = {.f = a.view(),
                           .q = q.view(),
                           .d_denominator = d_denominator.data(),
                           .df = df.view(),
                           .dq = dq_normaliser.view()};
  }
  if (options.chunked_backward) {
    run_chunks_back(inputs, backward, forward_states, *options.chunked_backward);
  } else {
    recurrence_backward(stream, inputs, backward);
  }
  return {.o = o.values(),
          .e = rule.residual ? e.values() : tensors.v,
          .dv = dv.values(),
          .dq = dq.values(),
          .da = da.values(),
          .dr = dr.values(),
          .ddecay = ddecay.values(),
          .df = df.values(),
          .dq_normaliser = dq_normaliser.values()};
}

/// Gradients that nearly vanish hold rounding noise: they are held to the scale of all.
void expect_same(const Results& actual, const Results& expected, const HeadDims& dims,
                 const std::string& where, double tolerance = 0.0) {
  double largest = 0.0;
  for (std::size_t i = 2; i < Results::kNames.size(); ++i) {
    for (double value : *expected.all()[i]) largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
    const double floor = i < 2 ? 1e-300 : std::max(1e-300, 0.1 * largest);
    EXPECT_TRUE(near(where + " " + testing::describe(dims) + " " + Results::kNames[i],
                     std::span<const double>(*actual.all()[i]),
                     std::span<const double>(*expected.all()[i]),
                     tolerance > 0.0 ? tolerance : rounding_tolerance<float>(dims), floor));
  }
}

TEST(RecurrenceCuda, EqualsTheReference) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    for (const HeadDims& dims : gpu_shapes()) {
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = run_reference(rule, tensors);
      for (Index padding : {0, 1}) {
        expect_same(run_cuda(rule, tensors, {.padding = padding}), expected, dims,
                    describe(rule) + " padding " + std::to_string(padding));
      }
    }
  }
}

// Token by token alone.
TEST(RecurrenceCuda, EqualsTheReferenceOfLargeHeads) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    for (const HeadDims& dims : {HeadDims{1, 1, 1, 256}, {2, 21, 2, 256}}) {
      const Tensors tensors = random_tensors(rule, dims);
      Results expected = run_reference(rule, tensors);
      for (Index padding : {0, 1}) {
        expect_same(run_cuda(rule, tensors, {.padding = padding}), expected, dims,
                    describe(rule) + " padding " + std::to_string(padding));
      }
      if (rule.decay == Decay::none) continue;
      expected.ddecay.clear();
      expect_same(run_cuda(rule, tensors, {.wants_ddecay = false}), expected, dims,
                  describe(rule) + " held constant");
    }
  }
}

TEST(RecurrenceCuda, EqualsTheReferenceWithoutTheDecaysGradient) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    if (rule.decay == Decay::none) continue;
    for (Index d : {8, 16, 32, 64, 128}) {
      const HeadDims dims{2, small_tests() ? 33 : 73, 2, d};
      const Tensors tensors = random_tensors(rule, dims);
      Results expected = run_reference(rule, tensors);
      expected.ddecay.clear();
      expect_same(run_cuda(rule, tensors, {.wants_ddecay = false}), expected, dims,
                  describe(rule) + " held constant");
    }
  }
}

std::vector<Rule> chunked_rules() {
  std::vector<Rule> rules = all_rules();
  std::erase_if(rules, [](const Rule& rule) { return rule.decay == Decay::rows; });
  return rules;
}

/// One segment, and short ones for joins.
std::vector<ChunkedPlan> chunked_plans(Index tokens) {
  std::vector<ChunkedPlan> plans = {{}};
  for (Index length : {kChunkTokens, 3 * kChunkTokens}) {
    const Index segments = (tokens + length - 1) / length;
    if (segments > 1) plans.push_back({.segments = segments, .segment_tokens = length});
  }
  return plans;
}

CudaOptions in_chunks(const ChunkedOptions& options, Index padding = 0) {
  return {.padding = padding, .chunked = options, .chunked_backward = options};
}

/// With the gradient of the decay's logarithm: where the decay is near 0, passes in chunks have
/// only that exact.
Results by_logarithm(Results results, const Tensors& tensors) {
  for (std::size_t i = 0; i < results.ddecay.size(); ++i) results.ddecay[i] *= tensors.decay[i];
  return results;
}
Results run_in_chunks(const Rule& rule, const Tensors& tensors, const ChunkedOptions& options,
                      Index padding = 0) {
  return by_logarithm(run_cuda(rule, tensors, in_chunks(options, padding)), tensors);
}

TEST(ChunkedCuda, EqualsTheReference) {
  VLA_NEEDS_GPU();
  std::vector<HeadDims> shapes = gpu_shapes();
  for (Index d : {8, 16, 32, 64, 128}) shapes.push_back({2, small_tests() ? 65 : 200, 2, d});
  if (!small_tests()) {
    for (Index tokens : {5, 63, 65, 1000, 4097}) shapes.push_back({1, tokens, 1, 64});
    shapes.push_back({75, 65, 4, 16});
  }
  for (const Rule& rule : chunked_rules()) {
    for (const HeadDims& dims : shapes) {
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      for (const ChunkedPlan& plan : chunked_plans(dims.tokens)) {
        for (Index padding : {0, 1}) {
          const ChunkedOptions options{.plan = plan};
          expect_same(run_in_chunks(rule, tensors, options, padding), expected, dims,
                      describe(rule) + " padding " + std::to_string(padding) + " segments " +
                          std::to_string(plan.segments));
        }
      }
    }
  }
}

// Either pass may follow or precede one that goes token by token.
TEST(ChunkedCuda, MixesWithTheRecurrence) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    const HeadDims dims{2, 130, 2, 32};
    const Tensors tensors = random_tensors(rule, dims);
    Results expected = run_reference(rule, tensors);
    expected.ddecay.clear();
    const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back()};
    expect_same(run_cuda(rule, tensors, {.wants_ddecay = false, .chunked = options}), expected,
                dims, describe(rule) + " forward only");
    expect_same(run_cuda(rule, tensors, {.wants_ddecay = false, .chunked_backward = options}),
                expected, dims, describe(rule) + " backward only");
  }
}

// TF32 rounds operands to 2^-11; where errors of a thousand products add like a random walk, and
// gradients cancel, 64 such units cover it. One unit is a hundred times what float32 leaves.
TEST(ChunkedCuda, RoundsToTf32) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    for (Index d : {8, 16, 32, 64, 128}) {
      const HeadDims dims{2, 130, 2, d};
      const Tensors tensors = random_tensors(rule, dims);
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back(), .grade = Grade::tf32};
      const Results actual = run_in_chunks(rule, tensors, options);
      expect_same(actual, expected, dims, describe(rule) + " tf32", 64.0 * 0x1p-11);
      for (std::size_t i : {0, 2, 3, 4}) {  // o, dv, dq, da
        EXPECT_FALSE(near("float32", std::span<const double>(*actual.all()[i]),
                          std::span<const double>(*expected.all()[i]),
                          rounding_tolerance<float>(dims), 1e-300))
            << describe(rule) << " " << Results::kNames[i] << ": TF32 does not round";
      }
    }
  }
}

TEST(ChunkedCuda, EqualsTheReferenceWithDecaysNearZero) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    if (rule.decay == Decay::none) continue;
    for (Index d : {16, 32, 64, 128}) {
      const HeadDims dims{2, 100, 2, d};
      Tensors tensors = random_tensors(rule, dims, 0.0);
      for (double& decay : tensors.decay) decay = static_cast<float>(std::pow(decay, 16.0));
      for (std::size_t i = 0; i < tensors.decay.size(); i += 7) tensors.decay[i] = 0.0;
      const Results expected = by_logarithm(run_reference(rule, tensors), tensors);
      for (const ChunkedPlan& plan : chunked_plans(dims.tokens)) {
        const ChunkedOptions options{.plan = plan};
        expect_same(run_in_chunks(rule, tensors, options), expected, dims,
                    describe(rule) + " near 0");
      }
    }
  }
}

TEST(ChunkedCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : chunked_rules()) {
    const HeadDims dims{3, 200, 2, 64};
    const Tensors tensors = random_tensors(rule, dims);
    const ChunkedOptions options{.plan = chunked_plans(dims.tokens).back()};
    const Results first = run_cuda(rule, tensors, in_chunks(options));
    const Results second = run_cuda(rule, tensors, in_chunks(options));
    for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
      EXPECT_EQ(*first.all()[i], *second.all()[i])
          << describe(rule) << ": " << Results::kNames[i] << " differs between runs";
    }
  }
}

TEST(ChunkedCuda, CutsLanesToFillTheChip) {
  bool has_residual = true;
  Index d = 64;
  const auto plan = [&](Index batch, Index tokens, Index heads) {
    return plan_segments({batch, tokens, heads, d}, has_residual, 132);
  };
  EXPECT_EQ(plan(4, 383, 1).segments, 1);
  EXPECT_EQ(plan(4, 384, 1).segments, 3);
  EXPECT_EQ(plan(4, 384, 1).segment_tokens, 128);
  EXPECT_EQ(plan(4, 131072, 1).segments, 33);
  EXPECT_EQ(plan(4, 131072, 1).segment_tokens, 4000);
  EXPECT_EQ(plan(45, 131072, 1).segments, 1);
  EXPECT_EQ(plan(1, 131072, 16).segments, 8);
  has_residual = false;
  EXPECT_EQ(plan(4, 131072, 1).segments, 66);
  EXPECT_EQ(plan(67, 131072, 1).segments, 3);
  d = 128;
  EXPECT_EQ(plan(4, 131072, 1).segments, 33);
}

// A state that is divided by its decay to go back in time would blow up.
TEST(RecurrenceCuda, EqualsTheReferenceWithDecaysNearZero) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    const HeadDims dims{2, 40, 2, 32};
    Tensors tensors = random_tensors(rule, dims, 0.0);
    for (double& decay : tensors.decay) decay = static_cast<float>(std::pow(decay, 16.0));
    if (rule.decay != Decay::none) tensors.decay[tensors.decay.size() / 2] = 0.0;
    expect_same(run_cuda(rule, tensors), run_reference(rule, tensors), dims,
                describe(rule) + " near 0");
  }
}

// RetNet's: a number a head, whatever the token.
TEST(RecurrenceCuda, TakesOneDecayForAllTokens) {
  VLA_NEEDS_GPU();
  const Rule rule{.decay = Decay::head};
  const HeadDims dims{2, 40, 3, 32};
  Tensors tensors = random_tensors(rule, dims);
  for (std::size_t i = 3; i < tensors.decay.size(); ++i) tensors.decay[i] = tensors.decay[i - 3];
  const Results expected = run_cuda(rule, tensors, {.wants_ddecay = false});
  const Results actual = run_cuda(rule, tensors, {.wants_ddecay = false, .constant_decay = true});
  for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
    EXPECT_EQ(*actual.all()[i], *expected.all()[i]) << Results::kNames[i];
  }
}

TEST(RecurrenceCuda, RepeatsBitForBit) {
  VLA_NEEDS_GPU();
  for (const Rule& rule : all_rules()) {
    const Tensors tensors = random_tensors(rule, {3, 70, 2, 64});
    const Results first = run_cuda(rule, tensors);
    const Results second = run_cuda(rule, tensors);
    for (std::size_t i = 0; i < Results::kNames.size(); ++i) {
      EXPECT_EQ(*first.all()[i], *second.all()[i])
          << describe(rule) << ": " << Results::kNames[i] << " differs between runs";
    }
  }
}

// The reference's backward against central differences of its forward: their error is about 1e-10
// at a step of 1e-5, and the smallest wrong term is some 1e-2.
TEST(RecurrenceReference, EqualsCentralDifferences) {
  constexpr double kStep = 1e-5;
  for (const Rule& rule : all_rules()) {
    const HeadDims dims{1, 5, 2, 3};
    Tensors tensors = random_tensors(rule, dims);
    const Results run = run_reference(rule, tensors);
    const auto loss = [&] {
      const Results probe = run_reference(rule, tensors);
      double sum = 0.0;
      for (std::size_t i = 0; i < probe.o.size(); ++i) sum += probe.o[i] * tensors.d_o[i];
      return sum;
    };
    const auto expect_gradient = [&](const char* name, Values& input, const Values& gradient,
                                     const Values& more) {
      for (std::size_t i = 0; i < input.size(); ++i) {
        const double start = input[i];
        input[i] = start + kStep;
        const double above = loss();
        input[i] = start - kStep;
        const double below = loss();
        input[i] = start;
        EXPECT_NEAR((above - below) / (2 * kStep), gradient[i] + (more.empty() ? 0.0 : more[i]),
                    1e-7)
            << describe(rule) << " " << name << "[" << i << "]";
      }
    };
    expect_gradient("v", tensors.v, run.dv, {});
    expect_gradient("q", tensors.q, run.dq, run.dq_normaliser);
    expect_gradient("a", tensors.a, run.da, run.df);
    expect_gradient("r", tensors.r, run.dr, {});
    expect_gradient("decay", tensors.decay, run.ddecay, {});
  }
}

}  // namespace
}  // namespace vla_bench::mixers::cuda
