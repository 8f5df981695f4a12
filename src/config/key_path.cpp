#include "config/key_path.h"

#include <algorithm>

namespace vla_bench {

KeyPath key_path(std::string_view key) {
  constexpr std::string_view kEveryMixer = "mixer.";
  if (key.starts_with(kEveryMixer)) {
    KeyPath path = {"mixers", std::string(kAnyElement)};
    for (std::string& part : key_path(key.substr(kEveryMixer.size()))) path.push_back(part);
    return path;
  }
  KeyPath path;
  for (;;) {
    const std::size_t dot = key.find('.');
    path.emplace_back(key.substr(0, dot));
    if (dot == std::string_view::npos) return path;
    key.remove_prefix(dot + 1);
  }
}

bool overlap(const KeyPath& a, const KeyPath& b) {
  const auto both = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::equal(a.begin(), a.begin() + both, b.begin(),
                    [](std::string_view one, std::string_view other) {
                      return one == other || one == kAnyElement || other == kAnyElement;
                    });
}

bool covers(const KeyPath& a, const KeyPath& b) {
  return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](std::string_view one, std::string_view other) {
                                              return one == other || one == kAnyElement;
                                            });
}

}  // namespace vla_bench
