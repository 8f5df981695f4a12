#include "report/plateau.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "config/read.h"
#include "experiments/list.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

Index distinct_pairs_of(const RunConfig& config, Index batch) {
  return with_experiment(config.experiment,
                         [&]<class E>() { return E::distinct_pairs(config, batch); });
}

}  // namespace

double plateau_loss(Index distinct_pairs) { return std::log(static_cast<double>(distinct_pairs)); }

std::optional<Plateau> plateau_of(const RunConfig& config, const Table& history) {
  const std::size_t step = history.column(Columns::step);
  const std::size_t loss = history.column(Columns::loss);
  TrainSizes sizes(config);
  std::optional<Plateau> plateau;
  for (const std::vector<Value>& row : history.rows) {
    const auto done = static_cast<Index>(number(row[step]).value_or(1.0));
    const Index batch = std::max<Index>(done - 1, 0);
    const Index pairs = distinct_pairs_of(sizes.configs()[sizes.at(batch)], batch);
    if (pairs < 2) continue;
    if (!plateau) plateau.emplace();
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    const bool is_off = number(row[loss]).value_or(kNone) < plateau_loss(pairs) - kNatsOffPlateau;
    if (!is_off) {
      plateau->left.reset();
    } else if (!plateau->left) {
      plateau->left = done;
    }
  }
  return plateau;
}

}  // namespace vla_bench
