#include <gtest/gtest.h>

#include <cmath>

#include "report/summary.h"
#include "testing/records.h"

namespace vla_bench {
namespace {

using testing::add_row;
using testing::cell;
using testing::find;
using testing::made_by;
using testing::real;
using testing::record_of;
using testing::text;

struct Timed {
  const char* mixer;  // JSON: "\"vla\"", or an object
  std::int64_t seq_len;
  double seconds;
  const char* implementation = "recurrent";
  const char* precision = "float32";
  const char* processor = "cpu x";
  const char* threads = "1";
  int seed = 1;
  const char* more = "";  // of the config's latency section
};

CellRecord timing(const Timed& timed, Device device = Device::cpu) {
  CellRecord record =
      record_of(fmt::format(R"({{"experiment": "latency", "mixers": [{}], "seeds": [{}],
                       "task": {{"seq_len": {}}}, "latency": {{"passes": ["forward"]{}}}}})",
                            timed.mixer, timed.seed, timed.seq_len, timed.more),
                device);
  record.provenance = made_by("aaaaaaa", "false", timed.processor, timed.threads);
  add_row(record, Latency::table(),
          {{"implementation", std::string(timed.implementation)},
           {"precision", std::string(timed.precision)},
           {"pass", std::string("forward")},
           {"median_s", timed.seconds},
           {"p10_s", 0.999 * timed.seconds},
           {"p90_s", 1.001 * timed.seconds},
           {"repeats", std::int64_t{25}},
           {"flop", std::int64_t{1000}},
           {"flop_per_s", 1000.0 / timed.seconds}});
  return record;
}

const char* const kVla = "\"vla\"";
const char* const kSoftmax = "\"softmax\"";

TEST(LatencySummary, OfSeveralSeedsTheMedian) {
  std::vector<CellRecord> cells;
  for (int seed = 1; seed <= 3; ++seed) {
    cells.push_back(timing({.mixer = kVla, .seq_len = 64, .seconds = 1.0 * seed, .seed = seed}));
  }
  cells.push_back(timing({.mixer = kVla, .seq_len = 64, .seconds = 1.0, .seed = 4}));
  Table& last = cells.back().tables[0];
  last.rows[0][last.column("status")] = std::string("diverged");
  last.rows[0][last.column("reason")] = std::string("at token 70");
  const Table summary = find(gather_tables(cells), "latency_summary");
  ASSERT_EQ(summary.rows.size(), 1u);
  EXPECT_EQ(text(summary, 0, "line"), "vla");
  EXPECT_EQ(text(summary, 0, "processor"), "cpu x");
  EXPECT_EQ(real(summary, 0, "threads"), 1);
  EXPECT_EQ(text(summary, 0, "cells"), "3 of 4");
  EXPECT_EQ(text(summary, 0, "not_ok"), "seed 4: diverged: at token 70");
  EXPECT_EQ(real(summary, 0, "median_s"), 2.0);
  EXPECT_EQ(real(summary, 0, "p10_s"), 0.999);
  EXPECT_EQ(real(summary, 0, "p90_s"), 1.001 * 3.0);
  EXPECT_EQ(real(summary, 0, "repeats"), 75);
  EXPECT_EQ(real(summary, 0, "flop"), 1000);
  EXPECT_EQ(real(summary, 0, "flop_per_s"), 500.0);
}

// The number of repeats and the other timings in the config do not make another line; two timings
// of one length stay separate.
TEST(LatencySummary, ALineRunsOverWaysOfTiming) {
  const char* const longer = R"(, "max_repeats": 7, "implementations": ["production", "unfused"])";
  std::vector<CellRecord> cells = {
      timing({.mixer = kVla, .seq_len = 64, .seconds = 1.0}),
      timing({.mixer = kVla, .seq_len = 128, .seconds = 2.0, .more = longer})};
  const Table fit = find(gather_tables(cells), "latency_fit");
  ASSERT_EQ(fit.rows.size(), 1u);
  EXPECT_EQ(text(fit, 0, "line"), "vla");
  EXPECT_EQ(real(fit, 0, "points"), 2);

  cells.push_back(timing({.mixer = kVla, .seq_len = 64, .seconds = 1.5, .more = longer}));
  const Table summary = find(gather_tables(cells), "latency_summary");
  ASSERT_EQ(summary.rows.size(), 3u);
  EXPECT_NE(text(summary, 0, "line"), text(summary, 2, "line"));
}

TEST(LatencySummary, SaysWhichTimingsDidNotReachTheirError) {
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {512, 1024}) {
    cells.push_back(
        timing({.mixer = kVla, .seq_len = tokens, .seconds = 1e-3 * static_cast<double>(tokens)}));
    Table& table = cells.back().tables[0];
    table.rows[0][table.column("relative_error")] = tokens == 512 ? 0.01 : 0.05;
  }
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "latency_summary");
  EXPECT_EQ(text(summary, 0, "note"), "");
  EXPECT_EQ(text(summary, 1, "note"), "relative_error 0.02 not reached: 0.05 after 25 repeats");
  EXPECT_EQ(text(find(tables, "latency_fit"), 0, "note"),
            "relative_error not reached at 1024 tokens");
}

TEST(LatencySummary, GathersLinesAcrossCells) {
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {2048, 512, 1024}) {
    const double length = static_cast<double>(tokens);
    for (const auto& [threads, speed] : {std::pair("1", 1.0), std::pair("2", 2.0)}) {
      cells.push_back(timing({.mixer = kSoftmax,
                              .seq_len = tokens,
                              .seconds = 1e-8 * (0.9 + 0.1 * speed) * length * length,
                              .implementation = "tiled",
                              .threads = threads}));
      cells.push_back(timing({.mixer = kVla,
                              .seq_len = tokens,
                              .seconds = 1e-5 * length / speed,
                              .threads = threads}));
    }
  }
  cells.push_back(timing({.mixer = kVla, .seq_len = 4096, .seconds = 1.0}));
  Table& last = cells.back().tables[0];
  last.rows[0][last.column("status")] = std::string("failed");
  const std::vector<Table> tables = gather_tables(cells);
  ASSERT_EQ(tables.size(), 4u);
  EXPECT_EQ(tables[0].rows.size(), 13u);
  EXPECT_EQ(tables[1].name, "latency_summary");
  const Table& fits = tables[2];
  EXPECT_EQ(fits.name, "latency_fit");
  ASSERT_EQ(fits.rows.size(), 4u) << "two labels by two numbers of threads";
  EXPECT_NEAR(real(fits, 0, "exponent"), 2.0, 1e-12);
  EXPECT_NEAR(real(fits, 2, "exponent"), 1.0, 1e-12);
  EXPECT_LT(real(fits, 2, "exponent_low"), 1.0);
  EXPECT_GT(real(fits, 2, "exponent_high"), 1.0);
  EXPECT_EQ(real(fits, 2, "last_seq_len"), 2048);
  EXPECT_EQ(text(fits, 2, "cells"), "3 of 4");
  EXPECT_EQ(text(fits, 2, "not_ok"), "4096 tokens: seed 1: failed");
  const Table& crossovers = tables[3];
  EXPECT_EQ(crossovers.name, "latency_crossover");
  ASSERT_EQ(crossovers.rows.size(), 2u);
  EXPECT_EQ(real(crossovers, 0, "threads"), 1);
  EXPECT_EQ(real(crossovers, 0, "seq_len"), 1000);
  EXPECT_LT(real(crossovers, 0, "seq_len_low"), 1000);
  EXPECT_GT(real(crossovers, 0, "seq_len_high"), 1000);
  EXPECT_EQ(real(crossovers, 1, "seq_len"), 512);
}

// Case 11: one label, the penalty frozen at some lengths and learned at others; 2 and 64 threads
// that were counted automatically.
TEST(LatencySummary, OneLabelOfTwoConfigsIsTwoLines) {
  const char* const frozen = R"({"mixer": "vla", "label": "mine", "penalty": "frozen"})";
  const char* const learned = R"({"mixer": "vla", "label": "mine"})";
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {512, 1024}) {
    cells.push_back(timing(
        {.mixer = frozen, .seq_len = tokens, .seconds = 1e-3 * static_cast<double>(tokens)}));
    cells.push_back(timing(
        {.mixer = learned, .seq_len = 4 * tokens, .seconds = 1e-3 * static_cast<double>(tokens)}));
    cells.push_back(timing({.mixer = learned,
                            .seq_len = 4 * tokens,
                            .seconds = 1e-4 * static_cast<double>(tokens),
                            .threads = "64"}));
  }
  const Table fits = find(gather_tables(cells), "latency_fit");
  ASSERT_EQ(fits.rows.size(), 3u);
  EXPECT_EQ(text(fits, 0, "line"), "mine penalty=frozen");
  EXPECT_EQ(text(fits, 1, "line"), "mine penalty=learned");
  EXPECT_EQ(real(fits, 1, "threads"), 1);
  EXPECT_EQ(real(fits, 2, "threads"), 64);
}

TEST(LatencySummary, ProcessorsAreNotPooled) {
  for (const Device device : {Device::cpu, Device::cuda}) {
    std::vector<CellRecord> cells;
    for (const auto& [processor, seconds] : {std::pair("slow", 4e-6), std::pair("fast", 1e-6)}) {
      for (const std::int64_t tokens : {512, 1024, 2048}) {
        for (const char* mixer : {kSoftmax, "\"linear\""}) {
          const double scale = mixer == kSoftmax ? 1.0 : 0.5;
          cells.push_back(timing({.mixer = mixer,
                                  .seq_len = tokens,
                                  .seconds = scale * seconds * static_cast<double>(tokens),
                                  .processor = processor},
                                 device));
        }
      }
    }
    const std::vector<Table> tables = gather_tables(cells);
    const Table& fits = find(tables, "latency_fit");
    if (device == Device::cuda) {  // where the GPU ran the kernels
      EXPECT_EQ(text(fits, 0, "processor"), "one GPU");
      continue;
    }
    ASSERT_EQ(fits.rows.size(), 4u) << "two mixers on two processors";
    EXPECT_EQ(text(fits, 0, "processor"), "fast");
    EXPECT_NEAR(real(fits, 0, "scale_s"), 0.5e-6, 1e-15);
    EXPECT_EQ(text(fits, 1, "processor"), "slow");
    EXPECT_NEAR(real(fits, 1, "scale_s"), 2e-6, 1e-15);
    const Table& crossovers = find(tables, "latency_crossover");
    ASSERT_EQ(crossovers.rows.size(), 2u);
    EXPECT_EQ(text(crossovers, 1, "processor"), "slow");
  }
}

// The unfused softmax meets VLA at 1,000 tokens, the tiled one at 2,000 and cuDNN's at 8,000,
// beyond the measured lengths; the references meet at 100, below them.
TEST(LatencySummary, HoldsEveryLineAgainstEverySoftmax) {
  const struct {
    const char* implementation;
    const char* precision;
    double meets;
  } rivals[] = {{"unfused", "float32", 1000}, {"tiled", "float32", 2000}, {"cudnn", "bf16", 8000}};
  std::vector<CellRecord> cells;
  const auto add = [&](CellRecord record) {  // the implementations of a cell are its rows
    for (CellRecord& earlier : cells) {
      if (earlier.hash != record.hash) continue;
      earlier.tables[0].rows.push_back(record.tables[0].rows[0]);
      return;
    }
    cells.push_back(std::move(record));
  };
  for (const std::int64_t tokens : {512, 1024, 2048, 4096}) {
    const double length = static_cast<double>(tokens);
    add(timing({kVla, tokens, 1e-6 * length}));
    add(timing({kVla, tokens, 1e-4 * length, "reference", "float64"}));
    add(timing({kSoftmax, tokens, 1e-6 * length * length, "reference", "float64"}));
    for (const auto& [implementation, precision, meets] : rivals) {
      add(timing({kSoftmax, tokens, 1e-6 * length * length / meets, implementation, precision}));
    }
  }
  const std::vector<Table> tables = gather_tables(cells);
  EXPECT_EQ(find(tables, "latency_fit").rows.size(), 6U) << "every implementation has its own fit";
  const Table& crossovers = find(tables, "latency_crossover");
  ASSERT_EQ(crossovers.rows.size(), 4U);
  const auto expect = [&](std::size_t row, const char* implementation, const char* baseline,
                          const char* precision, double seq_len, const char* basis) {
    EXPECT_EQ(text(crossovers, row, "implementation"), implementation);
    EXPECT_EQ(text(crossovers, row, "baseline"), "softmax");
    EXPECT_EQ(text(crossovers, row, "baseline_implementation"), baseline);
    EXPECT_EQ(text(crossovers, row, "baseline_precision"), precision);
    EXPECT_EQ(real(crossovers, row, "seq_len"), seq_len);
    EXPECT_EQ(text(crossovers, row, "basis"), basis);
  };
  expect(0, "recurrent", "cudnn", "bf16", 8000, "extrapolated");
  expect(1, "recurrent", "tiled", "float32", 2000, "measured");
  expect(2, "recurrent", "unfused", "float32", 1000, "measured");
  expect(3, "reference", "reference", "float64", 512, "measured");
}

// With two softmax variants in one implementation the first label is the baseline, unless another
// was timed like the mixer.
TEST(LatencySummary, OneSoftmaxStandsForItsImplementation) {
  const char* const a = R"({"mixer": "softmax", "label": "softmax a"})";
  const char* const b = R"({"mixer": "softmax", "label": "softmax b"})";
  std::vector<CellRecord> cells;
  for (const std::int64_t tokens : {512, 1024}) {
    cells.push_back(timing({kVla, tokens, 1.0}));
    cells.push_back(timing({b, tokens, 2.0, "tiled"}));
    cells.push_back(timing({a, tokens, 3.0, "tiled"}));
  }
  const Table crossovers = find(gather_tables(cells), "latency_crossover");
  ASSERT_EQ(crossovers.rows.size(), 1U);
  EXPECT_EQ(text(crossovers, 0, "baseline"), "softmax a");

  for (std::size_t i = 0; i < cells.size(); i += 3) {
    cells[i + 2] = timing({.mixer = a,
                           .seq_len = cells[i].config.task.seq_len.value(),
                           .seconds = 3.0,
                           .implementation = "tiled",
                           .more = R"(, "warmup": 7)"});
  }
  EXPECT_EQ(text(find(gather_tables(cells), "latency_crossover"), 0, "baseline"), "softmax b");
}

TEST(LatencySummary, ACellThatTimedNothingIsNamed) {
  CellRecord failed = record_of(R"({"experiment": "latency", "mixers": ["vla"], "seeds": [3]})");
  failed.outcome = {.status = "failed", .reason = "out of memory"};
  const std::vector<CellRecord> cells = {failed};
  const std::vector<Table> tables = gather_tables(cells);
  const Table& summary = find(tables, "latency_summary");
  EXPECT_EQ(text(summary, 0, "cells"), "0 of 1");
  EXPECT_EQ(text(summary, 0, "not_ok"), "seed 3: failed: out of memory");
  EXPECT_EQ(cell(summary, 0, "median_s"), Value());
  EXPECT_TRUE(find(tables, "latency_fit").rows.empty());
}

}  // namespace
}  // namespace vla_bench
