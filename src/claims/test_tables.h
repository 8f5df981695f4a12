// For tests: summary tables like those of `report`, with the columns that claims read.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "claims/expected.h"
#include "report/table.h"

namespace vla_bench::testing {

inline Value text(const char* value) { return std::string(value); }
inline Value whole(std::int64_t value) { return value; }

/// Sizes 8 and 24: two seeds of linear attention are lost at n = 24, DeltaNet's ended without a
/// number, and VLA at n = 24 is above ln 24 + 0.3 = 3.48.
inline Table accuracy_summary() {
  Table table;
  table.name = "accuracy_summary";
  table.columns = {"line",   "label",         "n_pairs",      "setting",       "cells",
                   "not_ok", "accuracy_mean", "accuracy_low", "accuracy_high", "loss_median"};
  const auto add = [&](const char* label, std::int64_t n_pairs, const char* cells,
                       const char* not_ok, std::vector<Value> numbers) {
    std::vector<Value> row = {text(label), text(label), whole(n_pairs),
                              Value(),     text(cells), text(not_ok)};
    row.insert(row.end(), numbers.begin(), numbers.end());
    table.add(row);
  };
  add("vla", 8, "5 of 5", "", {1.0, 0.99, 1.0, 0.01});
  add("vla", 24, "5 of 5", "", {0.9, 0.81, 0.99, 3.6});
  add("linear", 8, "4 of 5", "seed 3: skipped: no room", {0.25, 0.2, 0.3, 2.1});
  add("linear", 24, "3 of 5", "seed 44: diverged: loss is nan at step 17; seed 45: failed: no room",
      {0.2, 0.1, 0.3, 3.1});
  add("deltanet", 8, "0 of 1", "seed 1: skipped: no", {Value(), Value(), Value(), Value()});
  return table;
}

/// One curve over t, of which one seed overflowed.
inline Table state_norm_curve() {
  Table table;
  table.name = "state_norm_curve";
  table.columns = {"line", "label", "t", "cells", "not_ok", "s_norm_mean"};
  const auto add = [&](const char* label, std::int64_t t, const char* not_ok, double norm) {
    table.add({text(label), text(label), whole(t), text("2 of 2"), text(not_ok), norm});
  };
  add("vla", 10, "", 10.0);
  add("vla", 100, "", 15.0);
  add("linear", 10, "seed 1: diverged: inf at token 50", 14.0);
  add("linear", 100, "seed 1: diverged: inf at token 50", std::numeric_limits<double>::quiet_NaN());
  return table;
}

/// Timings of which the tiled softmax's longest and the sequential VLA are not ok.
inline std::vector<Table> latency_tables() {
  Table timings;
  timings.name = "latency_summary";
  timings.columns = {"line",  "label",  "implementation", "pass",          "seq_len",
                     "cells", "not_ok", "median_s",       "relative_error"};
  const auto add = [&](const char* label, const char* implementation, std::int64_t seq_len,
                       const char* not_ok, Value median) {
    timings.add({text(label), text(label), text(implementation), text("forward"), whole(seq_len),
                 text("1 of 1"), text(not_ok), median, 0.02});
  };
  add("vla", "recurrent", 64, "", 0.5);
  add("vla", "recurrent", 128, "", 1.0);
  add("vla", "sequential", 64, "seed 42: diverged: not finite at token 9", Value());
  add("vla", "unfused", 64, "seed 42: skipped: unfused is softmax", Value());
  add("softmax", "tiled", 64, "", 0.25);
  add("softmax", "tiled", 128, "seed 42: failed: out of memory", Value());
  Table fit;
  fit.name = "latency_fit";
  fit.columns = {"line",   "label",    "implementation", "pass",         "cells",
                 "not_ok", "exponent", "exponent_low",   "exponent_high"};
  fit.add({text("vla"), text("vla"), text("recurrent"), text("forward"), text("2 of 2"), text(""),
           1.0, 0.9, 1.1});
  fit.add({text("vla"), text("vla"), text("sequential"), text("forward"), text("1 of 2"),
           text("64 tokens: seed 42: diverged: not finite at token 9"), 1.0, 0.9, 1.1});
  Table crossover;
  crossover.name = "latency_crossover";
  crossover.columns = {
      "line",  "label",  "pass",    "implementation", "baseline", "baseline_implementation",
      "cells", "not_ok", "seq_len", "seq_len_low",    "basis",    "seq_len_high"};
  crossover.add({text("vla"), text("vla"), text("forward"), text("recurrent"), text("softmax"),
                 text("tiled"), text("3 of 4"),
                 text("softmax at 128 tokens: seed 42: failed: out of memory"), Value(), Value(),
                 text("never"), Value()});
  return {timings, fit, crossover};
}

inline std::vector<Table> all_tables() {
  std::vector<Table> tables = latency_tables();
  tables.push_back(accuracy_summary());
  tables.push_back(state_norm_curve());
  return tables;
}

inline Selection accuracy_of(const char* label, std::vector<std::int64_t> n_pairs,
                             Reduction statistic = Reduction::row) {
  return {.table = "accuracy_summary",
          .column = "accuracy_mean",
          .where = {{{"label", {text(label)}},
                     {"n_pairs", std::vector<Value>(n_pairs.begin(), n_pairs.end())}}},
          .statistic = statistic};
}

inline Selection norm_of(const char* label, Reduction statistic) {
  return {.table = "state_norm_curve",
          .column = "s_norm_mean",
          .where = {{{"label", {text(label)}}}},
          .statistic = statistic};
}

inline Selection timing_of(const char* table, const char* column, const char* implementation) {
  return {.table = table,
          .column = column,
          .where = {{{"label", {text("vla")}}, {"implementation", {text(implementation)}}}}};
}

}  // namespace vla_bench::testing
