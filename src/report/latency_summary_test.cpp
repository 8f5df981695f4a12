#include "report/latency_summary.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/summary.h"

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

FinishedCell latency_cell(const char* label, const char* mixer, int threads, std::int64_t seq_len,
                          double seconds, const char* status = "ok") {
  FinishedCell finished;
  finished.directory.folder = fmt::format("runs/latency/{}-{}-{}", label, threads, seq_len);
  finished.config_json = fmt::format(R"({{"threads": {}}})", threads);
  finished.table = Table(latency_schema());
  const bool tiled = std::string(mixer) == "softmax";
  finished.table.add({std::string(label), std::string(mixer),
                      std::string(tiled ? "tiled" : "recurrent"), std::string("cpu"),
                      std::int64_t{4}, std::int64_t{1}, std::int64_t{64}, seq_len,
                      std::string("forward"), seconds, seconds, seconds, std::int64_t{9},
                      std::int64_t{1}, std::int64_t{1}, std::string(status), Value()});
  return finished;
}

TEST(LatencySummary, GathersLinesAcrossCells) {
  std::vector<FinishedCell> cells;
  for (const std::int64_t tokens : {2048, 512, 1024}) {
    const double length = static_cast<double>(tokens);
    for (const int threads : {1, 2}) {
      cells.push_back(latency_cell("softmax", "softmax", threads, tokens, 1e-8 * length * length));
      cells.push_back(latency_cell("vla", "vla", threads, tokens, 1e-5 * length / threads));
    }
  }
  cells.push_back(latency_cell("vla", "vla", 1, 4096, 1e9, "failed"));
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
  std::vector<FinishedCell> cells;
  for (const auto& [processor, seconds] : {std::pair("slow", 4e-6), std::pair("fast", 1e-6)}) {
    for (const std::int64_t tokens : {512, 1024, 2048}) {
      for (const char* mixer : {"softmax", "linear"}) {
        const double scale = std::string(mixer) == "linear" ? 0.5 : 1.0;
        cells.push_back(
            latency_cell(mixer, mixer, 1, tokens, scale * seconds * static_cast<double>(tokens)));
        cells.back().directory.folder += processor;
        cells.back().provenance_json = fmt::format(R"({{"processor": "{}"}})", processor);
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
  for (FinishedCell& cell : cells) {
    cell.config_json = R"({"threads": 1, "device": "cuda"})";
    cell.provenance_json = R"({"processor": "any", "cuda": "available: one GPU"})";
  }
  const Table gpu_fits = gather_tables(cells).at(1);
  ASSERT_EQ(gpu_fits.rows.size(), 2u);
  EXPECT_EQ(gpu_fits.rows[0][gpu_fits.column("processor")],
            Value(std::string("available: one GPU")));
}

}  // namespace
}  // namespace vla_bench
