#include "report/summary.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "testing/records.h"

namespace vla_bench {
namespace {

const Table& find(const std::vector<Table>& tables, std::string_view name) {
  for (const Table& table : tables) {
    if (table.name == name) return table;
  }
  throw std::runtime_error(fmt::format("no table {}", name));
}

Value cell(const Table& table, std::size_t row, std::string_view column) {
  return table.rows.at(row).at(table.column(column));
}

double real(const Table& table, std::size_t row, std::string_view column) {
  const Value value = cell(table, row, column);
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::get<double>(value);
}

struct Training {
  const char* label;
  int seed;
  double accuracy;
  const char* status = "ok";
  double lr = 3e-4;
  int steps = 3000;
  const char* precision = "float32";
};

CellRecord training_cell(const Training& run) {
  Table table(accuracy_schema());
  const bool ok = std::string(run.status) == "ok";
  table.add({std::string("mqar"), std::string(run.label), std::string(run.label), std::int64_t{8},
             std::int64_t{32}, std::int64_t{4}, std::int64_t{25}, std::string("paper"),
             std::int64_t{0}, std::int64_t{run.seed}, std::int64_t{run.steps},
             ok ? Value(run.accuracy) : Value(), ok ? Value(0.5) : Value(), 12.5,
             std::string("cpu"), std::string(run.precision), std::string(run.status),
             std::string(ok ? "" : "not finite")});
  CellRecord record = testing::record_of(
      fmt::format(
          R"({{"mixers": ["{}"], "seeds": [{}], "precision": "{}", "train": {{"lr": {}}}}})",
          run.label, run.seed, run.precision, run.lr),
      std::move(table));
  record.outcome = {.status = run.status, .reason = ok ? "" : "not finite"};
  return record;
}

TEST(Summary, AccuracyOverSeeds) {
  const std::vector<CellRecord> cells = {
      training_cell({"vla", 44, 0.9}), training_cell({"vla", 42, 1.0}),
      training_cell({"vla", 43, 0.8}),
      training_cell({.label = "vla", .seed = 45, .accuracy = 0, .status = "diverged", .steps = 17}),
      training_cell({"linear", 42, 0.25})};
  const std::vector<Table> tables = gather_tables(cells);
  ASSERT_EQ(tables.size(), 2u);
  EXPECT_EQ(tables[0].name, "accuracy");
  EXPECT_EQ(tables[0].rows.size(), 5u);
  EXPECT_EQ(cell(tables[0], 0, "label"), Value(std::string("linear")));
  EXPECT_EQ(cell(tables[0], 1, "seed"), Value(std::int64_t{42}));
  EXPECT_EQ(cell(tables[0], 4, "seed"), Value(std::int64_t{45}));

  const Table& summary = find(tables, "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(cell(summary, 0, "label"), Value(std::string("linear")));
  EXPECT_EQ(real(summary, 0, "count_ok"), 1);
  EXPECT_EQ(real(summary, 0, "accuracy_mean"), 0.25);
  EXPECT_EQ(cell(summary, 0, "accuracy_sd"), Value()) << "one seed has no spread";
  EXPECT_EQ(cell(summary, 0, "accuracy_ci95"), Value());
  EXPECT_EQ(real(summary, 1, "count_ok"), 3);
  EXPECT_EQ(real(summary, 1, "count_not_ok"), 1);
  EXPECT_EQ(real(summary, 1, "steps"), 3000);
  // Roundings of a mean of three.
  EXPECT_NEAR(real(summary, 1, "accuracy_mean"), 0.9, 1e-15);
  EXPECT_NEAR(real(summary, 1, "accuracy_sd"), 0.1, 1e-15);
  EXPECT_NEAR(real(summary, 1, "accuracy_ci95"), 4.302652729749464 * 0.1 / std::sqrt(3.0), 1e-14);
}

TEST(Summary, AGroupWithNothingOkHasEmptyValues) {
  const std::vector<CellRecord> cells = {
      training_cell({.label = "vla", .seed = 1, .accuracy = 0, .status = "diverged"})};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "accuracy_summary");
  EXPECT_EQ(real(summary, 0, "count_ok"), 0);
  EXPECT_EQ(real(summary, 0, "count_not_ok"), 1);
  EXPECT_EQ(cell(summary, 0, "accuracy_mean"), Value());
}

TEST(Summary, DoesNotDependOnTheOrderOfCells) {
  std::vector<CellRecord> cells;
  for (const int seed : {3, 1, 2}) {
    for (const char* label : {"vla", "linear"}) {
      cells.push_back(training_cell({label, seed, 0.1 * seed}));
    }
  }
  const std::vector<Table> forwards = gather_tables(cells);
  std::reverse(cells.begin(), cells.end());
  const std::vector<Table> backwards = gather_tables(cells);
  ASSERT_EQ(forwards.size(), backwards.size());
  for (std::size_t i = 0; i < forwards.size(); ++i) {
    EXPECT_EQ(to_csv(forwards[i]), to_csv(backwards[i]));
  }
}

TEST(Summary, SettingsWithoutAColumnAreNotAveraged) {
  const std::vector<CellRecord> cells = {
      training_cell({"vla", 1, 0.5}),
      training_cell({.label = "vla", .seed = 1, .accuracy = 0.9, .lr = 1e-3})};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_NE(cell(summary, 0, "config"), cell(summary, 1, "config"));
}

TEST(Summary, PrecisionsAreNotAveraged) {
  const std::vector<CellRecord> cells = {
      training_cell({"vla", 1, 0.5}),
      training_cell({.label = "vla", .seed = 1, .accuracy = 0.9, .precision = "tf32"})};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "accuracy_summary");
  ASSERT_EQ(summary.rows.size(), 2u);
  EXPECT_EQ(cell(summary, 0, "precision"), Value(std::string("float32")));
  EXPECT_EQ(cell(summary, 1, "precision"), Value(std::string("tf32")));
  EXPECT_EQ(real(summary, 1, "accuracy_mean"), 0.9);
}

CellRecord recall_cell(int seed, double accuracy, const char* status = "ok") {
  Table table(recall_schema());
  table.add({std::string("vla"), std::string("vla"), std::int64_t{32}, std::int64_t{8},
             std::int64_t{20}, accuracy, 0.01, std::string("float64"), std::string(status),
             Value()});
  return testing::record_of(
      fmt::format(R"({{"experiment": "recall", "mixers": ["vla"], "seeds": [{}]}})", seed),
      std::move(table));
}

TEST(Summary, RecallTakesItsSeedFromTheConfig) {
  // Two seeds with the same outcome are two measurements.
  const std::vector<CellRecord> cells = {recall_cell(1, 0.5), recall_cell(2, 0.5),
                                         recall_cell(3, 0.8), recall_cell(4, 0.0, "failed")};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "recall_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(real(summary, 0, "count_ok"), 3);
  EXPECT_EQ(real(summary, 0, "count_not_ok"), 1);
  EXPECT_NEAR(real(summary, 0, "accuracy_mean"), 0.6, 1e-15);
}

CellRecord probe_cell(const Schema& schema, const char* label, const char* mixer, int seed,
                      const char* source, std::vector<std::vector<Value>> rows,
                      const char* precision = "float32") {
  Table table(schema);
  for (auto& row : rows) table.add(std::move(row));
  return testing::record_of(
      fmt::format(R"({{"experiment": "{}", "mixers": [{{"mixer": "{}", "label": "{}"}}],
                       "seeds": [{}], "precision": "{}", "probe": {{"source": "{}"}}}})",
                  schema.name, mixer, label, seed, precision, source),
      std::move(table));
}

CellRecord norm_cell(const char* label, const char* mixer, int seed, const char* source,
                     double last, const char* precision = "float32") {
  const auto row = [&](std::int64_t t, double norm) {
    return std::vector<Value>{std::string(label),
                              std::string(mixer),
                              std::int64_t{seed},
                              t,
                              norm,
                              std::string(mixer) == "vla" ? Value(2 * norm) : Value(),
                              std::string(precision)};
  };
  return probe_cell(state_norm_schema(), label, mixer, seed, source,
                    {row(1, 1.0), row(100, 5.0), row(1000, last)},
                    std::string(precision) == "float64" ? "bf16" : precision);
}

TEST(Summary, StateNormComparesWithLinearOfTheSameSource) {
  const std::vector<CellRecord> cells = {norm_cell("linear", "linear", 1, "model", 1500),
                                         norm_cell("linear", "linear", 2, "model", 1700),
                                         norm_cell("vla", "vla", 1, "model", 15),
                                         norm_cell("vla", "vla", 2, "model", 17),
                                         norm_cell("linear", "linear", 1, "gaussian", 90),
                                         norm_cell("vla", "vla", 1, "gaussian", 30)};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "state_norm_summary");
  ASSERT_EQ(summary.rows.size(), 4u);
  // Sorted by label, mixer, precision: a Gaussian stream is stepped in float64.
  EXPECT_EQ(cell(summary, 2, "label"), Value(std::string("vla")));
  EXPECT_EQ(cell(summary, 2, "source"), Value(std::string("model")));
  EXPECT_EQ(cell(summary, 2, "d_h"), Value(std::int64_t{32}));
  EXPECT_EQ(real(summary, 2, "t"), 1000);
  EXPECT_EQ(real(summary, 2, "count"), 2);
  EXPECT_NEAR(real(summary, 2, "s_norm_mean"), 16, 1e-13);
  EXPECT_NEAR(real(summary, 2, "s_norm_sd"), std::sqrt(2.0), 1e-13);
  EXPECT_NEAR(real(summary, 2, "a_norm_mean"), 32, 1e-13);
  EXPECT_NEAR(real(summary, 2, "linear_over_label"), 100, 1e-12);
  EXPECT_EQ(real(summary, 3, "linear_over_label"), 3);
  EXPECT_EQ(real(summary, 1, "linear_over_label"), 1);
  EXPECT_EQ(cell(summary, 1, "a_norm_mean"), Value());
}

TEST(Summary, StateNormWithoutLinearHasNoRatio) {
  const std::vector<CellRecord> cells = {norm_cell("vla", "vla", 1, "model", 15)};
  const std::vector<Table> tables = gather_tables(cells);
  EXPECT_EQ(cell(find(tables, "state_norm_summary"), 0, "linear_over_label"), Value());
}

TEST(Summary, StateNormComparesWithLinearOfTheSamePrecision) {
  const std::vector<CellRecord> cells = {norm_cell("linear", "linear", 1, "model", 1500),
                                         norm_cell("linear", "linear", 2, "model", 900, "bf16"),
                                         norm_cell("vla", "vla", 1, "model", 15),
                                         norm_cell("vla", "vla", 2, "model", 18, "bf16")};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "state_norm_summary");
  ASSERT_EQ(summary.rows.size(), 4u);
  // Sorted by label, mixer, precision.
  EXPECT_EQ(cell(summary, 2, "precision"), Value(std::string("bf16")));
  EXPECT_EQ(real(summary, 2, "linear_over_label"), 50);
  EXPECT_EQ(real(summary, 3, "linear_over_label"), 100);
}

TEST(Summary, JacobianOverSeeds) {
  const auto jacobian = [](int seed, double first, double second, double product) {
    const auto row = [&](std::int64_t t, double sigma, double norm) {
      return std::vector<Value>{
          std::string("vla"),    std::int64_t{seed}, t, sigma, sigma - 0.25 * sigma, 0.9, norm,
          std::string("float32")};
    };
    return probe_cell(jacobian_schema(), "vla", "vla", seed, "model",
                      {row(1, first, 1.0), row(4, second, product)});
  };
  const std::vector<CellRecord> cells = {jacobian(1, 1.0, 1.2, 3.0), jacobian(2, 1.1, 1.5, 5.0)};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "jacobian_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(real(summary, 0, "count"), 2);
  EXPECT_EQ(real(summary, 0, "t"), 4);
  // Over time: the row at t = 4 stands for three steps, the one at t = 1 for one.
  EXPECT_NEAR(real(summary, 0, "sigma_max_mean"), ((1.0 + 3 * 1.2) / 4 + (1.1 + 3 * 1.5) / 4) / 2,
              1e-15);
  EXPECT_EQ(real(summary, 0, "sigma_max_max"), 1.5);
  EXPECT_EQ(real(summary, 0, "closed_form_gap"), 0.375);
  EXPECT_NEAR(real(summary, 0, "cosine_mean"), 0.9, 1e-15);
  EXPECT_EQ(real(summary, 0, "product_norm_mean"), 4.0);
}

TEST(Summary, ProbesThatMeasuredNothingSayWhy) {
  CellRecord skipped = probe_cell(jacobian_schema(), "softmax", "softmax", 1, "model", {});
  skipped.outcome = {.status = "skipped", .reason = "no such form"};
  CellRecord failed = probe_cell(state_norm_schema(), "softmax", "softmax", 1, "model", {});
  failed.outcome = {.status = "failed", .reason = "out of memory"};
  const std::vector<CellRecord> cells = {skipped, failed};
  const std::vector<Table> tables = gather_tables(cells);
  EXPECT_TRUE(find(tables, "jacobian").rows.empty());
  for (const auto& [name, outcome] : {std::pair("jacobian_summary", skipped.outcome),
                                      std::pair("state_norm_summary", failed.outcome)}) {
    const Table& summary = find(tables, name);
    ASSERT_EQ(summary.rows.size(), 1u);
    EXPECT_EQ(cell(summary, 0, "label"), Value(std::string("softmax")));
    EXPECT_EQ(cell(summary, 0, "d_h"), Value(std::int64_t{32}));
    EXPECT_EQ(cell(summary, 0, "precision"), Value(std::string("float32")));
    EXPECT_EQ(cell(summary, 0, "t"), Value());
    EXPECT_EQ(real(summary, 0, "count"), 0);
    EXPECT_EQ(cell(summary, 0, "status"), Value(outcome.status));
    EXPECT_EQ(cell(summary, 0, "reason"), Value(outcome.reason));
  }
}

// Whatever precision its config asks for, a probe of a Gaussian stream is stepped in float64.
TEST(Summary, ASeedThatMeasuredNothingJoinsTheOthersOfItsPrecision) {
  for (const auto& [source, precision] :
       {std::pair("gaussian", "float64"), std::pair("model", "bf16")}) {
    CellRecord failed = probe_cell(state_norm_schema(), "vla", "vla", 2, source, {}, "bf16");
    failed.outcome = {.status = "failed", .reason = "out of memory"};
    const std::vector<CellRecord> cells = {norm_cell("vla", "vla", 1, source, 15, precision),
                                           failed};
    const std::vector<Table> tables = gather_tables(cells);
    const Table& summary = find(tables, "state_norm_summary");
    ASSERT_EQ(summary.rows.size(), 1u);
    EXPECT_EQ(cell(summary, 0, "precision"), Value(std::string(precision)));
    EXPECT_EQ(cell(summary, 0, "reason"), Value(std::string("1 of 2 seeds: out of memory")));
  }
}

TEST(Summary, SeedsThatDivergedAreCountedAndLeftOutOfTheMeans) {
  const auto jacobian = [](int seed, std::vector<std::int64_t> times, double sigma) {
    std::vector<std::vector<Value>> rows;
    for (const std::int64_t t : times) {
      rows.push_back({std::string("vla"), std::int64_t{seed}, t, sigma, sigma, 0.9, 1.0,
                      std::string("float32")});
    }
    return probe_cell(jacobian_schema(), "vla", "vla", seed, "model", std::move(rows));
  };
  std::vector<CellRecord> cells = {jacobian(1, {1, 10}, 1.0), jacobian(2, {1}, 5.0),
                                   jacobian(3, {1, 10}, 3.0), jacobian(4, {}, 0.0)};
  cells[1].outcome = {.status = "diverged", .reason = "state is not finite at t = 7"};
  cells[3].outcome = {.status = "skipped", .reason = "too long"};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "jacobian_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(real(summary, 0, "t"), 10);
  EXPECT_EQ(real(summary, 0, "count"), 2);
  EXPECT_EQ(real(summary, 0, "sigma_max_mean"), 2.0);
  EXPECT_EQ(real(summary, 0, "sigma_max_max"), 5.0) << "of all that was measured";
  EXPECT_EQ(cell(summary, 0, "status"), Value(std::string("diverged")));
  EXPECT_EQ(cell(summary, 0, "reason"),
            Value(std::string("1 of 4 seeds: state is not finite at t = 7")));
}

TEST(Summary, NoCellsGiveNoTables) { EXPECT_TRUE(gather_tables({}).empty()); }

}  // namespace
}  // namespace vla_bench
