#include <gtest/gtest.h>

#include <cmath>

#include "report/summary.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::add_row;
using testing::cell;
using testing::find;
using testing::real;
using testing::record_of;
using testing::text;

CellRecord probe(const char* experiment, const char* mixer, int seed, const char* more = "") {
  return record_of(fmt::format(R"({{"experiment": "{}", "mixers": ["{}"], "seeds": [{}]{}}})",
                               experiment, mixer, seed, more));
}

/// Norms at the given t; a_norm twice s_norm for vla.
CellRecord norms(CellRecord record, std::initializer_list<std::pair<std::int64_t, double>> rows) {
  const bool has_penalty = record.config.mixers[0].is<VlaOptions>();
  for (const auto& [t, norm] : rows) {
    add_row(record, StateNorm::table(),
            {{"t", t}, {"s_norm", norm}, {"a_norm", has_penalty ? Value(2 * norm) : Value()}});
  }
  return record;
}
CellRecord norms(const char* mixer, int seed, double last, const char* more = "") {
  return norms(probe("state_norm", mixer, seed, more), {{1, 1.0}, {100, 5.0}, {1000, last}});
}

const char* const kGaussian = R"(, "probe": {"source": "gaussian"})";
const char* const kBf16 = R"(, "precision": "bf16")";

TEST(ProbeSummary, StateNormComparesWithLinearUnderTheSameKeys) {
  const std::vector<CellRecord> cells = {norms("linear", 1, 1500),
                                         norms("linear", 2, 1700),
                                         norms("vla", 1, 15),
                                         norms("vla", 2, 17),
                                         norms("linear", 1, 90, kGaussian),
                                         norms("vla", 1, 30, kGaussian),
                                         norms("linear", 1, 900, kBf16),
                                         norms("vla", 1, 18, kBf16)};
  const Table summary = find(gather_tables(cells), "state_norm_summary");
  ASSERT_EQ(summary.rows.size(), 6u);
  // Sorted by label, precision, source: bf16, float32, float64 of the Gaussian stream.
  EXPECT_EQ(text(summary, 4, "line"), "vla");
  EXPECT_EQ(text(summary, 4, "source"), "model");
  EXPECT_EQ(real(summary, 4, "d_h"), 32);
  EXPECT_EQ(real(summary, 4, "t"), 1000);
  EXPECT_EQ(text(summary, 4, "cells"), "2 of 2");
  EXPECT_NEAR(real(summary, 4, "s_norm_mean"), 16, 1e-13);
  EXPECT_NEAR(real(summary, 4, "s_norm_sd"), std::sqrt(2.0), 1e-13);
  EXPECT_NEAR(real(summary, 4, "s_norm_high"), 16 + 12.70620473617471, 1e-9);
  EXPECT_NEAR(real(summary, 4, "a_norm_mean"), 32, 1e-13);
  EXPECT_NEAR(real(summary, 4, "a_norm_low"), 32 - 2 * 12.70620473617471, 1e-9);
  EXPECT_NEAR(real(summary, 4, "linear_over_label"), 100, 1e-12);
  EXPECT_EQ(text(summary, 3, "precision"), "bf16");
  EXPECT_EQ(real(summary, 3, "linear_over_label"), 50);
  EXPECT_EQ(text(summary, 5, "precision"), "float64");
  EXPECT_EQ(real(summary, 5, "linear_over_label"), 3);
  EXPECT_EQ(real(summary, 1, "linear_over_label"), 1);
  EXPECT_EQ(cell(summary, 1, "a_norm_mean"), Value());
}

TEST(ProbeSummary, StateNormWithoutLinearHasNoRatio) {
  const std::vector<CellRecord> cells = {norms("vla", 1, 15)};
  EXPECT_EQ(cell(find(gather_tables(cells), "state_norm_summary"), 0, "linear_over_label"),
            Value());
}

// Case 3c: d_h = 4 and 32 under one name.
TEST(ProbeSummary, SizesAreApart) {
  const std::vector<CellRecord> cells = {norms("linear", 1, 5.5, R"(, "model": {"d_h": 4})"),
                                         norms("linear", 1, 56.4)};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "state_norm_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(real(summary, 0, "d_h"), 4);
  EXPECT_EQ(real(summary, 0, "s_norm_mean"), 5.5);
  EXPECT_EQ(real(summary, 1, "s_norm_mean"), 56.4);
  EXPECT_EQ(find(tables, "state_norm_curve").rows.size(), 6u);
}

// The columns of a curve do not have the length of its sequence.
TEST(ProbeSummary, LengthsAreLinesOfTheirOwn) {
  const std::vector<CellRecord> cells = {
      norms("vla", 1, 15),
      norms(probe("state_norm", "vla", 1, R"(, "task": {"seq_len": 100})"), {{1, 1}, {100, 5}})};
  const Table curve = find(gather_tables(cells), "state_norm_curve");
  ASSERT_EQ(curve.rows.size(), 5u);
  EXPECT_EQ(text(curve, 0, "line"), "vla seq_len=100");
  EXPECT_EQ(text(curve, 4, "line"), "vla seq_len=1000");
  EXPECT_EQ(text(curve, 4, "setting"), "seq_len=1000");
}

TEST(ProbeSummary, CurvesAreOverTheCellsThatAreOk) {
  CellRecord diverged = norms(probe("state_norm", "vla", 2), {{1, 3.0}, {100, 7.0}});
  diverged.outcome = {.status = "diverged", .reason = "state is not finite at t = 107"};
  const std::vector<CellRecord> cells = {norms("vla", 1, 15), diverged};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& curve = find(tables, "state_norm_curve");
  ASSERT_EQ(curve.rows.size(), 3u);
  EXPECT_EQ(real(curve, 1, "t"), 100);
  EXPECT_EQ(text(curve, 1, "cells"), "1 of 2");
  EXPECT_EQ(real(curve, 1, "s_norm_mean"), 5.0) << "7 is of a seed that diverged later";
  EXPECT_EQ(text(curve, 2, "cells"), "1 of 2");
  EXPECT_EQ(real(curve, 2, "s_norm_mean"), 15.0);
  EXPECT_EQ(text(curve, 2, "not_ok"), "seed 2: diverged: state is not finite at t = 107");
  const Table& summary = find(tables, "state_norm_summary");
  EXPECT_EQ(text(summary, 0, "cells"), "1 of 2");
  EXPECT_EQ(real(summary, 0, "s_norm_mean"), 15.0);
}

CellRecord jacobian(int seed, std::initializer_list<std::int64_t> times,
                    std::initializer_list<double> sigmas, double product) {
  CellRecord record = probe("jacobian", "vla", seed);
  record.tables.emplace_back(Jacobian::table());
  auto sigma = sigmas.begin();
  for (const std::int64_t t : times) {
    add_row(record, Jacobian::table(),
            {{"t", t},
             {"sigma_max", *sigma},
             {"sigma_closed_form", 0.75 * *sigma},
             {"cosine", 0.9},
             {"product_norm", t == 1 ? 1.0 : product}});
    ++sigma;
  }
  return record;
}

TEST(ProbeSummary, JacobianOverSeeds) {
  const std::vector<CellRecord> cells = {jacobian(1, {1, 4}, {1.0, 1.2}, 3.0),
                                         jacobian(2, {1, 4}, {1.1, 1.5}, 5.0)};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "jacobian_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(text(summary, 0, "cells"), "2 of 2");
  EXPECT_EQ(real(summary, 0, "t"), 4);
  // Over time: the row at t = 4 has the weight of three steps, the one at t = 1 of one.
  EXPECT_NEAR(real(summary, 0, "sigma_max_mean"), ((1.0 + 3 * 1.2) / 4 + (1.1 + 3 * 1.5) / 4) / 2,
              1e-15);
  EXPECT_EQ(real(summary, 0, "sigma_max_max"), 1.5);
  EXPECT_EQ(real(summary, 0, "closed_form_gap"), 0.375);
  EXPECT_NEAR(real(summary, 0, "cosine_mean"), 0.9, 1e-15);
  EXPECT_LT(real(summary, 0, "cosine_low"), 0.9) << "a float32";
  EXPECT_EQ(real(summary, 0, "product_norm_mean"), 4.0);
  const Table& curve = find(tables, "jacobian_curve");
  ASSERT_EQ(curve.rows.size(), 2u);
  EXPECT_NEAR(real(curve, 1, "sigma_max_mean"), 1.35, 1e-15);
  EXPECT_EQ(real(curve, 0, "product_norm_mean"), 1.0);
}

TEST(ProbeSummary, WhatMeasuredNothingSaysWhy) {
  CellRecord skipped = probe("jacobian", "softmax", 1);
  skipped.tables.emplace_back(Jacobian::table());
  skipped.outcome = {.status = "skipped", .reason = "no such form"};
  // It belongs to the seeds that measured, for any precision of its config.
  CellRecord failed =
      probe("state_norm", "vla", 2, R"(, "precision": "bf16", "probe": {"source": "gaussian"})");
  failed.tables.emplace_back(StateNorm::table());
  failed.outcome = {.status = "failed", .reason = "out of memory"};
  const std::vector<CellRecord> cells = {skipped, failed, norms("vla", 1, 15, kGaussian)};
  const std::vector<Table> tables = gather_tables(cells);
  EXPECT_TRUE(find(tables, "jacobian").rows.empty());
  EXPECT_TRUE(find(tables, "jacobian_curve").rows.empty());
  const Table& jacobians = find(tables, "jacobian_summary");
  ASSERT_EQ(jacobians.rows.size(), 1u);
  EXPECT_EQ(text(jacobians, 0, "label"), "softmax");
  EXPECT_EQ(real(jacobians, 0, "d_h"), 32);
  EXPECT_EQ(cell(jacobians, 0, "t"), Value());
  EXPECT_EQ(text(jacobians, 0, "cells"), "0 of 1");
  EXPECT_EQ(text(jacobians, 0, "not_ok"), "seed 1: skipped: no such form");
  const Table& summary = find(tables, "state_norm_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(text(summary, 0, "precision"), "float64");
  EXPECT_EQ(text(summary, 0, "cells"), "1 of 2");
  EXPECT_EQ(text(summary, 0, "not_ok"), "seed 2: failed: out of memory");
}

TEST(ProbeSummary, SeedsThatDivergedAreLeftOutOfTheMeans) {
  std::vector<CellRecord> cells = {jacobian(1, {1, 10}, {1.0, 1.0}, 1.0),
                                   jacobian(2, {1}, {5.0}, 1.0),
                                   jacobian(3, {1, 10}, {3.0, 3.0}, 1.0)};
  cells[1].outcome = {.status = "diverged", .reason = "state is not finite at t = 7"};
  const Table summary = find(gather_tables(cells), "jacobian_summary");
  EXPECT_EQ(real(summary, 0, "t"), 10);
  EXPECT_EQ(text(summary, 0, "cells"), "2 of 3");
  EXPECT_EQ(real(summary, 0, "sigma_max_mean"), 2.0);
  EXPECT_EQ(real(summary, 0, "sigma_max_max"), 5.0) << "of all that was measured";
}

}  // namespace
}  // namespace vla_bench
