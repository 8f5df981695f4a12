#include "cli/column_order.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "experiments/columns.h"

namespace vla_bench::cli {
namespace {

/// Columns that name a row: the first of these that the table has, else its first column.
constexpr auto kNames = std::to_array<std::string_view>({Columns::line, Columns::label, "claim"});

/// Columns that distinguish the rows of a line, the main quantities of tables, and failures.
constexpr auto kHeadlines = std::to_array<std::string_view>({Columns::implementation,
                                                             "title",
                                                             "published",
                                                             "verdict",
                                                             "what",
                                                             "met",
                                                             "measured",
                                                             "criteria_met",
                                                             Columns::accuracy,
                                                             Columns::s_norm,
                                                             "s_norm_mean",
                                                             "accuracy_mean",
                                                             "sigma_max_mean",
                                                             Columns::sigma_max,
                                                             Columns::median_s,
                                                             "exponent",
                                                             Columns::seq_len,
                                                             "baseline",
                                                             "basis",
                                                             Columns::reason,
                                                             Columns::not_ok,
                                                             Columns::note});

/// From the least important on. A name that begins with "_" is a suffix.
constexpr auto kLeastTelling = std::to_array<std::string_view>({
    Columns::config,
    "command",
    "run",
    "why",
    "part",
    Columns::mixer,
    Columns::label,
    Columns::copy_bytes_per_s,
    Columns::sgemm_flop_per_s,
    "_sd",
    "machine",
    Columns::processor,
    Columns::activation_bytes,
    Columns::bytes,
    Columns::flop,
    Columns::conv_state_bytes,
    Columns::state_bytes,
    Columns::plateau_step_min,
    Columns::plateau_step_max,
    Columns::loss_median,
    "loss_low",
    "loss_high",
    "train_seconds_low",
    "train_seconds_high",
    "cosine_low",
    "cosine_high",
    "product_norm_low",
    "product_norm_high",
    "a_norm_low",
    "a_norm_high",
    Columns::bytes_per_s,
    Columns::queries,
    Columns::repeats,
    "condition",
    Columns::relative_error,
    Columns::p10_s,
    Columns::p90_s,
    Columns::setting,
    "train_seconds_mean",
    Columns::train_seconds,
    Columns::flop_per_s,
    Columns::gradient_norm,
    "accept_low",
    "accept_high",
    Columns::low,
    Columns::high,
});

bool matches(std::string_view column, std::string_view pattern) {
  return pattern.starts_with('_') ? column.ends_with(pattern) : column == pattern;
}

/// Position of the first entry of `list` that matches; the list's size without any.
template <typename List>
std::size_t position(const List& list, std::string_view column) {
  const auto found = std::find_if(
      list.begin(), list.end(), [&](std::string_view pattern) { return matches(column, pattern); });
  return static_cast<std::size_t>(found - list.begin());
}

std::size_t name_column(const std::vector<std::string>& columns) {
  for (const std::string_view name : kNames) {
    const auto found = std::find(columns.begin(), columns.end(), name);
    if (found != columns.end()) return static_cast<std::size_t>(found - columns.begin());
  }
  return 0;
}

}  // namespace

std::vector<RankedColumn> most_telling_first(const std::vector<std::string>& columns) {
  const std::size_t name = name_column(columns);
  std::vector<RankedColumn> order;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto is_in = [&](const auto& list) { return position(list, columns[i]) < list.size(); };
    const Telling telling = i == name              ? Telling::name
                            : is_in(kHeadlines)    ? Telling::headline
                            : is_in(kLeastTelling) ? Telling::least
                                                   : Telling::detail;
    order.push_back({i, telling});
  }
  const auto missed_more = [&](const RankedColumn& a, const RankedColumn& b) {
    if (a.telling != b.telling) return a.telling < b.telling;
    if (a.telling != Telling::least) return false;
    return position(kLeastTelling, columns[a.index]) > position(kLeastTelling, columns[b.index]);
  };
  std::stable_sort(order.begin(), order.end(), missed_more);
  return order;
}

}  // namespace vla_bench::cli
