// Tests of the parameter layout and of the projections' gradients; the cores have their own tests.
#include "mixers/layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "mixers/registry.h"
#include "testing/compare.h"

namespace vla_bench {
namespace {

std::vector<MixerConfig> variants() {
  std::vector<MixerConfig> all = {
      {.options = SoftmaxOptions{}},
      {.options = LinearOptions{}},
      {.options = DeltaNetOptions{}},
      {.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}},
      {.options = VlaOptions{}},
      {.options = VlaOptions{.penalty = Penalty::frozen}},
      {.options = KdaOptions{}},
      {.options = BasedOptions{.feature_dim = 2}}};
  for (std::size_t i = 0, count = all.size(); i < count; ++i) {
    MixerConfig other = all[i];
    other.output_norm = !mixer_layout(other, 4).output_norm;
    all.push_back(other);
    other.output_norm = true;
    other.output_norm_kind = OutputNorm::rms_head;
    all.push_back(other);
  }
  return all;
}

ModelConfig model_of(Index n_heads, Index d_h) {
  ModelConfig model;
  model.n_heads = n_heads;
  model.d_h = d_h;
  return model;
}

/// The layer of the benchmark: convolutions of q, k and v, no biases.
ModelConfig field_model(Index n_heads, Index d_h) {
  ModelConfig model = model_of(n_heads, d_h);
  model.short_conv_qkv = 3;
  model.bias = false;
  return model;
}

std::vector<std::string> names(const MixerConfig& mixer,
                               const ModelConfig& model = model_of(2, 4)) {
  ParameterTable table;
  const MixerLayer<float> layer(model, mixer, Device::cpu, Implementation::production, "p.", table);
  std::vector<std::string> all;
  for (const Parameter& parameter : table.all()) all.push_back(parameter.name);
  return all;
}

TEST(MixerLayer, ParametersCarryTheNamesOfAStateDict) {
  EXPECT_EQ(names({.options = SoftmaxOptions{}}),
            (std::vector<std::string>{"p.qkv.weight", "p.qkv.bias", "p.o.weight", "p.o.bias"}));
  EXPECT_EQ(names({.options = VlaOptions{}}),
            (std::vector<std::string>{"p.Wq.weight", "p.Wk.weight", "p.Wv.weight", "p.Wq.bias",
                                      "p.Wk.bias", "p.Wv.bias", "p.Wu.weight", "p.norm_o.weight",
                                      "p.norm_o.bias", "p.Wo.weight", "p.Wo.bias"}));
  ParameterTable table;
  const MixerLayer<float> layer(model_of(2, 4),
                                {.options = DeltaNetOptions{.variant = DeltaNetVariant::standard}},
                                Device::cpu, Implementation::production, "", table);
  EXPECT_EQ(table.at("Wb.weight").shape, (std::vector<Index>{2, 8}));
  EXPECT_EQ(table.at("Wb.bias").shape, (std::vector<Index>{2}));
  EXPECT_EQ(table.size(), 4 * (64 + 8) + (16 + 2) + 16);
  EXPECT_THROW(table.at("Wg.weight"), BadInput);
}

TEST(MixerLayer, TheFieldsLayerHasConvolutionsAndNoBiases) {
  EXPECT_EQ(names({.options = DeltaNetOptions{.variant = DeltaNetVariant::standard},
                   .output_norm_kind = OutputNorm::rms_head},
                  field_model(2, 4)),
            (std::vector<std::string>{"p.Wq.weight", "p.Wk.weight", "p.Wv.weight",
                                      "p.q_conv1d.weight", "p.k_conv1d.weight", "p.v_conv1d.weight",
                                      "p.Wb.weight", "p.norm_o.weight", "p.Wo.weight"}));
  EXPECT_EQ(names({.options = SoftmaxOptions{}}, field_model(2, 4)),
            (std::vector<std::string>{"p.qkv.weight", "p.o.weight"}));

  ModelConfig model = field_model(2, 4);
  model.scaled_residual_init = true;
  ParameterTable table;
  const MixerLayer<float> layer(model,
                                {.options = VlaOptions{}, .output_norm_kind = OutputNorm::rms_head},
                                Device::cpu, Implementation::production, "", table);
  EXPECT_EQ(table.at("norm_o.weight").shape, (std::vector<Index>{4}));
  EXPECT_EQ(table.at("v_conv1d.weight").shape, (std::vector<Index>{8, 1, 3}));
  EXPECT_EQ(table.at("v_conv1d.weight").fan_in, 3);
  EXPECT_EQ(table.at("Wo.weight").initialisation, Initialisation::scaled_normal);
  EXPECT_EQ(table.at("Wv.weight").initialisation, Initialisation::normal);
}

TEST(MixerLayer, KeysMayHaveFewerChannelsThanAHead) {
  ParameterTable table;
  const MixerLayer<float> layer(field_model(2, 4), {.options = BasedOptions{.feature_dim = 3}},
                                Device::cpu, Implementation::production, "", table);
  EXPECT_EQ(table.at("Wk.weight").shape, (std::vector<Index>{6, 8}));
  EXPECT_EQ(table.at("Wv.weight").shape, (std::vector<Index>{8, 8}));
  EXPECT_EQ(table.at("q_conv1d.weight").shape, (std::vector<Index>{6, 1, 3}));
  EXPECT_EQ(table.at("v_conv1d.weight").shape, (std::vector<Index>{8, 1, 3}));
  // q, k, v before and after their convolutions, o and its norm with two numbers a token; a
  // denominator for each head.
  EXPECT_EQ(layer.activation_bytes(3, 5), 15 * (2 * 20 + 2 * 8 + 2 + 2) * 4);
}

TEST(MixerLayer, ValuesMayHaveMoreChannelsThanKeys) {
  ModelConfig model = field_model(2, 4);
  model.d_v = 8;
  ParameterTable table;
  const MixerLayer<float> layer(
      model, {.options = GatedDeltaNetOptions{}, .output_norm_kind = OutputNorm::rms_head},
      Device::cpu, Implementation::production, "", table);
  EXPECT_EQ(table.at("Wk.weight").shape, (std::vector<Index>{8, 8}));
  EXPECT_EQ(table.at("Wv.weight").shape, (std::vector<Index>{16, 8}));
  EXPECT_EQ(table.at("v_conv1d.weight").shape, (std::vector<Index>{16, 1, 3}));
  EXPECT_EQ(table.at("norm_o.weight").shape, (std::vector<Index>{8}));
  EXPECT_EQ(table.at("Wo.weight").shape, (std::vector<Index>{8, 16}));

  const MixerLayer<float> linear(model, {.options = LinearOptions{}, .output_norm = true},
                                 Device::cpu, Implementation::production, "linear.", table);
  EXPECT_EQ(table.at("linear.norm_o.weight").shape, (std::vector<Index>{16}));
  // q, k, v before and after their convolutions, o and its norm with two numbers a token; a
  // denominator for each head.
  EXPECT_EQ(linear.activation_bytes(3, 5), 15 * (2 * 32 + 2 * 16 + 2 + 2) * 4);
}

TEST(MixerLayer, OutputNormIsAChoiceForEveryMixer) {
  for (const MixerConfig& mixer : variants()) {
    const std::vector<std::string> all = names(mixer);
    EXPECT_EQ(std::count(all.begin(), all.end(), "p.norm_o.weight"),
              mixer_layout(mixer, 4).output_norm ? 1 : 0);
  }
}

class Problem {
 public:
  explicit Problem(const MixerConfig& mixer, const ModelConfig& model = model_of(kHeads, kHead))
      : Problem(mixer_layout(mixer, kHead),
                make_mixer_core<double>(mixer, kHead, Device::cpu, Implementation::production),
                model) {}
  Problem(MixerLayout layout, std::unique_ptr<MixerCore<double>> core,
          const ModelConfig& model = model_of(kHeads, kHead))
      : layer_(model, std::move(layout), std::move(core), "", table_) {
    parameters_.resize(static_cast<std::size_t>(table_.size()));
    gradients_.resize(parameters_.size());
    std::uint32_t lane = 0;
    for (auto* values : {&parameters_, &x_, &dy_}) {
      Rng rng(3, RngStream::benchmark, 0, lane++);
      for (double& value : *values) value = 0.5 * rng.normal();
    }
  }

  double loss() {
    const Context context{.device = Device::cpu, .threads = 1};
    std::vector<double> y(x_.size());
    layer_.forward(context, kBatch, kTokens, {x_.data(), kBatch * kTokens, kD}, parameters_.data(),
                   {y.data(), kBatch * kTokens, kD}, true);
    double sum = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy_[i];
    return sum;
  }
  void backward() {
    const Context context{.device = Device::cpu, .threads = 1};
    layer_.backward(context, {x_.data(), kBatch * kTokens, kD}, parameters_.data(),
                    {dy_.data(), kBatch * kTokens, kD}, {dx_.data(), kBatch * kTokens, kD},
                    gradients_.data());
  }

  static constexpr Index kBatch = 2, kTokens = 5, kHeads = 2, kHead = 3, kD = kHeads * kHead;
  ParameterTable table_;
  MixerLayer<double> layer_;
  std::vector<double> parameters_, gradients_;
  std::vector<double> x_ = std::vector<double>(kBatch * kTokens * kD);
  std::vector<double> dy_ = x_, dx_ = x_;
};

// d loss / d input by central differences; see mixer_cases.h for the size of their error.
std::vector<double> differentiate(Problem& problem, std::vector<double>& input) {
  constexpr double h = 1e-5;
  std::vector<double> gradient;
  for (double& value : input) {
    const double start = value;
    value = start + h;
    const double above = problem.loss();
    value = start - h;
    const double below = problem.loss();
    value = start;
    gradient.push_back((above - below) / (2 * h));
  }
  return gradient;
}

void expect_gradients(Problem& problem) {
  const std::vector<double> dx = differentiate(problem, problem.x_);
  const std::vector<double> gradients = differentiate(problem, problem.parameters_);
  problem.loss();
  problem.backward();
  EXPECT_TRUE(
      testing::near("dx", std::span<const double>(problem.dx_), std::span<const double>(dx), 1e-6));
  EXPECT_TRUE(testing::near("gradients", std::span<const double>(problem.gradients_),
                            std::span<const double>(gradients), 1e-6));

  // Parameter gradients accumulate, dx does not.
  const std::vector<double> once = problem.gradients_;
  problem.backward();
  std::vector<double> twice = once;
  for (double& value : twice) value *= 2;
  EXPECT_TRUE(testing::near("accumulated", std::span<const double>(problem.gradients_),
                            std::span<const double>(twice), 1e-14));
  EXPECT_TRUE(testing::near("dx again", std::span<const double>(problem.dx_),
                            std::span<const double>(dx), 1e-6));
}

TEST(MixerLayer, GradientsMatchCentralDifferences) {
  for (const MixerConfig& mixer : variants()) {
    SCOPED_TRACE(std::string(mixer.name()));
    Problem problem(mixer);
    expect_gradients(problem);
    ModelConfig model = field_model(Problem::kHeads, Problem::kHead);
    Problem of_field(mixer, model);
    expect_gradients(of_field);
    if (!why_values_are_as_wide_as_keys(mixer.options).empty()) continue;
    model.d_v = 2 * Problem::kHead;
    Problem wide(mixer, model);
    expect_gradients(wide);
  }
}

/// o = v, and what it read, for the test below.
class ShowCore final : public MixerCore<double> {
 public:
  void forward(const Context&, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>*) override {
    for (const auto* view : {&inputs.q, &inputs.k, &inputs.v}) {
      for (Index row = 0; row < inputs.dims.rows(); ++row) {
        for (Index head = 0; head < inputs.dims.heads; ++head) {
          const double* channels = view->at(row, head);
          std::copy_n(channels, inputs.dims.d_h, o.at(row, head));
          seen->insert(seen->end(), channels, channels + inputs.dims.d_h);
        }
      }
    }
  }
  void backward(const Context&, const CoreInputs<double>&, const CoreGradients<double>&,
                const Array<double>&) override {}
  std::unique_ptr<HeadMemory<double>> memory(Index) const override { return nullptr; }
  Index state_bytes(const HeadDims&) const override { return 0; }
  Index saved_bytes(const HeadDims&) const override { return 0; }

  explicit ShowCore(std::vector<double>* seen_) : seen(seen_) {}
  std::vector<double>* seen;  // q, k, v of all rows, each (B, T, H, d)
};

// q and k are convolved, v is convolved and goes through a SiLU; against plain loops.
TEST(MixerLayer, ConvolvesQueriesKeysAndValues) {
  std::vector<double> seen;
  const ModelConfig model = field_model(Problem::kHeads, Problem::kHead);
  Problem problem(MixerLayout{}, std::make_unique<ShowCore>(&seen), model);
  problem.loss();
  const Index M = Problem::kBatch * Problem::kTokens;
  const Index D = Problem::kD;
  std::vector<double> expected;
  for (const char* name : {"q", "k", "v"}) {
    const auto values = [&](const std::string& parameter) {
      return problem.parameters_.data() + problem.table_.at(parameter).offset;
    };
    const double* weight = values(std::string("W") + name + ".weight");
    const double* taps = values(std::string(name) + "_conv1d.weight");
    const auto projected = [&](Index row, Index c) {
      double sum = 0.0;
      for (Index j = 0; j < D; ++j) sum += weight[c * D + j] * problem.x_[row * D + j];
      return sum;
    };
    for (Index row = 0; row < M; ++row) {
      for (Index c = 0; c < D; ++c) {
        double sum = 0.0;
        for (Index back = 0; back < 3 && back <= row % Problem::kTokens; ++back) {
          sum += taps[c * 3 + 2 - back] * projected(row - back, c);
        }
        expected.push_back(name[0] == 'v' ? sum / (1.0 + std::exp(-sum)) : sum);
      }
    }
  }
  EXPECT_TRUE(testing::near("q, k, v", std::span<const double>(seen),
                            std::span<const double>(expected), 1e-14));
}

/// o = gain v + more_0 k + more_1 q + more_2 v: three further projections, one of the keys, one of
/// width 1 and one through two channels, and a parameter of the core, (H, d).
class ToyCore final : public MixerCore<double> {
 public:
  static MixerLayout layout(Index d) {
    return {.more = {{.name = "Wa", .width = d, .source = Projection::Source::key, .bias = false},
                     {.name = "Wb", .width = 1},
                     {.name = "Wc", .width = d, .through = 2}},
            .parameters = {{.name = "gain", .shape = {d}, .initialisation = Initialisation::ones}}};
  }

  void forward(const Context&, const CoreInputs<double>& inputs, HeadView<double> o,
               Array<double>*) override {
    for_each(inputs.dims, [&](Index row, Index head, Index i) {
      o.at(row, head)[i] =
          (inputs.parameters[0][head * inputs.dims.d_h + i] + inputs.more[2].at(row, head)[i]) *
              inputs.v.at(row, head)[i] +
          inputs.more[0].at(row, head)[i] * inputs.k.at(row, head)[i] +
          inputs.more[1].at(row, head)[0] * inputs.q.at(row, head)[i];
    });
  }
  void backward(const Context&, const CoreInputs<double>& inputs,
                const CoreGradients<double>& gradients, const Array<double>&) override {
    for_each(inputs.dims, [&](Index row, Index head, Index i) {
      const double g = gradients.d_o.at(row, head)[i];
      const Index channel = head * inputs.dims.d_h + i;
      gradients.dparameters[0][channel] += g * inputs.v.at(row, head)[i];
      gradients.dv.at(row, head)[i] =
          g * (inputs.parameters[0][channel] + inputs.more[2].at(row, head)[i]);
      gradients.dmore[2].at(row, head)[i] = g * inputs.v.at(row, head)[i];
      gradients.dk.at(row, head)[i] = g * inputs.more[0].at(row, head)[i];
      gradients.dmore[0].at(row, head)[i] = g * inputs.k.at(row, head)[i];
      gradients.dq.at(row, head)[i] = g * inputs.more[1].at(row, head)[0];
      double& d_scalar = gradients.dmore[1].at(row, head)[0];
      d_scalar = (i == 0 ? 0.0 : d_scalar) + g * inputs.q.at(row, head)[i];
    });
  }
  std::unique_ptr<HeadMemory<double>> memory(Index) const override { return nullptr; }
  Index state_bytes(const HeadDims&) const override { return 0; }
  Index saved_bytes(const HeadDims&) const override { return 0; }

 private:
  template <class Body>
  static void for_each(const HeadDims& dims, const Body& body) {
    for (Index row = 0; row < dims.rows(); ++row) {
      for (Index head = 0; head < dims.heads; ++head) {
        for (Index i = 0; i < dims.d_h; ++i) body(row, head, i);
      }
    }
  }
};

TEST(MixerLayer, FurtherProjectionsAndParametersReachTheCore) {
  constexpr Index d = Problem::kD / Problem::kHeads;
  Problem problem(ToyCore::layout(d), std::make_unique<ToyCore>());
  EXPECT_EQ(problem.table_.at("gain").shape, (std::vector<Index>{Problem::kHeads, d}));
  EXPECT_EQ(problem.table_.at("gain").initialisation, Initialisation::ones);
  EXPECT_EQ(problem.table_.at("Wb.weight").shape,
            (std::vector<Index>{Problem::kHeads, Problem::kD}));
  EXPECT_EQ(problem.table_.at("Wc.0.weight").shape, (std::vector<Index>{2, Problem::kD}));
  EXPECT_EQ(problem.table_.at("Wc.1.weight").shape, (std::vector<Index>{Problem::kD, 2}));
  EXPECT_EQ(problem.table_.at("Wc.1.bias").shape, (std::vector<Index>{Problem::kD}));
  expect_gradients(problem);
}

TEST(InitialValues, OfADecayHaveTheirDistributions) {
  constexpr Index kHeads = 4000;
  const MixerLayout layout{
      .parameters = {{.name = "a", .initialisation = Initialisation::decay_rate},
                     {.name = "b", .initialisation = Initialisation::decay_step}}};
  const auto values = initial_core_parameters(layout, kHeads, 3);
  ASSERT_EQ(values.size(), 2);
  ASSERT_EQ(values[0].size(), kHeads);
  double rates = 0.0, log_steps = 0.0;
  for (std::size_t h = 0; h < kHeads; ++h) {
    const double rate = std::exp(values[0][h]);
    const double step = std::log1p(std::exp(values[1][h]));
    // Rounded to float.
    EXPECT_TRUE(rate >= 1 - 1e-6 && rate <= 16 + 1e-5) << rate;
    EXPECT_TRUE(step >= 1e-3 * (1 - 1e-5) && step <= 0.1 * (1 + 1e-5)) << step;
    rates += rate / kHeads;
    log_steps += std::log10(step) / kHeads;
  }
  // Four standard errors of the mean: 15 / sqrt(12 n), and 2 / sqrt(12 n) for log10.
  EXPECT_NEAR(rates, 8.5, 4 * 15 / std::sqrt(12.0 * kHeads));
  EXPECT_NEAR(log_steps, -2.0, 4 * 2 / std::sqrt(12.0 * kHeads));
  EXPECT_EQ(values, initial_core_parameters(layout, kHeads, 3));
  EXPECT_NE(values, initial_core_parameters(layout, kHeads, 4));
}

TEST(MixerLayer, ActivationBytesCountsWhatIsKept) {
  ParameterTable table;
  const MixerLayer<float> layer(model_of(2, 4), {.options = LinearOptions{}}, Device::cpu,
                                Implementation::production, "", table);
  // q, k, v and o of 8 channels for 3 * 5 tokens, and a denominator for each of 2 heads.
  EXPECT_EQ(layer.activation_bytes(3, 5), (15 * 32 + 15 * 2) * 4);

  // Convolved q, k and v, the norm's output and a number for each head more.
  const MixerLayer<float> of_field(
      field_model(2, 4),
      {.options = LinearOptions{}, .output_norm = true, .output_norm_kind = OutputNorm::rms_head},
      Device::cpu, Implementation::production, "field.", table);
  EXPECT_EQ(of_field.activation_bytes(3, 5), (15 * 64 + 15 * 4) * 4);
}

TEST(Registry, RefusesWhatItCannotRun) {
  const MixerConfig linear{.options = LinearOptions{}};
  EXPECT_TRUE(mixer_support(linear, 16, Device::cpu, Implementation::reference).ok);
  EXPECT_THROW(make_mixer_core<float>(linear, 16, Device::cpu, Implementation::reference),
               RunError);
  const Support on_cuda = mixer_support(linear, 16, Device::cuda, Implementation::reference);
  EXPECT_FALSE(on_cuda.ok);
  EXPECT_FALSE(on_cuda.reason.empty());
  EXPECT_EQ(implementation_label(linear, Implementation::production), "recurrent");
  EXPECT_EQ(implementation_label(linear, Implementation::reference), "reference");
  EXPECT_EQ(implementation_label({.options = SoftmaxOptions{}}, Implementation::production),
            "tiled");
}

}  // namespace
}  // namespace vla_bench
