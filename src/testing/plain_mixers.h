// Mixers with their defaults, for tests of what reduces to them.
#pragma once

#include "config/config.h"

namespace vla_bench::testing {

inline const MixerConfig kStandardDeltaNet{
    .options = DeltaNetOptions{.variant = DeltaNetVariant::standard}};
inline const MixerConfig kGatedDeltaNet{.options = GatedDeltaNetOptions{}};
inline const MixerConfig kMamba2{.options = Mamba2Options{}};

}  // namespace vla_bench::testing
