#include "testing/cells.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "config/read.h"

namespace vla_bench {
namespace {

using testing::refusal;

std::vector<CellConfig> cells_of_text(std::string_view json,
                                      std::vector<std::string> overrides = {}) {
  return expand_cells(parse_config(json, "x.json", overrides), Device::cpu);
}

TEST(ExpandCells, FirstAxisSlowestThenMixersThenSeeds) {
  const auto cells = cells_of_text(R"({"mixers": ["vla", "linear"], "seeds": [1, 2],
                                  "sweep": {"model.d_h": [16, 32], "task.n_pairs": [4, 8]}})");
  ASSERT_EQ(cells.size(), 16u);
  EXPECT_EQ(cells[0].title, "vla d_h=16 n_pairs=4 seed=1");
  EXPECT_EQ(cells[1].title, "vla d_h=16 n_pairs=4 seed=2");
  EXPECT_EQ(cells[2].title, "linear d_h=16 n_pairs=4 seed=1");
  EXPECT_EQ(cells[4].title, "vla d_h=16 n_pairs=8 seed=1");
  EXPECT_EQ(cells[8].title, "vla d_h=32 n_pairs=4 seed=1");
  EXPECT_EQ(cells[15].title, "linear d_h=32 n_pairs=8 seed=2");
  std::set<std::string> hashes;
  for (const CellConfig& cell : cells) {
    hashes.insert(cell.hash);
    EXPECT_EQ(cell.hash.size(), 16u);
    EXPECT_EQ(cell.config.mixers.size(), 1u);
    EXPECT_EQ(cell.config.seeds.size(), 1u);
    EXPECT_TRUE(cell.config.sweep.empty());
  }
  EXPECT_EQ(hashes.size(), cells.size());
  EXPECT_EQ(cells[15].config.model.d_h, 32);
  EXPECT_EQ(cells[15].config.task.n_pairs, 8);
}

TEST(ExpandCells, KeysOfOneAxisMoveTogether) {
  const auto cells = cells_of_text(R"({"mixers": ["vla"], "sweep": {
      "task.n_pairs": [4, 8], "model.d_h,model.n_heads,train.lr": [[16, 4, 0.1], [32, 1, 0.2]]}})");
  ASSERT_EQ(cells.size(), 4u);
  EXPECT_EQ(cells[1].title, "vla n_pairs=4 d_h=32 n_heads=1 lr=0.2 seed=42");
  EXPECT_EQ(cells[1].config.model.n_heads, 1);
  EXPECT_EQ(cells[2].title, "vla n_pairs=8 d_h=16 n_heads=4 lr=0.1 seed=42");
}

// The benchmark gives each mixer its own number of heads at one d_model.
TEST(ExpandCells, MixersMoveTogetherWithTheirModel) {
  const auto cells = cells_of_text(R"({"sweep": {
      "mixers,model.n_heads,model.d_h,model.bias": [
          [["softmax"], 1, 64, true],
          [[{"mixer": "deltanet", "variant": "standard", "output_norm_kind": "rms_head"}],
           2, 32, false]]}})");
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells[0].title, "softmax n_heads=1 d_h=64 bias=true seed=42");
  EXPECT_EQ(cells[1].config.mixers[0].name(), "deltanet");
  EXPECT_EQ(cells[1].config.mixers[0].output_norm_kind, OutputNorm::rms_head);
  EXPECT_EQ(cells[1].config.model.n_heads, 2);
  EXPECT_FALSE(cells[1].config.model.bias);
}

TEST(ExpandCells, CellConfigReproducesTheCell) {
  for (const CellConfig& cell : cells_of_text(R"({"mixers": ["vla", {"penalty": "frozen"}],
                                             "sweep": {"task.n_pairs": [4]}})")) {
    const auto again = cells_of_text(dump_config(cell.config));
    ASSERT_EQ(again.size(), 1u);
    EXPECT_EQ(again[0].hash, cell.hash);
  }
}

TEST(ExpandCells, PrecisionIsPartOfTheIdentityWhereItIsComputedIn) {
  const auto cells =
      cells_of_text(R"({"mixers": ["vla"], "sweep": {"precision": ["float32", "tf32"]}})");
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_NE(cells[0].hash, cells[1].hash);
  // The table has a column for it.
  EXPECT_EQ(cells[1].config.mixers[0].label, "vla");
  EXPECT_EQ(cells[1].title, "vla precision=tf32 seed=42");
  EXPECT_EQ(computed_in(cells[1].config), "tf32");

  const std::string sweep = R"("mixers": ["vla"], "sweep": {"precision": ["bf16", "float32"]})";
  const auto probe = cells_of_text(R"({"experiment": "state_norm", )" + sweep + "}");
  ASSERT_EQ(probe.size(), 2u);
  EXPECT_EQ(computed_in(probe[0].config), "bf16");
  // Experiments that only step memories do so in double: one cell.
  for (const std::string experiment :
       {R"("experiment": "recall")",
        R"("experiment": "jacobian", "probe": {"source": "gaussian"})"}) {
    const auto memory = cells_of_text("{" + experiment + ", " + sweep + "}");
    ASSERT_EQ(memory.size(), 1u) << experiment;
    EXPECT_EQ(computed_in(memory[0].config), "float64");
  }
}

TEST(ExpandCells, KeysOfMixersTouchThoseThatHaveThem) {
  const auto cells = cells_of_text(R"({"mixers": ["linear", "vla", {"label": "mine", "period": 5}],
                                  "sweep": {"mixer.lambda_0": [0.1, 1]}})");
  // linear is the same cell at both points and appears once.
  ASSERT_EQ(cells.size(), 5u);
  EXPECT_EQ(cells[0].config.mixers[0].label, "linear");
  EXPECT_EQ(cells[1].config.mixers[0].label, "vla");
  EXPECT_EQ(cells[2].title, "mine lambda_0=0.1 seed=42");
  EXPECT_EQ(cells[3].title, "vla lambda_0=1 seed=42");
  EXPECT_EQ(cells[4].title, "mine lambda_0=1 seed=42");
  EXPECT_EQ(cells[4].config.mixers[0].get<VlaOptions>().lambda_0, 1.0);
  EXPECT_EQ(cells[4].config.mixers[0].label, "mine");

  const auto one = cells_of_text(R"({"mixers": ["vla", {"label": "mine", "period": 5}],
                                "sweep": {"mixers.1.period": [0, 10]}})");
  ASSERT_EQ(one.size(), 3u);
  EXPECT_EQ(one[0].config.mixers[0].label, "vla");
  EXPECT_EQ(one[1].title, "mine period=0 seed=42");
}

// Swept keys appear in the title and in the summaries' columns; the label stays as the user chose
// it, whatever its length.
TEST(ExpandCells, SweptKeysLeaveTheLabelAlone) {
  const auto training =
      cells_of_text(R"({"mixers": ["vla"], "sweep": {"train.lr": [1e-3, 0.01]}})");
  EXPECT_EQ(training[0].config.mixers[0].label, "vla");
  EXPECT_EQ(training[1].title, "vla lr=0.01 seed=42");
  const auto same_part = cells_of_text(R"({"mixers": ["vla"],
      "sweep": {"train.batch": [8], "eval.batch": [9], "model.d_h": [8]}})");
  EXPECT_EQ(same_part[0].title, "vla train.batch=8 eval.batch=9 d_h=8 seed=42");
  const std::string longest(200, 'x');
  const auto labelled = cells_of_text(R"({"mixers": [{"label": ")" + longest +
                                      R"("}], "sweep": {"train.lr": [0.001]}})");
  EXPECT_EQ(labelled[0].config.mixers[0].label, longest);
  EXPECT_EQ(cells_of_text(dump_config(labelled[0].config))[0].hash, labelled[0].hash);
}

TEST(ExpandCells, SweepMistakesNameAxisAndValue) {
  EXPECT_EQ(refusal(R"({"sweep": {"task.npairs": [4]}})"),
            "x.json: /sweep/task.npairs/0: unknown key \"npairs\", did you mean \"n_pairs\"?");
  EXPECT_EQ(refusal(R"({"sweep": {"model.d_h": [16, 0]}})"),
            "x.json: /sweep/model.d_h/1: expected an integer from 1 to 1024, got 0");
  EXPECT_NE(refusal(R"({"sweep": {"mixers.9.period": [1]}})"), "");
  EXPECT_NE(refusal(R"({"sweep": {"mixer.variant": ["standard"]}, "mixers": ["vla"]})"), "");
  EXPECT_NE(refusal(R"({"sweep": {"device": ["cpu"]}})"), "");
  EXPECT_NE(refusal(R"({"sweep": {"sweep": [{}]}})"), "");
  std::string axis = "[0";
  for (int i = 1; i < 200; ++i) axis.append(",").append(std::to_string(i));
  axis += "]";
  EXPECT_NE(
      refusal(R"({"sweep": {"train.weight_decay": )" + axis + R"(, "train.warmup": )" + axis + "}}")
          .find("more than 20000 points"),
      std::string::npos);
}

}  // namespace
}  // namespace vla_bench
