// The projections that probes step through, from a model on a GPU.
#include <fmt/format.h>

#include "experiments/probe.h"
#include "testing/cells.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

CellConfig probe_cell(const std::string& mixer, Index d_h = 16) {
  return testing::cell_of(fmt::format(
      R"({{"experiment": "state_norm", "mixers": [{}], "task": {{"seq_len": 37}}, "seeds": [42],
           "model": {{"n_heads": 2, "d_h": {}}}, "probe": {{"source": "model"}}}})",
      mixer, d_h));
}

TEST(ProbeCuda, ReadsTheProjectionsOfTheCpu) {
  VLA_NEEDS_GPU();
  // Two blocks of sums of at most 256 products, each rounded to 2^-24 of its size and added like a
  // random walk; 64 leaves room for two norms and the recurrence between.
  const double tolerance = 64.0 * 0x1p-24 * std::sqrt(256.0);
  for (const char* mixer : {R"("softmax")", R"("linear")", R"("deltanet")", R"("vla")",
                            R"({"mixer": "deltanet", "variant": "standard"})"}) {
    SCOPED_TRACE(mixer);
    const CellConfig cell = probe_cell(mixer);
    const ProbeInputs expected(cell.config, {.device = Device::cpu, .threads = 1});
    const ProbeInputs actual(cell.config, testing::gpu_context());
    for (const Index t : {1, 2, 36, 37}) {
      for (const Index head : {0, 1}) {
        ProbeToken a, b;
        actual.read(t, head, a);
        expected.read(t, head, b);
        const auto check = [&](const char* name, const std::vector<double>& got,
                               const std::vector<double>& want) {
          EXPECT_TRUE(testing::near(fmt::format("{} of token {} head {}", name, t, head),
                                    std::span<const double>(got), std::span<const double>(want),
                                    tolerance));
        };
        check("q", a.q, b.q);
        check("k", a.k, b.k);
        check("v", a.v, b.v);
        ASSERT_EQ(a.more.size(), b.more.size());
        for (std::size_t i = 0; i < a.more.size(); ++i) check("more", a.more[i], b.more[i]);
      }
    }
  }
}

TEST(ProbeCuda, SkipsAModelThatTheGpuCannotRun) {
  VLA_NEEDS_GPU();
  const CellConfig cell = probe_cell(R"("vla")", 24);
  EXPECT_TRUE(probe_support(cell.config, Device::cpu).ok);
  EXPECT_FALSE(probe_support(cell.config, Device::cuda).ok);
}

}  // namespace
}  // namespace vla_bench
