// What of a mixer differs from its defaults, as text. Internal to config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace vla_bench {

// What a table or a figure's legend can still show; folder names, which share it, end at 255.
inline constexpr std::size_t kMaxNameBytes = 200;

struct MixerKey {
  std::string_view key;
  std::string value;  // "frozen", "0.5", "null"
  std::optional<MixerKind> only;
};

/// Keys whose value is not the default, "mixer" and "label" left out, in the order of the visit.
std::vector<MixerKey> non_default_keys(const MixerConfig& mixer);

}  // namespace vla_bench
