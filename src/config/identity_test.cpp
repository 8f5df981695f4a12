#include "config/identity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "config/read.h"

namespace vla_bench {
namespace {

RunConfig cell_of(std::string_view json, Device device = Device::cpu) {
  return expand_cells(parse_config(json, "x.json"), device).front().config;
}
std::string hash_of(std::string_view json) { return cell_hash(cell_of(json)); }

const char* const kVla = R"({"mixers": ["vla"]})";

TEST(Identity, NamesWhatIsNotAtItsDefault) {
  EXPECT_EQ(identity_text(cell_of(kVla)),
            "device=cpu\nexperiment=mqar\nmixer.mixer=vla\nseed=42\n");
  EXPECT_EQ(identity_text(cell_of(R"({"mixers": [{"mixer": "vla", "penalty": "frozen"}],
                                      "train": {"lr": 1e-3, "clip_norm": 2}, "seeds": [7],
                                      "task": {"n_pairs": 8}})")),
            "device=cpu\nexperiment=mqar\nmixer.mixer=vla\nmixer.penalty=frozen\nseed=7\n"
            "task.n_pairs=8\ntrain.clip_norm=2\ntrain.lr=0.001\n");
}

TEST(Identity, SegmentsAreInItWhereThereAreAny) {
  EXPECT_EQ(identity_text(cell_of(R"({"mixers": ["vla"], "task": {
                "train_segments": [{"n_pairs": 4, "seq_len": 64, "steps": 391},
                                   {"n_pairs": 8, "seq_len": 128, "steps": 79}],
                "eval_segments": [{"n_pairs": 8, "seq_len": 64}]}})")),
            "device=cpu\nexperiment=mqar\nmixer.mixer=vla\nseed=42\n"
            "task.eval_segments=[64/8]\ntask.train_segments=[64/4x391,128/8x79]\n");
  EXPECT_EQ(hash_of(R"({"mixers": ["vla"], "model": {"d_v": null},
                        "task": {"train_segments": [], "eval_segments": [],
                        "segment_order": "in_order"},
                        "train": {"lr_every": 1, "stop_accuracy": 0, "stop_every": 500}})"),
            hash_of(kVla));
}

TEST(Identity, IsWhatCanChangeTheResult) {
  const std::string base = hash_of(kVla);
  for (const char* same : {
           R"({"mixers": [{"mixer": "vla", "lambda_0": 0.1}]})",
           R"({"mixers": [{"mixer": "vla", "label": "another label"}]})",
           R"({"mixers": ["vla"], "name": "other", "threads": 2})",
           R"({"mixers": ["vla"], "device": "cpu"})",
           R"({"mixers": ["vla"], "train": {"log_every": 7, "checkpoint_every": 9}})",
           R"({"mixers": ["vla"], "task": {"seq_len": 73}})",  // 3 n + 1, as the default has it
           R"({"mixers": ["vla"], "recall": {"trials": 3}, "latency": {"batch": 1}})",
           R"({"task": {"n_pairs": 24}, "experiment": "mqar", "mixers": ["vla"]})",
       }) {
    EXPECT_EQ(hash_of(same), base) << same;
  }
  for (const char* other : {
           R"({"mixers": ["vla"], "seeds": [43]})",
           R"({"mixers": ["vla"], "train": {"lr": 1e-3}})",
           R"({"mixers": ["vla"], "task": {"seq_len": 74}})",
           R"({"mixers": ["linear"]})",
           R"({"mixers": ["vla"], "precision": "tf32"})",
           R"({"mixers": ["vla"], "experiment": "copy"})",
           R"({"mixers": ["vla"], "eval": {"batches": 21}})",
       }) {
    EXPECT_NE(hash_of(other), base) << other;
  }
  EXPECT_NE(cell_hash(cell_of(kVla, Device::cuda)), base);
}

TEST(Identity, ReadsTheSectionsOfItsExperiment) {
  const auto recall = [](const std::string& more) {
    return hash_of(R"({"experiment": "recall", "mixers": ["vla"])" + more + "}");
  };
  EXPECT_EQ(recall(R"(, "train": {"lr": 1}, "model": {"n_layers": 3}, "precision": "bf16")"),
            recall(""));
  EXPECT_NE(recall(R"(, "model": {"d_h": 16})"), recall(""));
  EXPECT_NE(recall(R"(, "recall": {"keys": "gaussian"})"), recall(""));
  const auto latency = [](const std::string& more) {
    return hash_of(R"({"experiment": "latency", "mixers": ["vla"])" + more + "}");
  };
  EXPECT_EQ(latency(R"(, "threads": 3, "task": {"n_pairs": 3})"), latency(""));
  EXPECT_NE(latency(R"(, "task": {"seq_len": 64})"), latency(""));
}

TEST(Identity, GroupsDifferInTheSeedOnly) {
  const auto group = [](const std::string& more) {
    return group_hash(cell_of(R"({"mixers": ["vla"])" + more + "}"));
  };
  EXPECT_EQ(group("").size(), 8u);
  EXPECT_EQ(group(R"(, "seeds": [1])"), group(R"(, "seeds": [2])"));
  EXPECT_NE(group(R"(, "train": {"lr": 1})"), group(""));
}

TEST(Identity, KeysTellTheirDefaults) {
  const auto keys = identity_keys(cell_of(R"({"mixers": ["vla"], "train": {"lr": 1e-3}})"));
  const auto find = [&](std::string_view name) {
    return *std::find_if(keys.begin(), keys.end(),
                         [&](const IdentityKey& key) { return key.key == name; });
  };
  EXPECT_EQ(find("train.lr").value, "0.001");
  EXPECT_FALSE(find("train.lr").is_default);
  EXPECT_EQ(find("train.batch").value, "64");
  EXPECT_TRUE(find("train.batch").is_default);
  EXPECT_EQ(find("task.seq_len").value, "73");
  EXPECT_TRUE(find("task.seq_len").is_default);
  EXPECT_EQ(find("mixer.u_scale").value, "null");
  // Newer than the committed tables: told only where it is not at its default.
  const auto has_segments = [](const RunConfig& cell) {
    const auto all = identity_keys(cell);
    return std::any_of(all.begin(), all.end(),
                       [](const IdentityKey& key) { return key.key == "task.eval_segments"; });
  };
  RunConfig cell = cell_of(kVla);
  EXPECT_FALSE(has_segments(cell));
  cell.task.eval_segments = {{.n_pairs = 4, .seq_len = 64}};
  EXPECT_TRUE(has_segments(cell));
}

}  // namespace
}  // namespace vla_bench
