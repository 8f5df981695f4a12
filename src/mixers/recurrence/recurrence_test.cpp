// The recurrence in every form, by a rule that passes its projections through: a = k, and r, f and
// the decay are projections of their own.
#include "mixers/recurrence/recurrence.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "mixers/recurrence/chunked.h"
#include "mixers/recurrence/cpu_token.h"
#include "testing/mixer_cases.h"

namespace vla_bench::testing {
namespace {

using mixers::CpuRule;
using mixers::Decay;
using mixers::RecurrenceForm;
using FormResidual = RecurrenceForm::Residual;
using FormNormaliser = RecurrenceForm::Normaliser;

constexpr std::size_t kR = 0, kF = 1, kDecay = 2;  // projections beyond q, k and v

struct PassedThrough {
  RecurrenceForm form_;

  RecurrenceForm form() const { return form_; }
  template <class Token>
  void bind(const Token& token) const {
    token.put_q(token.q());
    token.put_a(token.k());
    token.put_r(token.more(kR));
    token.put_f(token.more(kF));
    if (form_.decay == Decay::head) {
      token.put_decay(sigmoid(token, token.more_scalar(kDecay)));
    } else if (form_.decay != Decay::none) {
      auto decay = token.more(kDecay);
      token.each([&](auto i) { decay[i] = sigmoid(token, decay[i]); });
      token.put_decay(decay);
    }
  }
  template <class Token>
  void unbind(const Token& token) const {
    auto none = token.q();
    token.each([&](auto i) { none[i] = 0; });
    token.put_dq(token.dq());
    token.put_dk(token.da());
    token.put_dmore(kR, form_.residual == FormResidual::along_r ? token.dr() : none);
    token.put_dmore(kF, form_.has_f() ? token.df() : none);
    if (form_.decay == Decay::head) {
      const auto decay = sigmoid(token, token.more_scalar(kDecay));
      const auto gradient = form_.decay_has_gradient ? token.ddecay_scalar() : 0;
      token.put_dmore(kDecay, gradient * decay * (1 - decay));
    } else if (form_.decay != Decay::none && form_.decay_has_gradient) {
      auto gradient = token.ddecay();
      const auto logit = token.more(kDecay);
      token.each([&](auto i) {
        const auto decay = sigmoid(token, logit[i]);
        gradient[i] *= decay * (1 - decay);
      });
      token.put_dmore(kDecay, gradient);
    } else {
      token.put_dmore(kDecay, none);
    }
  }
  template <class Token, class Channels>
  void bind_key(const Token& token, const Channels& key) const {
    token.put_a(key);
    token.put_r(key);
  }
};

std::vector<RecurrenceForm> forms() {
  std::vector<RecurrenceForm> all;
  for (FormResidual residual : {FormResidual::none, FormResidual::along_r, FormResidual::along_a}) {
    for (Decay decay : {Decay::none, Decay::head, Decay::rows, Decay::columns}) {
      for (FormNormaliser normaliser :
           {FormNormaliser::none, FormNormaliser::sums_a, FormNormaliser::sums_f}) {
        for (bool has_gradient : {false, true}) {
          if (has_gradient && decay == Decay::none) continue;
          all.push_back({residual, decay, has_gradient, normaliser, 0.05});
        }
      }
    }
  }
  return all;
}

std::string name(const RecurrenceForm& form) {
  return "residual " + std::to_string(static_cast<int>(form.residual)) + " decay " +
         std::to_string(static_cast<int>(form.decay)) +
         (form.decay_has_gradient ? " with gradient" : "") + " normaliser " +
         std::to_string(static_cast<int>(form.normaliser));
}

CoreTensors tensors_of(const RecurrenceForm& form, const HeadDims& dims, std::uint64_t seed) {
  CoreTensors tensors = random_tensors({.options = LinearOptions{}}, dims, seed, 0.3);
  // Sums that feed the normaliser are positive; a few denominators stay below the floor.
  for (auto* values : {&tensors.q, &tensors.k}) {
    for (double& value : *values) value = std::abs(value);
  }
  const Index decay_width = form.decay == Decay::head ? 1 : dims.d_h;
  for (Index width : {dims.d_h, dims.d_h, decay_width}) {
    Rng rng(seed, RngStream::benchmark, 1, static_cast<std::uint32_t>(tensors.widths.size()));
    tensors.widths.push_back(width);
    std::vector<double>& values = tensors.more.emplace_back();
    values.resize(static_cast<std::size_t>(dims.rows() * dims.heads * width));
    for (double& value : values) value = static_cast<float>(0.3 * rng.normal());
  }
  for (double& value : tensors.more[kF]) value = std::abs(value);
  return tensors;
}

template <class T>
std::unique_ptr<MixerCore<T>> production(const RecurrenceForm& form, Index d) {
  return mixers::make_recurrent_core<T>(
      std::make_unique<CpuRule<T, PassedThrough>>(PassedThrough{form}, d));
}
std::unique_ptr<MixerCore<double>> reference(const RecurrenceForm& form, Index d) {
  return mixers::make_recurrent_reference(
      std::make_unique<CpuRule<double, PassedThrough>>(PassedThrough{form}, d));
}

TEST(Recurrence, ProductionEqualsTheReferenceInEveryForm) {
  for (const RecurrenceForm& form : forms()) {
    SCOPED_TRACE(name(form));
    for (const HeadDims& dims :
         std::vector<HeadDims>{{1, 1, 2, 5}, {2, 67, 2, 16}, {1, 34, 1, 70}, {2, 35, 2, 8, 16}}) {
      if (form.decay == Decay::rows && dims.value_groups() > 1) continue;
      const CoreTensors tensors = tensors_of(form, dims, 31);
      const CoreRun expected = run_core<double>(*reference(form, dims.d_h), tensors);
      expect_same_run(run_core<double>(*production<double>(form, dims.d_h), tensors), expected,
                      rounding_tolerance<double>(dims), describe(dims) + " double");
      expect_same_run(run_core<float>(*production<float>(form, dims.d_h), tensors), expected,
                      rounding_tolerance<float>(dims), describe(dims) + " float");
    }
  }
}

std::unique_ptr<MixerCore<double>> in_chunks(const RecurrenceForm& form, Index d,
                                             const mixers::ChunkPlan& plan) {
  return mixers::make_chunked_reference(
      std::make_unique<CpuRule<double, PassedThrough>>(PassedThrough{form}, d), plan);
}

TEST(Recurrence, ChunksEqualTheReferenceInEveryFormTheyHave) {
  for (const RecurrenceForm& form : forms()) {
    if (!mixers::supports_chunks(form).ok) continue;
    SCOPED_TRACE(name(form));
    for (Index chunk : {1, 7, 16}) {
      for (Index tokens : {Index{1}, Index{2}, chunk - 1, chunk, chunk + 1, 3 * chunk + 5}) {
        if (tokens == 0) continue;
        const HeadDims dims{.batch = 2, .tokens = tokens, .heads = 2, .d_h = 9};
        const CoreTensors tensors = tensors_of(form, dims, 34);
        const CoreRun expected = run_core<double>(*reference(form, dims.d_h), tensors);
        for (Index chunks_per_segment : {0, 1, 2}) {
          const mixers::ChunkPlan plan{chunk, chunks_per_segment};
          expect_same_run(run_core<double>(*in_chunks(form, dims.d_h, plan), tensors), expected,
                          1e-10, describe(dims) + " C=" + std::to_string(chunk));
        }
      }
    }
  }
}

/// Logits of decays from 1e-4 to 1, and with zeros among them.
void set_strong_decays(CoreTensors& tensors, bool zeros) {
  std::vector<double>& logits = tensors.more[kDecay];
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double alpha = std::pow(10.0, -0.5 * static_cast<double>(i * 5 % 9));
    logits[i] = alpha == 1.0 ? 40.0 : std::log(alpha / (1.0 - alpha));
    if (zeros && i % 7 == 0) logits[i] = -800;  // sigmoid(-800) is 0 in double
  }
}

TEST(Recurrence, ChunksGoOnAfterStrongDecays) {
  for (Decay decay : {Decay::head, Decay::columns}) {
    RecurrenceForm form{FormResidual::along_r, decay, true, FormNormaliser::sums_f, 0.05};
    SCOPED_TRACE(name(form));
    const HeadDims dims{.batch = 1, .tokens = 40, .heads = 2, .d_h = 8};
    CoreTensors tensors = tensors_of(form, dims, 35);
    for (bool zeros : {false, true}) {
      set_strong_decays(tensors, zeros);
      const CoreRun expected = run_core<double>(*reference(form, 8), tensors);
      for (Index chunks_per_segment : {0, 1}) {
        const mixers::ChunkPlan plan{16, chunks_per_segment};
        expect_same_run(run_core<double>(*in_chunks(form, 8, plan), tensors), expected, 1e-10,
                        zeros ? "zeros" : "down to 1e-4");
      }
    }
  }
}

TEST(Recurrence, LanesAreCutIntoChunksAndSegments) {
  const auto lengths = [](Index tokens, const mixers::ChunkPlan& plan) {
    std::vector<std::vector<Index>> of_segments;
    Index next = 0;
    for (const auto& segment : mixers::cut(tokens, plan)) {
      std::vector<Index>& of_chunks = of_segments.emplace_back();
      for (const mixers::TokenRange& range : segment) {
        EXPECT_EQ(range.first, next);
        next += range.count;
        of_chunks.push_back(range.count);
      }
    }
    return of_segments;
  };
  using Lengths = std::vector<std::vector<Index>>;
  EXPECT_EQ(lengths(10, {.chunk = 3}), (Lengths{{3, 3, 3, 1}}));
  EXPECT_EQ(lengths(10, {.chunk = 3, .chunks_per_segment = 2}), (Lengths{{3, 3}, {3, 1}}));
  EXPECT_EQ(lengths(10, {.chunk = 5, .chunks_per_segment = 1}), (Lengths{{5}, {5}}));
  EXPECT_EQ(lengths(10, {.chunk = 64, .chunks_per_segment = 3}), (Lengths{{10}}));
}

TEST(Recurrence, ChunksRefuseADecayPerValueChannel) {
  EXPECT_THROW(in_chunks({.decay = Decay::rows}, 8, {}), BadInput);
  EXPECT_THROW(in_chunks({}, 8, {.chunk = 0}), BadInput);
}

TEST(Recurrence, GradientsOfTheReferenceAreThoseOfItsForward) {
  const HeadDims dims{.batch = 1, .tokens = 5, .heads = 2, .d_h = 3};
  for (RecurrenceForm form : forms()) {
    if (form.decay != Decay::none && !form.decay_has_gradient) continue;
    form.floor = 1e-3;  // no step of a difference crosses it
    SCOPED_TRACE(name(form));
    expect_central_differences(*reference(form, 3), tensors_of(form, dims, 32));
    if (form.decay == Decay::rows) continue;
    HeadDims wide = dims;
    wide.d_v = 6;
    expect_central_differences(*reference(form, 3), tensors_of(form, wide, 36));
  }
}

TEST(Recurrence, MemoriesAreTheForwardOneTokenAtATime) {
  const HeadDims dims{.batch = 1, .tokens = 37, .heads = 2, .d_h = 12};
  for (const RecurrenceForm& form : forms()) {
    SCOPED_TRACE(name(form));
    const CoreTensors tensors = tensors_of(form, dims, 33);
    expect_memory_equals_forward<double>(*production<double>(form, 12), tensors);
    expect_thread_count_is_invisible<float>(*production<float>(form, 12), tensors);
  }
}

}  // namespace
}  // namespace vla_bench::testing
