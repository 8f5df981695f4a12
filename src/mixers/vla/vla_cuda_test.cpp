#include "config/read.h"
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

}  // namespace
}  // namespace vla_bench
