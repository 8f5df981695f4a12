#include "report/latency_summary.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/summary.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using Points = std::vector<std::pair<double, double>>;

Points power_law(double scale, double exponent, std::initializer_list<double> lengths) {
  Points points;
  for (const double tokens : lengths)
    points.emplace_back(tokens, scale * std::pow(tokens, exponent));
  return points;
}

TEST(LatencySummary, FitsTheLongLengthsWhenThereAreThree) {
  Points points = power_law(1e-6, 2.0, {512, 1024, 2048});
  points.insert(points.begin(), {64, 1.0});  // a fixed cost
  const LatencyLine line = fit_latency(points);
  EXPECT_EQ(line.first, 512);
  EXPECT_EQ(line.last, 2048);
  EXPECT_EQ(line.fitted, 3);
  EXPECT_NEAR(line.law->exponent, 2.0, 1e-12);
}

TEST(LatencySummary, FitsAllLengthsOtherwise) {
  const LatencyLine line = fit_latency(power_law(1e-6, 1.0, {128, 256, 512, 1024}));
  EXPECT_EQ(line.first, 128);
  EXPECT_EQ(line.fitted, 4);
  EXPECT_FALSE(fit_latency({{128, 1.0}}).law);
  EXPECT_FALSE(fit_latency({}).law);
}

TEST(LatencySummary, MeasuredCrossoverIsInterpolated) {
  const LatencyLine softmax = fit_latency(power_law(1e-6, 2.0, {512, 1024, 2048, 4096}));
  const LatencyLine mixer = fit_latency(power_law(1e-3, 1.0, {512, 1024, 2048, 4096}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 1000) << "log-log interpolation is exact for power laws";
}

TEST(LatencySummary, MeasuredCrossoverIsTheLastOne) {
  const LatencyLine softmax = fit_latency({{64, 1.0}, {128, 1.0}, {256, 1.0}, {512, 4.0}});
  const LatencyLine mixer = fit_latency({{64, 0.5}, {128, 2.0}, {256, 2.0}, {512, 2.0}});
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 362) << "256 sqrt(2)";
}

TEST(LatencySummary, CheaperEverywhereIsSaid) {
  const LatencyLine softmax = fit_latency(power_law(2e-6, 2.0, {512, 1024, 2048}));
  const LatencyLine mixer = fit_latency(power_law(1e-6, 1.0, {512, 1024, 2048}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "measured");
  EXPECT_EQ(crossover.seq_len, 512);
  EXPECT_FALSE(crossover.note.empty());
}

// The published T4 timings and the published extrapolation of 43,401 tokens (arXiv:2605.11196).
// Softmax's 0.4 ms is rounded by up to 12%, which moves ln T* by about
// 0.026 ln(T* / 1448) / 0.83 = 0.11 through the slope and 0.04 through the level.
TEST(LatencySummary, ReproducesThePublishedExtrapolation) {
  const LatencyLine softmax =
      fit_latency({{512, 0.4e-3}, {1024, 1.2e-3}, {2048, 4.3e-3}, {4096, 16.6e-3}});
  const LatencyLine vla =
      fit_latency({{512, 15.3e-3}, {1024, 28.2e-3}, {2048, 55.6e-3}, {4096, 113.9e-3}});
  const Crossover crossover = find_crossover(vla, softmax);
  EXPECT_EQ(crossover.basis, "extrapolated");
  EXPECT_NEAR(std::log(*crossover.seq_len / 43401.0), 0.0, 0.15);
}

TEST(LatencySummary, NeverWhenTheMixerGrowsFaster) {
  const LatencyLine softmax = fit_latency(power_law(1e-6, 1.0, {512, 1024, 2048}));
  const LatencyLine mixer = fit_latency(power_law(2e-6, 1.5, {512, 1024, 2048}));
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "never");
  EXPECT_FALSE(crossover.seq_len);
}

TEST(LatencySummary, FitsThatContradictTheMeasurementGiveABound) {
  // The fitted laws meet near 700, yet softmax is the cheaper one at 2,048.
  const LatencyLine softmax = fit_latency({{512, 1.0}, {1024, 8.0}, {2048, 8.0}});
  const LatencyLine mixer = fit_latency({{512, 2.0}, {1024, 3.0}, {2048, 8.5}});
  const Crossover crossover = find_crossover(mixer, softmax);
  EXPECT_EQ(crossover.basis, "extrapolated");
  EXPECT_EQ(crossover.seq_len, 2048);
  EXPECT_NE(crossover.note.find("later"), std::string::npos);
}

TEST(LatencySummary, OneLengthTellsNothing) {
  EXPECT_EQ(find_crossover(fit_latency({{64, 2.0}}), fit_latency({{64, 1.0}})).basis, "unknown");
}

struct Timed {
  const char* label;
  const char* mixer;
  int threads = 1;
  std::int64_t seq_len = 0;
  double seconds = 0.0;
  const char* status = "ok";
  const char* implementation = "";  // empty: the mixer's own method
  const char* precision = "float32";
};

Provenance provenance_of(int threads, const std::string& processor, const std::string& gpu) {
  return Provenance(
      {{"processor", processor}, {"threads", std::to_string(threads)}, {"cuda", gpu}});
}

CellRecord latency_cell(const Timed& timed) {
  const bool is_softmax = std::string(timed.mixer) == "softmax";
  std::string implementation = timed.implementation;
  if (implementation.empty()) implementation = is_softmax ? "tiled" : "recurrent";
  Table table(latency_schema());
  std::vector<Value> row(table.columns.size());
  const auto set = [&](const char* column, Value value) {
    row[table.column(column)] = std::move(value);
  };
  set("label", std::string(timed.label));
  set("mixer", std::string(timed.mixer));
  set("implementation", implementation);
  set("precision", std::string(timed.precision));
  set("device", std::string("cpu"));
  set("batch", std::int64_t{4});
  set("n_heads", std::int64_t{1});
  set("d_h", std::int64_t{64});
  set("seq_len", timed.seq_len);
  set("pass", std::string("forward"));
  set("median_s", timed.seconds);
  set("status", std::string(timed.status));
  table.add(std::move(row));
  CellRecord record =
      testing::record_of(fmt::format(R"({{"experiment": "latency", "task": {{"seq_len": {}}},
                       "mixers": [{{"mixer": "{}", "label": "{}"}}]}})",
                                     timed.seq_len, timed.mixer, timed.label),
                         std::move(table));
  record.provenance = provenance_of(timed.threads, "a CPU", "none");
  return record;
}

TEST(LatencySummary, GathersLinesAcrossCells) {
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {2048, 512, 1024}) {
    const double length = static_cast<double>(tokens);
    for (const int threads : {1, 2}) {
      cells.push_back(
          latency_cell({"softmax", "softmax", threads, tokens, 1e-8 * length * length}));
      cells.push_back(latency_cell({"vla", "vla", threads, tokens, 1e-5 * length / threads}));
    }
  }
  cells.push_back(latency_cell({"vla", "vla", 1, 4096, 1e9, "failed"}));
  const std::vector<Table> tables = gather_tables(cells);
  ASSERT_EQ(tables.size(), 3u);
  EXPECT_EQ(tables[0].rows.size(), 13u);
  const Table& fits = tables[1];
  EXPECT_EQ(fits.name, "latency_fit");
  ASSERT_EQ(fits.rows.size(), 4u) << "two labels by two thread counts";
  EXPECT_NEAR(std::get<double>(fits.rows[0][fits.column("exponent")]), 2.0, 1e-12);
  EXPECT_NEAR(std::get<double>(fits.rows[2][fits.column("exponent")]), 1.0, 1e-12);
  EXPECT_EQ(fits.rows[2][fits.column("last_seq_len")], Value(std::int64_t{2048}));
  const Table& crossovers = tables[2];
  EXPECT_EQ(crossovers.name, "latency_crossover");
  ASSERT_EQ(crossovers.rows.size(), 2u);
  EXPECT_EQ(crossovers.rows[0][crossovers.column("threads")], Value(std::int64_t{1}));
  EXPECT_EQ(crossovers.rows[0][crossovers.column("seq_len")], Value(std::int64_t{1000}));
  EXPECT_EQ(crossovers.rows[1][crossovers.column("seq_len")], Value(std::int64_t{512}));
}

TEST(LatencySummary, ProcessorsAreNotPooled) {
  std::vector<CellRecord> cells;
  for (const auto& [processor, seconds] : {std::pair("slow", 4e-6), std::pair("fast", 1e-6)}) {
    for (const std::int64_t tokens : {512, 1024, 2048}) {
      for (const char* mixer : {"softmax", "linear"}) {
        const double scale = std::string(mixer) == "linear" ? 0.5 : 1.0;
        cells.push_back(
            latency_cell({mixer, mixer, 1, tokens, scale * seconds * static_cast<double>(tokens)}));
        cells.back().provenance = provenance_of(1, processor, "none");
      }
    }
  }
  const std::vector<Table> tables = gather_tables(cells);
  const Table& fits = tables.at(1);
  ASSERT_EQ(fits.rows.size(), 4u) << "two mixers on two processors";
  EXPECT_EQ(fits.rows[0][fits.column("processor")], Value(std::string("fast")));
  EXPECT_NEAR(std::get<double>(fits.rows[0][fits.column("scale_s")]), 0.5e-6, 1e-15);
  EXPECT_EQ(fits.rows[1][fits.column("processor")], Value(std::string("slow")));
  EXPECT_NEAR(std::get<double>(fits.rows[1][fits.column("scale_s")]), 2e-6, 1e-15);
  const Table& crossovers = tables.at(2);
  ASSERT_EQ(crossovers.rows.size(), 2u);
  EXPECT_EQ(crossovers.rows[1][crossovers.column("processor")], Value(std::string("slow")));

  // On a GPU, that is what ran the kernels.
  for (CellRecord& cell : cells) {
    cell.config.device = DeviceRequest::cuda;
    cell.provenance = provenance_of(1, "any", "available: one GPU");
  }
  const Table gpu_fits = gather_tables(cells).at(1);
  ASSERT_EQ(gpu_fits.rows.size(), 2u);
  EXPECT_EQ(gpu_fits.rows[0][gpu_fits.column("processor")],
            Value(std::string("available: one GPU")));
}

// Softmax by the book meets VLA at 1,000 tokens, the tiled one at 2,000 and cuDNN's at 8,000,
// beyond what was measured; the references meet at 100, before it.
TEST(LatencySummary, HoldsEveryLineAgainstEverySoftmax) {
  const struct {
    const char* implementation;
    const char* precision;
    double meets;
  } rivals[] = {{"unfused", "float32", 1000}, {"tiled", "float32", 2000}, {"cudnn", "bf16", 8000}};
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {512, 1024, 2048, 4096}) {
    const double length = static_cast<double>(tokens);
    cells.push_back(latency_cell({"vla", "vla", 1, tokens, 1e-6 * length}));
    cells.push_back(
        latency_cell({"vla", "vla", 1, tokens, 1e-4 * length, "ok", "reference", "float64"}));
    cells.push_back(latency_cell(
        {"softmax", "softmax", 1, tokens, 1e-6 * length * length, "ok", "reference", "float64"}));
    for (const auto& [implementation, precision, meets] : rivals) {
      cells.push_back(latency_cell({"softmax", "softmax", 1, tokens, 1e-6 * length * length / meets,
                                    "ok", implementation, precision}));
    }
  }
  const std::vector<Table> tables = gather_tables(cells);
  EXPECT_EQ(tables[1].rows.size(), 6U) << "every implementation has its own fit";
  const Table& crossovers = tables[2];
  ASSERT_EQ(crossovers.rows.size(), 4U);
  const auto value = [&](std::size_t row, const char* column) {
    return crossovers.rows[row][crossovers.column(column)];
  };
  const auto expect = [&](std::size_t row, const char* implementation, const char* baseline,
                          const char* precision, std::int64_t seq_len, const char* basis) {
    EXPECT_EQ(value(row, "implementation"), Value(std::string(implementation)));
    EXPECT_EQ(value(row, "baseline"), Value(std::string("softmax")));
    EXPECT_EQ(value(row, "baseline_implementation"), Value(std::string(baseline)));
    EXPECT_EQ(value(row, "baseline_precision"), Value(std::string(precision)));
    EXPECT_EQ(value(row, "seq_len"), Value(seq_len));
    EXPECT_EQ(value(row, "basis"), Value(std::string(basis)));
  };
  expect(0, "recurrent", "cudnn", "bf16", 8000, "extrapolated");
  expect(1, "recurrent", "tiled", "float32", 2000, "measured");
  expect(2, "recurrent", "unfused", "float32", 1000, "measured");
  expect(3, "reference", "reference", "float64", 512, "measured");
}

// Two softmax variants in one implementation: the first label alone is the one to beat.
TEST(LatencySummary, OneSoftmaxLabelStandsForItsImplementation) {
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {512, 1024}) {
    cells.push_back(latency_cell({"vla", "vla", 1, tokens, 1.0}));
    cells.push_back(latency_cell({"softmax b", "softmax", 1, tokens, 2.0}));
    cells.push_back(latency_cell({"softmax a", "softmax", 1, tokens, 3.0}));
  }
  const Table crossovers = gather_tables(cells)[2];
  ASSERT_EQ(crossovers.rows.size(), 1U);
  EXPECT_EQ(crossovers.rows[0][crossovers.column("baseline")], Value(std::string("softmax a")));
}

}  // namespace
}  // namespace vla_bench
