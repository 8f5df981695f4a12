#include "config/sweep.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/read.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::refusal;

using Overrides = std::vector<std::string>;

/// The configs of the cells, in their order.
std::vector<RunConfig> cells_of(std::string_view json, const Overrides& overrides = {}) {
  std::vector<RunConfig> configs;
  for (CellConfig& cell : expand_cells(parse_config(json, "x.json", overrides), Device::cpu)) {
    configs.push_back(std::move(cell.config));
  }
  return configs;
}

std::vector<Index> steps_of(const std::vector<RunConfig>& cells) {
  std::vector<Index> steps;
  for (const RunConfig& cell : cells) steps.push_back(cell.train.steps);
  return steps;
}

TEST(Sweep, OverlappingAxesAreRefusedAndNamed) {
  const struct {
    const char* sweep;
    const char* message;
  } cases[] = {
      {R"({"model.d_h": [4, 8], "model": [{"n_heads": 2}, {"n_heads": 1}]})",
       R"(x.json: /sweep/model: "model" overlaps "model.d_h" of the axis "model.d_h")"},
      {R"({"model": [{"n_heads": 2}, {"n_heads": 1}], "model.d_h": [4, 8]})",
       R"(x.json: /sweep/model.d_h: "model.d_h" overlaps "model" of the axis "model")"},
      {R"({"train.lr": [0.1, 0.2], "train.lr,train.batch": [[0.3, 4], [0.4, 8]]})",
       R"(/sweep/train.lr,train.batch: "train.lr" overlaps "train.lr" of the axis "train.lr")"},
      {R"({"train.lr,train.batch": [[0.3, 4]], "task.n_pairs,train": [[4, {"steps": 400}]]})",
       R"("train" overlaps "train.lr" of the axis "train.lr,train.batch")"},
      {R"({"train.lr,train.lr": [[0.3, 0.4]]})", R"("train.lr" overlaps "train.lr" of the axis)"},
      {R"({"mixer.lambda_0": [0.1, 1], "mixers": [["vla"], ["linear"]]})",
       R"("mixers" overlaps "mixer.lambda_0")"},
      {R"({"mixer.lambda_0": [0.1, 1], "mixers.3.lambda_0": [2]})",
       R"("mixers.3.lambda_0" overlaps "mixer.lambda_0")"},
      {R"({"mixers.3": ["vla"], "mixer.lambda_0": [2]})",
       R"("mixer.lambda_0" overlaps "mixers.3")"},
      {R"({"mixers": [["vla"], ["linear"]], "mixers.0.output_norm": [true]})",
       R"("mixers.0.output_norm" overlaps "mixers")"},
      {R"({"seeds.0": [1, 2], "seeds": [[3]]})", R"("seeds" overlaps "seeds.0")"},
  };
  for (const auto& [sweep, message] : cases) {
    const std::string text = refusal(std::string(R"({"sweep": )") + sweep + "}");
    EXPECT_NE(text.find(message), std::string::npos) << sweep << "\n" << text;
  }
  EXPECT_NE(refusal(R"({"sweep": {"mixers.03.lambda_0": [1], "mixers.3.lambda_0": [2]}})"), "")
      << "an element has one name";
}

TEST(Sweep, NeighboursDoNotOverlap) {
  for (const char* sweep : {R"({"model.d_h": [8], "model.d_ff": [16]})",
                            R"({"mixer.lambda_0": [1], "mixer.period": [0]})",
                            R"({"mixer.lambda_0": [1], "mixers.3.period": [0]})",
                            R"({"mixers.0.output_norm": [true], "mixers.1.output_norm": [true]})",
                            R"({"train.batch": [8], "eval.batch": [8]})",
                            R"({"mixers,model.n_heads": [[["vla"], 1]], "model.d_h": [8]})"}) {
    EXPECT_EQ(refusal(std::string(R"({"sweep": )") + sweep + "}"), "") << sweep;
  }
}

TEST(Sweep, KeysAreBounded) {
  std::string keys = "seeds.0", values = "1";
  for (int i = 1; i <= 1000; ++i) {
    keys += ",seeds." + std::to_string(i);
    values += ",1";
  }
  EXPECT_NE(refusal(R"({"sweep": {")" + keys + R"(": [[)" + values + "]]}}").find("more than 1000"),
            std::string::npos);
}

constexpr const char* kSweptObjects =
    R"({"mixers": ["vla"], "train": {"steps": 900},
        "sweep": {"train": [{"lr": 0.1}, {"lr": 0.2, "steps": 400}]}})";

std::string integers(int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += (i > 0 ? "," : "") + std::to_string(i);
  return "[" + list + "]";
}

// Every point holds all mixers and seeds: together these would take 40 GB and hours.
TEST(Sweep, RunsAreBounded) {
  const std::string config = R"({"seeds": )" + integers(50'000) +
                             R"(, "sweep": {"train.batch": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
      "train.lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}})";
  EXPECT_NE(refusal(config).find("/sweep: more than 1000000 runs"), std::string::npos)
      << refusal(config);
}

TEST(Sweep, ValuesAreBounded) {
  // Refused before all pairs of them are compared.
  const std::string values = R"({"sweep": {"train.steps": )" + integers(100'000) + "}}";
  EXPECT_NE(refusal(values).find("/sweep: more than 20000 points"), std::string::npos);
  std::string keys;
  for (int i = 0; i < 11; ++i) keys += (i > 0 ? ",k" : "k") + std::to_string(i);
  std::string points;
  for (int i = 0; i < 20'000; ++i) {
    points += (i > 0 ? ",[" : "[") + std::to_string(i) + ",0,0,0,0,0,0,0,0,0,0]";
  }
  const std::string together = R"({"sweep": {")" + keys + "\": [" + points + "]}}";
  EXPECT_NE(refusal(together).find("/sweep: more than 200000 values"), std::string::npos)
      << refusal(together);
}

TEST(OverridesBelowASweptKey, GoIntoEveryPoint) {
  const auto cells = cells_of(kSweptObjects, {"train.batch=7"});
  ASSERT_EQ(cells.size(), 2u);
  for (const RunConfig& cell : cells) EXPECT_EQ(cell.train.batch, 7);
  EXPECT_EQ(cells[0].train.lr, 0.1);
  EXPECT_EQ(cells[1].train.lr, 0.2);
  EXPECT_EQ(steps_of(cells), (std::vector<Index>{3000, 400}));
  // Also in a config that is dumped and read again.
  const RunConfig config =
      parse_config(kSweptObjects, "x.json", std::vector<std::string>{"train.batch=7"});
  EXPECT_EQ(cells_of(dump_config(config))[1].train.batch, 7);
}

TEST(OverridesBelowASweptKey, AreRefusedWhereAPointSaysOtherwise) {
  const std::string message = refusal(kSweptObjects, {"train.steps=500"});
  EXPECT_NE(message.find("--set train.steps=500: the sweep over \"train\" gives it another value"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find(R"({"lr":0.2,"steps":400})"), std::string::npos) << message;
  // The same value is no contradiction.
  EXPECT_EQ(steps_of(cells_of(kSweptObjects, {"train.steps=400"})), (std::vector<Index>{400, 400}));
}

TEST(OverridesBelowASweptKey, AreCheckedAndNamed) {
  const std::string unknown = refusal(kSweptObjects, {"train.stepz=5"});
  EXPECT_NE(unknown.find(R"(--set train.stepz=5: unknown key "stepz", did you mean "steps"?)"),
            std::string::npos)
      << unknown;
  EXPECT_NE(refusal(kSweptObjects, {"train.batch=none"}).find("--set train.batch=none: expected"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"sweep": {"train": ["fast"]}})", {"train.batch=8"}).find("/sweep/train/0"),
            std::string::npos);
}

TEST(OverridesBelowASweptKey, PointsThatBecomeEqualStandOnce) {
  const char* text = R"({"mixers": ["vla"], "sweep": {"train": [{"lr": 0.1},
                                                                 {"lr": 0.1, "steps": 400}]}})";
  EXPECT_EQ(steps_of(cells_of(text, {"train.steps=400"})), std::vector<Index>{400});
}

TEST(OverridesBelowASweptKey, ReachKeysThatMoveTogetherAndLists) {
  const char* together = R"({"sweep": {"mixers,model": [[["linear", "vla"], {"d_h": 4}],
                                                        [[{"mixer": "vla"}], {"d_h": 8}]]}})";
  const auto of_every_mixer = cells_of(together, {"mixer.lambda_0=2", "model.n_heads=1"});
  ASSERT_EQ(of_every_mixer.size(), 3u);
  EXPECT_EQ(of_every_mixer[0].mixers[0].name(), "linear");
  EXPECT_EQ(of_every_mixer[1].mixers[0].get<VlaOptions>().lambda_0, 2.0);
  EXPECT_EQ(of_every_mixer[2].mixers[0].get<VlaOptions>().lambda_0, 2.0);
  for (const RunConfig& cell : of_every_mixer) EXPECT_EQ(cell.model.n_heads, 1);

  const auto of_one = cells_of(together, {"mixers.0.output_norm=true"});
  EXPECT_EQ(of_one[0].mixers[0].output_norm, true);
  EXPECT_EQ(of_one[1].mixers[0].output_norm, std::nullopt);
  EXPECT_EQ(of_one[2].mixers[0].output_norm, true);

  // An element of a list that has its default at the points.
  const auto timed = cells_of(R"({"experiment": "latency", "mixers": ["vla"],
                                  "sweep": {"latency": [{"batch": 1}, {"batch": 2}]}})",
                              {"latency.implementations.0=reference"});
  ASSERT_EQ(timed.size(), 2u);
  for (const RunConfig& cell : timed) {
    EXPECT_EQ(cell.latency.implementations, std::vector{Implementation::reference});
  }
}

TEST(OverridesBelowASweptKey, OfAMixerThatNoPointHasAreRefused) {
  const char* text = R"({"mixers": ["vla"], "sweep": {"mixers": [["linear"], ["softmax"]]}})";
  const std::string message = refusal(text, {"mixer.lambda_0=1"});
  EXPECT_NE(message.find("--set mixer.lambda_0=1: "), std::string::npos) << message;
  EXPECT_NE(message.find("a key of mixers vla, kalman"), std::string::npos) << message;
}

TEST(OverridesAboveASweptKey, KeepTheAxisUnlessTheyGiveIts) {
  const char* text = R"({"mixers": ["linear"], "sweep": {"train.steps": [400, 500]}})";
  const auto cells = cells_of(text, {R"(train={"lr": 0.5})"});
  EXPECT_EQ(steps_of(cells), (std::vector<Index>{400, 500}));
  for (const RunConfig& cell : cells) EXPECT_EQ(cell.train.lr, 0.5);
  const std::string message = refusal(text, {R"(train={"steps": 600})"});
  EXPECT_NE(message.find(R"(gives "train.steps", which is swept)"), std::string::npos) << message;

  const char* mixers = R"({"mixers": ["vla"], "sweep": {"mixer.output_norm": [true, false]}})";
  EXPECT_EQ(cells_of(mixers, {R"(mixers=["linear"])"}).size(), 2u);
  EXPECT_NE(refusal(mixers, {R"(mixers=["softmax", {"mixer": "linear", "output_norm": true}])"})
                .find(R"(gives "mixer.output_norm", which is swept)"),
            std::string::npos);
}

TEST(OverridesOfMixers, MeetASweepOverAllOrOneOfThem) {
  const char* one =
      R"({"mixers": ["vla", {"label": "b", "lambda_0": 1}], "sweep": {"mixers.0.period": [1, 2]}})";
  const auto cells = cells_of(one, {"mixer.period=5"});
  ASSERT_EQ(cells.size(), 2u) << "the axis goes";
  for (const RunConfig& cell : cells) EXPECT_EQ(cell.mixers[0].get<VlaOptions>().period, 5);

  const std::string all =
      refusal(R"({"mixers": ["vla"], "sweep": {"mixer.period": [1, 2]}})", {"mixers.0.period=5"});
  EXPECT_NE(all.find(R"(overlaps the sweep over "mixer.period")"), std::string::npos) << all;
  EXPECT_NE(refusal(R"({"mixers": ["vla"], "sweep": {"mixers.0": ["vla", "linear"]}})",
                    {"mixer.period=5"})
                .find(R"(overlaps the sweep over "mixers.0")"),
            std::string::npos);
}

// The axis would overwrite whatever was set before it.
TEST(Overrides, AnAxisOverWhatAnEarlierOneSetIsRefused) {
  const Overrides by_name = {"train.lr=0.5", "sweep.train.lr=[0.1,0.2]"};
  EXPECT_NE(refusal("{}", by_name).find("sweeps over what --set train.lr has set"),
            std::string::npos);
  const Overrides whole = {"train.lr=0.5", R"(sweep={"task.n_pairs,train": [[4, {}]]})"};
  EXPECT_NE(refusal("{}", whole).find("sweeps over what --set train.lr has set"),
            std::string::npos);
  // In the other order the override applies to the axis.
  const auto cells =
      cells_of(R"({"mixers": ["vla"]})", {"sweep.train.lr=[0.1,0.2]", "train.lr=0.5"});
  ASSERT_EQ(cells.size(), 1u);
  EXPECT_EQ(cells[0].train.lr, 0.5);
}

}  // namespace
}  // namespace vla_bench
