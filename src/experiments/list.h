// The list of experiments, the only one, in the order of tables and messages.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "config/enums.h"
#include "core/type_list.h"
#include "experiments/copy.h"
#include "experiments/jacobian.h"
#include "experiments/latency.h"
#include "experiments/mqar.h"
#include "experiments/recall.h"
#include "experiments/state_norm.h"

namespace vla_bench {

using Experiments = TypeList<Mqar, Copy, Recall, StateNorm, Jacobian, Latency>;

template <class E>
inline constexpr ExperimentKind experiment_kind{Experiments::index_of<E>()};

template <>
inline constexpr auto enum_names<ExperimentKind> = [] {
  std::array<std::pair<ExperimentKind, std::string_view>, Experiments::size> names{};
  Experiments::for_each([&]<class E>() {
    names[Experiments::index_of<E>()] = {experiment_kind<E>, E::name};
  });
  return names;
}();

/// Calls `visit` with the experiment of that kind and returns its result:
///   with_experiment(config.experiment, [&]<class E>() { return E::sequence_length(config); })
template <class F>
decltype(auto) with_experiment(ExperimentKind kind, F&& visit) {
  using Result = decltype(visit.template operator()<Mqar>());
  std::array<Result (*)(F&), Experiments::size> calls;
  Experiments::for_each([&]<class E>() {
    calls[Experiments::index_of<E>()] = [](F& f) -> Result { return f.template operator()<E>(); };
  });
  return calls[static_cast<std::size_t>(kind)](visit);
}

inline bool trains(ExperimentKind kind) {
  return with_experiment(kind, []<class E>() { return E::trains; });
}
inline bool is_timed(ExperimentKind kind) {
  return with_experiment(kind, []<class E>() { return E::is_timed; });
}
/// The table of its cells.
inline const Schema& table_of(ExperimentKind kind) {
  return with_experiment(kind, []<class E>() -> const Schema& { return E::table(); });
}
/// The table of one of its cells, with the columns that only some cells have.
inline const Schema& table_of(const RunConfig& config) {
  if (!trains(config.experiment)) return table_of(config.experiment);
  return Training::table_with(Training::extras_of(config));
}

}  // namespace vla_bench
