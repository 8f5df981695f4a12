#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/files.h"
#include "experiments/list.h"
#include "experiments/record.h"
#include "experiments/trained_probe.h"
#include "mixers/registry.h"
#include "report/cell_columns.h"
#include "testing/cells.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

using testing::cell_of;
using testing::is_empty;
using testing::number;
using testing::on_threads;
using testing::refusal;
using testing::text;

CellConfig training_cell(const std::string& experiment, const std::string& mixer, double lr = 3e-3,
                         Index steps = 30) {
  return cell_of(fmt::format(
      R"({{"experiment": "{}", "mixers": [{}], "seeds": [3],
           "model": {{"n_heads": 2, "d_h": 8, "d_ff": 16, "vocab_size": 16, "max_seq_len": 32}},
           "task": {{"n_pairs": 3, "seq_len": 10}},
           "train": {{"steps": {}, "batch": 4, "warmup": 3, "lr": {}, "log_every": 10}},
           "eval": {{"batches": 2, "batch": 4}}}})",
      experiment, mixer, steps, lr));
}

/// The table without train_seconds, the one column that may differ between runs.
std::string comparable(CellResult result) {
  const std::size_t seconds = result.table.column("train_seconds");
  for (std::vector<Value>& row : result.table.rows) row[seconds] = {};
  return to_csv(result.table) + to_csv(result.history);
}

TEST(Training, FillsOneRowAndAHistory) {
  for (const char* mixer : {"softmax", "linear", "deltanet", "vla"}) {
    const CellResult result =
        run_cell(training_cell("mqar", fmt::format("\"{}\"", mixer)), on_threads(1));
    ASSERT_EQ(result.status, CellStatus::ok) << mixer << ": " << result.reason;
    ASSERT_EQ(result.table.rows.size(), 1U);
    EXPECT_EQ(text(result.table, 0, "mixer"), mixer);
    EXPECT_EQ(text(result.table, 0, "layout"), "paper");
    EXPECT_EQ(text(result.table, 0, "status"), "ok");
    EXPECT_TRUE(is_empty(result.table, 0, "reason"));
    EXPECT_EQ(result.table.rows[0][result.table.column("steps")], Value(std::int64_t{30}));
    EXPECT_EQ(number(result.table, 0, "learning_rate"), 3e-3);
    EXPECT_EQ(result.table.rows[0][result.table.column("queries")], Value(std::int64_t{2 * 4 * 3}));
    const double accuracy = number(result.table, 0, "accuracy");
    EXPECT_GE(accuracy, 0.0);
    EXPECT_LE(accuracy, 1.0);
    // An untrained guess over 16 tokens has loss ln 16 = 2.77; 30 steps neither solve nor ruin it.
    EXPECT_GT(number(result.table, 0, "loss"), 0.5);
    EXPECT_LT(number(result.table, 0, "loss"), 4.0);
    EXPECT_GT(number(result.table, 0, "train_seconds"), 0.0);
    EXPECT_GE(result.history.rows.size(), 3U);
  }
}

/// A cell of two layers of two heads, 8 channels each, whose sequences have 10 tokens.
Value size_of(const char* mixer, const Column& column, Index taps = 0) {
  RunConfig config = training_cell("mqar", mixer).config;
  config.model.short_conv = taps;
  return column_of(config, column);
}

TEST(Training, StateBytesAreCountedFromTheConfig) {
  const auto floats_of_a_head = [](const char* mixer, std::int64_t floats) {
    EXPECT_EQ(size_of(mixer, Columns::state_bytes), Value(2 * 2 * floats * 4)) << mixer;
  };
  floats_of_a_head("\"softmax\"", 2 * 10 * 8);
  floats_of_a_head("\"linear\"", 8 * 8 + 8);
  floats_of_a_head("\"deltanet\"", 8 * 8);
  floats_of_a_head("\"vla\"", 8 * 8 + 8 + 8 * 8);
  floats_of_a_head(R"({"mixer": "vla", "penalty": "frozen", "normaliser": "none"})", 8 * 8);
  EXPECT_EQ(size_of("\"vla\"", Columns::conv_state_bytes), Value(std::int64_t{0}));
  EXPECT_EQ(size_of("\"vla\"", Columns::conv_state_bytes, 4), Value(std::int64_t{2 * 3 * 16 * 4}));
  EXPECT_EQ(size_of("\"vla\"", Columns::conv_state_bytes, 1), Value(std::int64_t{0}));
}

TEST(Training, StateBytesOfTheBenchmarksModel) {
  const auto sizes = [](const char* mixer) {
    RunConfig config = training_cell("mqar", mixer).config;
    config.model.layers = {LayerKind::gated_conv, LayerKind::mixer};
    config.model.short_conv_qkv = 4;
    return std::pair(column_of(config, Columns::state_bytes),
                     column_of(config, Columns::conv_state_bytes));
  };
  const auto bytes = [](std::int64_t floats) { return Value(4 * floats); };
  // Two earlier tokens of the gated convolution's 16 channels, three of q's, k's and v's.
  EXPECT_EQ(sizes("\"deltanet\""), std::pair(bytes(2 * 8 * 8), bytes((2 + 3 * 3) * 16)));
  EXPECT_EQ(sizes("\"softmax\""), std::pair(bytes(2 * 2 * 10 * 8), bytes(2 * 16)));
}

TEST(Training, StateBytesOfValuesWiderThanKeys) {
  const auto sizes = [](const char* mixer) {
    RunConfig config = training_cell("mqar", mixer).config;
    config.model.d_v = 16;
    config.model.short_conv_qkv = 4;
    return std::pair(column_of(config, Columns::state_bytes),
                     column_of(config, Columns::conv_state_bytes));
  };
  const auto bytes = [](std::int64_t floats) { return Value(4 * 2 * 2 * floats); };
  EXPECT_EQ(sizes("\"gated_deltanet\""), std::pair(bytes(16 * 8), bytes(3 * (8 + 8 + 16))));
  EXPECT_EQ(sizes("\"linear\""), std::pair(bytes(16 * 8 + 8), bytes(3 * (8 + 8 + 16))));
}

TEST(Training, StateBytesAreTheCores) {
  for (const MixerConfig& mixer : every_mixer()) {
    RunConfig config = training_cell("mqar", "\"vla\"").config;
    config.mixers = {mixer};
    const auto core = make_mixer_core<float>(mixer, 8, Device::cpu, Implementation::production);
    for (const Index tokens : {1, 37}) {
      EXPECT_EQ(state_bytes(config, tokens),
                2 * core->state_bytes(head_dims(config.model, 1, tokens)))
          << mixer.name();
    }
    if (!why_values_are_as_wide_as_keys(mixer.options).empty()) continue;
    config.model.d_v = 24;
    EXPECT_EQ(state_bytes(config, 37), 2 * core->state_bytes(head_dims(config.model, 1, 37)))
        << mixer.name();
  }
}

TEST(Training, IsTheSameOverRunsAndThreadCounts) {
  const CellConfig cell = training_cell("mqar", R"("vla")");
  const std::string first = comparable(run_cell(cell, on_threads(1)));
  EXPECT_EQ(first, comparable(run_cell(cell, on_threads(1))));
  EXPECT_EQ(first, comparable(run_cell(cell, on_threads(3))));
}

TEST(Training, CopyLearnsToRepeatItsInput) {
  // The target of a copied token is the token itself: a rate this high finds that in 200 steps.
  const CellResult result =
      run_cell(training_cell("copy", R"("linear")", 1e-2, 200), on_threads(1));
  ASSERT_EQ(result.status, CellStatus::ok) << result.reason;
  EXPECT_GT(number(result.table, 0, "accuracy"), 0.9);
  EXPECT_TRUE(is_empty(result.table, 0, "n_pairs"));
  EXPECT_TRUE(is_empty(result.table, 0, "layout"));
}

TEST(Training, DivergenceIsARowNotAnError) {
  const CellResult result = run_cell(training_cell("mqar", R"("linear")", 1e30), on_threads(1));
  EXPECT_EQ(result.status, CellStatus::diverged);
  EXPECT_FALSE(result.reason.empty());
  ASSERT_EQ(result.table.rows.size(), 1U);
  EXPECT_EQ(text(result.table, 0, "status"), "diverged");
  EXPECT_EQ(text(result.table, 0, "reason"), result.reason);
  EXPECT_TRUE(is_empty(result.table, 0, "accuracy"));
  EXPECT_LT(std::get<std::int64_t>(result.table.rows[0][result.table.column("steps")]), 30);
}

TEST(Training, StopsWhenAsked) {
  const std::atomic<bool> stop = true;
  CellEnvironment environment = on_threads(1);
  environment.stop = &stop;
  EXPECT_EQ(run_cell(training_cell("mqar", R"("linear")"), environment).status,
            CellStatus::interrupted);
}

TEST(Training, StopsInTheEvaluation) {
  std::atomic<bool> stop = false;
  CellEnvironment environment = on_threads(1);
  environment.stop = &stop;
  environment.progress = [&](const TrainProgress& progress) {
    stop = progress.step == progress.steps;
  };
  CellConfig cell = training_cell("mqar", R"("linear")");
  cell.config.eval.batches = Index{1} << 31;  // days of work, were it not stopped
  const CellResult result = run_cell(cell, environment);
  EXPECT_EQ(result.status, CellStatus::interrupted);
  EXPECT_NE(result.reason.find("evaluation"), std::string::npos) << result.reason;
}

TEST(Training, LeavesItsCheckpoint) {
  const testing::TemporaryFolder folder;
  CellEnvironment environment = on_threads(1);
  environment.checkpoint = folder.path() / "checkpoint.safetensors";
  const CellConfig cell = training_cell("mqar", R"("linear")");
  const std::string first = comparable(run_cell(cell, environment));
  EXPECT_TRUE(std::filesystem::exists(environment.checkpoint));
  // The finished checkpoint is resumed: no step is left, and the result is the same.
  EXPECT_EQ(first, comparable(run_cell(cell, environment)));
}

TEST(Record, NamesTheMissingColumn) {
  const CellConfig cell = training_cell("mqar", R"("vla")");
  Record record(Training::table(), cell.config, Device::cpu);
  EXPECT_THROW(record.set(Columns::median_s, 1.0), std::logic_error);
}

TEST(Record, RowOfAnUnmeasuredCellSaysWhy) {
  for (const char* experiment : {"mqar", "recall", "latency"}) {
    const CellConfig cell = training_cell(experiment, R"("vla")");
    const CellResult result =
        unmeasured(cell, on_threads(1), CellStatus::skipped, "no such device");
    ASSERT_EQ(result.table.rows.size(), 1U);
    EXPECT_EQ(text(result.table, 0, "label"), "vla");
    EXPECT_EQ(text(result.table, 0, "status"), "skipped");
    EXPECT_EQ(text(result.table, 0, "reason"), "no such device");
  }
}

TEST(Training, SlicesHaveRowsAndAMean) {
  CellConfig cell = training_cell("mqar", R"("vla")");
  cell.config.task.train_segments = {{.n_pairs = 1, .seq_len = 8, .steps = 2},
                                     {.n_pairs = 3, .seq_len = 12, .steps = 1}};
  cell.config.task.eval_segments = {{.n_pairs = 1, .seq_len = 8}, {.n_pairs = 5, .seq_len = 30}};
  const CellResult result = run_cell(cell, on_threads(1));
  ASSERT_EQ(result.status, CellStatus::ok) << result.reason;
  const Table& table = result.table;
  ASSERT_EQ(table.rows.size(), 3U);
  EXPECT_EQ(text(table, 0, "slice"), "mean");
  EXPECT_TRUE(is_empty(table, 0, "n_pairs"));
  EXPECT_TRUE(is_empty(table, 0, "seq_len"));
  EXPECT_EQ(text(table, 1, "slice"), "8/1");
  EXPECT_EQ(text(table, 2, "slice"), "30/5");
  EXPECT_EQ(table.rows[2][table.column("n_pairs")], Value(std::int64_t{5}));
  EXPECT_EQ(table.rows[2][table.column("seq_len")], Value(std::int64_t{30}));
  EXPECT_EQ(table.rows[2][table.column("queries")], Value(std::int64_t{2 * 4 * 19}));
  EXPECT_EQ(table.rows[0][table.column("queries")], Value(std::int64_t{2 * 4 * (5 + 19)}));
  for (const char* column : {"accuracy", "loss"}) {
    EXPECT_DOUBLE_EQ(number(table, 0, column),
                     (number(table, 1, column) + number(table, 2, column)) / 2.0);
  }
  EXPECT_EQ(table.rows[2][table.column("steps")], Value(std::int64_t{30}));
  EXPECT_EQ(number(table, 2, "train_seconds"), number(table, 0, "train_seconds"));
}

TEST(Training, ProbesTheTrainedMemory) {
  CellConfig cell = training_cell("mqar", R"("vla")");
  cell.config.eval.probe_sequences = 4;
  const CellResult whole = run_cell(cell, on_threads(1));
  ASSERT_EQ(whole.table.rows.size(), 1U);
  EXPECT_GT(number(whole.table, 0, "probe_accuracy"), 0.0);

  cell.config.task.eval_segments = {{.n_pairs = 3, .seq_len = 10}, {.n_pairs = 5, .seq_len = 30}};
  const CellResult sliced = run_cell(cell, on_threads(1));
  const Table& table = sliced.table;
  ASSERT_EQ(table.rows.size(), 3U);
  EXPECT_EQ(number(table, 1, "probe_accuracy"), number(whole.table, 0, "probe_accuracy"));
  EXPECT_DOUBLE_EQ(number(table, 0, "probe_accuracy"),
                   (number(table, 1, "probe_accuracy") + number(table, 2, "probe_accuracy")) / 2.0);
}

TEST(Training, RefusesAProbeOrAPenaltyToHoldWhereThereIsNone) {
  EXPECT_NE(refusal(R"({"experiment": "copy", "eval": {"probe_sequences": 1}})")
                .find("/eval/probe_sequences: only mqar has values"),
            std::string::npos);
  for (const char* mixers : {R"("vla", "linear")", R"({"mixer": "vla", "penalty": "frozen"})"}) {
    const std::string refused =
        refusal(fmt::format(R"({{"mixers": [{}], "eval": {{"hold_penalty_after": 1}}}})", mixers));
    EXPECT_NE(refused.find("/eval/hold_penalty_after: only vla with penalty learned or key"),
              std::string::npos)
        << refused;
  }
}

TEST(Training, HoldsThePenaltyMatrixInTheEvaluation) {
  CellConfig cell = training_cell("mqar", R"("vla")");
  const auto loss = [&](Index held_after) {
    cell.config.eval.hold_penalty_after = held_after;
    const CellResult result = run_cell(cell, on_threads(1));
    EXPECT_EQ(result.status, CellStatus::ok) << result.reason;
    return number(result.table, 0, "loss");
  };
  const double changing = loss(0);
  EXPECT_EQ(changing, loss(10));  // as long as its sequences
  EXPECT_NE(changing, loss(2));
}

TEST(Training, ASlicedCellThatDivergedHasOneRow) {
  CellConfig cell = training_cell("mqar", R"("linear")", 1e30);
  cell.config.task.eval_segments = {{.n_pairs = 1, .seq_len = 8}};
  const CellResult result = run_cell(cell, on_threads(1));
  EXPECT_EQ(result.status, CellStatus::diverged);
  ASSERT_EQ(result.table.rows.size(), 1U);
  EXPECT_EQ(text(result.table, 0, "slice"), "mean");
  EXPECT_TRUE(is_empty(result.table, 0, "accuracy"));
}

TEST(Training, StepsAreThoseThatWereDone) {
  CellConfig cell = training_cell("copy", R"("linear")", 1e-2, 200);
  cell.config.train.stop_accuracy = 0.5;
  cell.config.train.stop_every = 10;
  const CellResult result = run_cell(cell, on_threads(1));
  ASSERT_EQ(result.status, CellStatus::ok);
  const auto steps = std::get<std::int64_t>(result.table.rows[0][result.table.column("steps")]);
  EXPECT_LT(steps, 200);
  EXPECT_EQ(steps % 10, 0);
  EXPECT_EQ(result.history.rows.back()[0], Value(steps));
}

constexpr Context kCpu{Device::cpu, 1};

RunConfig recall_config(const std::string& mixer, const std::string& task) {
  return testing::cell_of(R"({"experiment": "mqar", "seeds": [3], "mixers": [)" + mixer + R"(],
      "model": {"n_heads": 1, "d_h": 128, "n_layers": 1, "d_ff": 0, "vocab_size": 128,
                "positions": false, "short_conv_qkv": 4, "bias": false},
      "task": )" + task + R"(,
      "eval": {"batches": 1, "batch": 8, "probe_sequences": 8}})")
      .config;
}

/// A model whose values are those of the token `delay` before, whose keys are those of the token
/// one further back, where it `binds`, and whose queries are those of the token itself: a memory of
/// it holds every value under its key. Output projection and head stay 0: it has learned to write
/// and to read, and nothing else.
void make_recaller(const RunConfig& config, bool binds, Index delay, TinyLm<float>& model) {
  std::fill_n(model.values().data(), model.values().size(), 0.0F);
  const Index D = config.model.d_model();
  const auto set = [&](const std::string& suffix, const auto& value_at) {
    bool found = false;
    for (const Parameter& parameter : model.parameters().all()) {
      if (!parameter.name.ends_with(suffix)) continue;
      found = true;
      for (Index i = 0; i < parameter.size(); ++i) {
        model.values()[parameter.offset + i] = value_at(i / parameter.shape.back(), i);
      }
    }
    ASSERT_TRUE(found) << suffix;
  };
  const auto diagonal = [D](float value) {
    return [D, value](Index row, Index i) { return i - row * D == row ? value : 0.0F; };
  };
  const auto back = [](Index tokens) {
    return [tokens](Index, Index i) { return i % 4 == 3 - tokens ? 1.0F : 0.0F; };
  };
  set("tok.weight", diagonal(1.0F));
  for (const Parameter& parameter : model.parameters().all()) {
    if (parameter.initialisation != Initialisation::ones) continue;
    std::fill_n(model.values().data() + parameter.offset, parameter.size(), 1.0F);
  }
  set("Wq.weight", diagonal(20.0F));
  set("Wk.weight", diagonal(20.0F));
  set("Wv.weight", diagonal(1.0F));
  set("q_conv1d.weight", back(0));
  set("k_conv1d.weight", back(binds ? delay + 1 : delay));
  set("v_conv1d.weight", back(delay));
}

double probe(const RunConfig& config, bool binds, Index delay) {
  TinyLm<float> model(config.model, config.mixers.front(), kCpu);
  make_recaller(config, binds, delay, model);
  return probe_accuracies(config, config.mixers.front(), kCpu, model).at(0);
}

TEST(TrainedProbe, TellsAMemoryThatHoldsItsPairsFromOneThatDoesNot) {
  for (const char* task : {R"({"n_pairs": 8})", R"({"n_pairs": 8, "layout": "zoology"})",
                           R"({"n_pairs": 8, "passes": 2})"}) {
    const RunConfig config = recall_config(R"("linear")", task);
    for (Index delay : {0, 1, 2}) EXPECT_GT(probe(config, true, delay), 0.85) << task << delay;
    EXPECT_LT(probe(config, false, 0), 0.5) << task;
  }
  RunConfig wide = recall_config(R"("linear")", R"({"n_pairs": 8})");
  wide.model.d_v = 256;
  EXPECT_GT(probe(wide, true, 1), 0.85);
  EXPECT_LT(probe(wide, false, 0), 0.5);
}

TEST(TrainedProbe, IsTheSameForAnyNumberOfThreads) {
  const RunConfig config = recall_config(R"("vla")", R"({"n_pairs": 20})");
  TinyLm<float> model(config.model, config.mixers.front(), kCpu);
  model.initialise(5);
  const auto probe = [&](int threads) {
    return probe_accuracies(config, config.mixers.front(), {Device::cpu, threads}, model).at(0);
  };
  const double accuracy = probe(1);
  EXPECT_EQ(accuracy, probe(3));
  EXPECT_LT(accuracy, 0.5);  // nothing learned
}

}  // namespace
}  // namespace vla_bench
