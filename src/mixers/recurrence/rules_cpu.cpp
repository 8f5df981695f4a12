#include "mixers/recurrence/rules_cpu.h"

#include "mixers/recurrence/cpu_token.h"

namespace vla_bench::mixers {

template <class T>
std::unique_ptr<RecurrentRule<T>> make_cpu_rule(const MixerOptions& options, Index d) {
  std::unique_ptr<RecurrentRule<T>> made;
  const auto make = [&](const auto& own) {
    const auto make_of = [&]<class Rule>(const Rule& rule) {
      made = std::make_unique<CpuRule<T, Rule>>(rule, d);
    };
    constexpr bool kHasMatrix = requires { make_reference_rule(own, d); };
    if constexpr (requires { with_rule(own, d, [](const auto&) {}); } && !kHasMatrix) {
      with_rule(own, d, make_of);
    }
  };
  std::visit(make, options);
  return made;
}
template std::unique_ptr<RecurrentRule<float>> make_cpu_rule(const MixerOptions&, Index);
template std::unique_ptr<RecurrentRule<double>> make_cpu_rule(const MixerOptions&, Index);

}  // namespace vla_bench::mixers
