#include "config/read.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "config/reader.h"
#include "core/error.h"
#include "experiments/list.h"
#include "testing/cells.h"

namespace vla_bench {
namespace {

using testing::refusal;

TEST(ParseConfig, EmptyObjectIsThePublishedProtocol) {
  const RunConfig config = parse_config("{}", "x.json");
  EXPECT_EQ(config.experiment, experiment_kind<Mqar>);
  EXPECT_EQ(config.name, "mqar");
  EXPECT_EQ(config.mixers.size(), 4u);
  EXPECT_EQ(config.model.d_model(), 128);
  EXPECT_EQ(config.train.steps, 3000);
  EXPECT_EQ(config.seeds, std::vector<Index>{42});
  EXPECT_EQ(sequence_length(config), 73);
}

TEST(ParseConfig, ReadsEveryKindOfValue) {
  const RunConfig config = parse_config(R"(// a comment
    {"$schema": "schema.json", "experiment": "latency", "name": "n",
     "mixers": ["linear", {"u_scale": 1, "mixer": "vla", "penalty": "key", "output_norm": false}],
     "model": {"d_h": 64.0}, /* integral */
     "task": {"seq_len": null, "random_filler": false},
     "latency": {"passes": ["backward"], "max_seconds": 1},
     "seeds": [0, 9223372036854775807], "device": "cpu", "precision": "bf16",
     "threads": 2})",
                                        "x.json");
  EXPECT_EQ(config.mixers[0].name(), "linear");
  EXPECT_EQ(config.mixers[1].get<VlaOptions>().u_scale, 1.0);
  EXPECT_EQ(config.mixers[1].output_norm, false);
  EXPECT_EQ(config.mixers[1].get<VlaOptions>().penalty, Penalty::key);
  EXPECT_EQ(config.model.d_h, 64);
  EXPECT_FALSE(config.task.seq_len.has_value());
  EXPECT_FALSE(config.task.random_filler);
  EXPECT_EQ(config.latency.passes, std::vector{LatencyPass::backward});
  EXPECT_EQ(config.seeds[1], INT64_MAX);
  EXPECT_EQ(config.device, DeviceRequest::cpu);
  EXPECT_EQ(config.precision, Precision::bf16);
}

TEST(ParseConfig, UnknownKeysNameTheNearest) {
  EXPECT_REFUSED(R"(x.json: /model/n_head: unknown key, did you mean "n_heads"?)",
                 R"({"model": {"n_head": 4}})");
  EXPECT_REFUSED(R"(x.json: /mixers/1/penalti: unknown key, did you mean "penalty"?)",
                 R"({"mixers": ["linear", {"mixer": "vla", "penalti": "key"}]})");
  EXPECT_REFUSED(R"(x.json: /task/lyaout: unknown key, did you mean "layout"?)",
                 R"({"task": {"lyaout": "paper"}})");
  EXPECT_REFUSED(R"(x.json: /lr: unknown key, did you mean "train.lr"?)", R"({"lr": 1})");
  EXPECT_REFUSED(R"(unknown key "lr", did you mean "train.lr"?)", "{}", {"lr=1"});
  EXPECT_REFUSED(R"(did you mean "train.batch" or "eval.batch" or "latency.batch"?)",
                 R"({"batch": 1})");
  EXPECT_REFUSED(R"(x.json: /mixer: unknown key, did you mean "mixers"?)", R"({"mixer": 1})");
  EXPECT_REFUSED(R"(x.json: /zzzzzzzzzzzzzzz: unknown key, did you mean ")",
                 R"({"zzzzzzzzzzzzzzz": 1})");
  EXPECT_REFUSED("/a~1b~0c: unknown key", R"({"a/b~c": 1})");
  EXPECT_REFUSED("/model/$schema: unknown key", R"({"model": {"$schema": "x"}})");
}

TEST(ParseConfig, WrongTypesSayWhatWasExpected) {
  EXPECT_REFUSED(R"(x.json: /train/steps: expected an integer from 1 to 2147483648, got "many")",
                 R"({"train": {"steps": "many"}})");
  EXPECT_REFUSED("/train/steps: expected an integer", R"({"train": {"steps": 1.5}})");
  EXPECT_REFUSED("/train/steps: expected an integer", R"({"train": {"steps": true}})");
  EXPECT_REFUSED("/train/lr: expected a finite number of at least 0, got null",
                 R"({"train": {"lr": null}})");
  EXPECT_REFUSED("/task/random_filler: expected true or false, got 1",
                 R"({"task": {"random_filler": 1}})");
  EXPECT_REFUSED("/model: expected an object, got 3", R"({"model": 3})");
  EXPECT_REFUSED("x.json: expected an object, got []", "[]");
  EXPECT_REFUSED("/name: expected a string, got 3", R"({"name": 3})");
  EXPECT_REFUSED("/mixers: expected a list", R"({"mixers": "vla"})");
  EXPECT_REFUSED("/mixers/0: expected a mixer's name or an object, got 1", R"({"mixers": [1]})");
  EXPECT_REFUSED(R"(got "vlaa", did you mean "vla"?)", R"({"mixers": ["vlaa"]})");
  EXPECT_REFUSED(R"(got "mqra", did you mean "mqar"?)", R"({"experiment": "mqra"})");
  EXPECT_REFUSED(R"(got "fp32", did you mean "float32"?)", R"({"precision": "fp32"})");
  EXPECT_REFUSED(R"(got "fp32", did you mean "float32"?)", "{}", {"precision=fp32"});
  EXPECT_REFUSED(R"(got "bfloat16", did you mean "bf16"?)", R"({"precision": "bfloat16"})");
  EXPECT_REFUSED("/sweep: expected an object", R"({"sweep": []})");
}

TEST(ParseConfig, NumbersOutOfRangeNameTheRange) {
  EXPECT_REFUSED("/model/d_h: expected an integer from 1 to 1024, got 0",
                 R"({"model": {"d_h": 0}})");
  EXPECT_REFUSED("/train/lr: expected a finite number of at least 0, got -1",
                 R"({"train": {"lr": -1}})");
  EXPECT_REFUSED("/seeds/0: expected an integer of at least 0, got -1", R"({"seeds": [-1]})");
  EXPECT_REFUSED("/seeds/0: expected an integer", R"({"seeds": [9223372036854775808]})");
  EXPECT_REFUSED("/seeds/0: expected an integer", R"({"seeds": [1e300]})");
  EXPECT_REFUSED("x.json: ", R"({"train": {"lr": 1e999}})");
  EXPECT_REFUSED("x.json: ", R"({"train": {"lr": NaN}})");
  EXPECT_REFUSED("x.json: ", R"({"train": {"lr": Infinity}})");
}

TEST(ParseConfig, EmptyAndRepeatedListsAreRefused) {
  EXPECT_REFUSED("/seeds: expected at least one element", R"({"seeds": []})");
  EXPECT_REFUSED("/mixers: expected at least one element", R"({"mixers": []})");
  EXPECT_REFUSED("/latency/passes: expected at least one", R"({"latency": {"passes": []}})");
  EXPECT_REFUSED("/sweep/model.d_h: expected a list of at least one value",
                 R"({"sweep": {"model.d_h": []}})");
  EXPECT_REFUSED("/sweep/model.d_h/2: 8 stands twice", R"({"sweep": {"model.d_h": [8, 4, 8]}})");
  EXPECT_REFUSED("/sweep/model.d_h,train.lr/1: expected a list of 2 values, one per key, got [4]",
                 R"({"sweep": {"model.d_h,train.lr": [[8, 0.1], [4]]}})");
  EXPECT_REFUSED("/sweep/model.d_h,train.lr/0/1: expected a finite number of at least 0",
                 R"({"sweep": {"model.d_h,train.lr": [[8, "fast"]]}})");
  EXPECT_REFUSED("/sweep/seeds,device: cannot be swept",
                 R"({"sweep": {"seeds,device": [[[1], "cpu"]]}})");
  EXPECT_REFUSED("unknown key \"\"", R"({"sweep": {"model.d_h,": [[8, 1]]}})");
  EXPECT_REFUSED("/seeds: 1 stands twice", R"({"seeds": [1, 2, 1]})");
}

TEST(ParseConfig, HostileTextIsRefused) {
  EXPECT_REFUSED("x.json: ", "");
  EXPECT_REFUSED("line 1", R"({"model": )");
  EXPECT_REFUSED(R"(key "name" stands twice)", R"({"name": "a", "name": "b"})");
  EXPECT_REFUSED(R"(key "d_h" stands twice)", R"({"model": {"d_h": 1, "d_h": 1}})");
  EXPECT_REFUSED("nested deeper", std::string(100000, '['));
  std::string objects;
  for (int i = 0; i < 10000; ++i) objects += "{\"a\":";
  EXPECT_REFUSED("nested deeper", objects);
  EXPECT_REFUSED("larger than 1 MiB", std::string((1 << 20) + 1, ' '));
  std::string keys = "{";
  for (int i = 0; i < 2000; ++i) keys += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_REFUSED("more than 1000 keys", keys + "\"end\":0}");
  EXPECT_REFUSED("x.json: ", "{\"name\": \"\xff\"}");
}

TEST(ParseConfig, KeysOfOtherMixersAreRefused) {
  EXPECT_REFUSED("/mixers/0/penalty: a key of mixer vla; softmax does not have it",
                 R"({"mixers": [{"mixer": "softmax", "penalty": "key"}]})");
  EXPECT_REFUSED("/mixers/0/variant: a key of mixer deltanet; vla does not have it",
                 R"({"mixers": [{"variant": "standard", "mixer": "vla"}]})");
  // The override changes the mixer after its key was read.
  EXPECT_REFUSED(
      "--set mixers.0.mixer=linear: /penalty: a key of mixer vla; linear does not have it",
      R"({"mixers": [{"mixer": "vla", "penalty": "key"}]})", {"mixers.0.mixer=linear"});
}

struct OneMixer {
  static constexpr std::string_view name = "one";
  Index period = 1;

  template <class V>
  void visit(V& v) {
    v.field("period", period, {});
  }
};
struct OtherMixer {
  static constexpr std::string_view name = "other";
  double period = 0.5;
  bool gate = false;

  template <class V>
  void visit(V& v) {
    v.field("period", period, {});
    v.field("gate", gate, {});
  }
};
TEST(ParseConfig, AKeyMayBelongToSeveralMixers) {
  using List = TypeList<OneMixer, OtherMixer>;
  EXPECT_EQ(whose_key<List>("period"), "a key of mixers one, other");
  EXPECT_EQ(whose_key<List>("gate"), "a key of mixer other");
  EXPECT_EQ(whose_key<List>("label"), "");
}

TEST(ParseConfig, LabelsAreDistinct) {
  EXPECT_REFUSED(R"(/mixers/1: label "vla" is taken)", R"({"mixers": ["vla", "vla"]})");
  EXPECT_REFUSED(R"(/mixers/1: label "vla" is taken)",
                 R"({"mixers": ["vla", {"mixer": "linear", "label": "vla"}]})");
  EXPECT_REFUSED("/mixers/0/label", R"({"mixers": [{"label": "a\nb"}]})");
  MixerConfig mixer{.options = VlaOptions{}};
  EXPECT_EQ(mixer_label(mixer), "vla");
  mixer.options = VlaOptions{.penalty = Penalty::frozen, .lambda_0 = 0.5};
  EXPECT_EQ(mixer_label(mixer), "vla penalty=frozen lambda_0=0.5");
  mixer.label = "VLA, frozen A";
  EXPECT_EQ(mixer_label(mixer), "VLA, frozen A");
}

TEST(ParseConfig, NamesArePlainFolderNames) {
  for (const char* name : {"a/b", "..", ".", "a\\\\b", "a\\u0000b", "a\\nb"}) {
    EXPECT_REFUSED("/name: expected a plain folder name",
                   std::string(R"({"name": ")") + name + "\"}");
  }
  EXPECT_REFUSED("/name", R"({"name": ")" + std::string(300, 'a') + "\"}");
  EXPECT_EQ(refusal(R"({"name": "my run-1.2"})"), "");
}

TEST(Validate, PaperLayoutFitsVocabularyAndSequence) {
  EXPECT_EQ(refusal(R"({"task": {"n_pairs": 127}})"), "");
  EXPECT_REFUSED(
      "/task/n_pairs: 128 distinct keys and a separator need model.vocab_size of at least 129",
      R"({"task": {"n_pairs": 128}})");
  EXPECT_EQ(refusal(R"({"task": {"n_pairs": 8, "seq_len": 18}})"), "");
  EXPECT_REFUSED("/task/seq_len: 8 pairs, the separator and a query need at least 18 tokens",
                 R"({"task": {"n_pairs": 8, "seq_len": 17}})");
  EXPECT_REFUSED("/task/seq_len: 73 tokens exceed model.max_seq_len of 72",
                 R"({"model": {"max_seq_len": 72}})");
}

TEST(Validate, LayersAreOneKindEach) {
  EXPECT_EQ(refusal(R"({"model": {"layers": []}})"), "");
  EXPECT_EQ(refusal(R"({"model": {"layers": ["gated_conv", "mixer"]}})"), "");
  EXPECT_REFUSED(
      "/model/layers: expected one kind for each of model.n_layers (2) layers or an "
      "empty list, got 3",
      R"({"model": {"layers": ["gated_conv", "mixer", "mixer"]}})");
  EXPECT_REFUSED("/model/layers: expected at least one layer to be \"mixer\"",
                 R"({"model": {"layers": ["gated_conv", "gated_conv"]}})");
  EXPECT_REFUSED("/model/layers/1", R"({"model": {"layers": ["gated_conv", "conv"]}})");
  // Other lists have at least one element.
  EXPECT_REFUSED("/seeds: expected at least one element", R"({"seeds": []})");
}

TEST(Validate, ValuesAreAMultipleOfKeysWhereTheMixerTakesThem) {
  const auto of = [](const std::string& mixer, const std::string& d_v) {
    return R"({"mixers": [)" + mixer + R"(], "model": {"d_h": 16, "d_v": )" + d_v + "}}";
  };
  for (const char* mixer :
       {R"("linear")", R"({"mixer": "deltanet", "variant": "standard"})", R"("retention")",
        R"("mamba2")", R"("gla")", R"("gated_deltanet")", R"("kda")",
        R"("preconditioned_gated_deltanet")", R"("mesa")", R"("vla")", R"("kalman")"}) {
    EXPECT_EQ(refusal(of(mixer, "32")), "");
  }
  for (const char* mixer : {R"("softmax")", R"("deltanet")", R"("based")"}) {
    EXPECT_EQ(refusal(of(mixer, "16")), "");
    EXPECT_EQ(refusal(of(mixer, "null")), "");
    EXPECT_REFUSED("/model/d_v: expected null or model.d_h (16) for the mixer ", of(mixer, "32"));
  }
  EXPECT_REFUSED("/model/d_v: expected a multiple of model.d_h (16), got 24",
                 of(R"("linear")", "24"));
  EXPECT_REFUSED("/model/d_v: expected a multiple of model.d_h (16), got 8",
                 of(R"("linear")", "8"));
  EXPECT_REFUSED("/model/d_v", of(R"("linear")", "0"));
  EXPECT_REFUSED("/model/d_v", of(R"("linear")", "\"wide\""));
}

TEST(Validate, WithoutPositionsAnyLengthFits) {
  EXPECT_EQ(refusal(R"({"model": {"max_seq_len": 72, "positions": false}})"), "");
}

TEST(Validate, ZoologyLayoutFitsHalvesAndSequence) {
  EXPECT_EQ(refusal(R"({"task": {"layout": "zoology", "n_pairs": 63}})"), "");
  EXPECT_REFUSED("/task/n_pairs: 64 distinct keys from the lower half",
                 R"({"task": {"layout": "zoology", "n_pairs": 64}})");
  EXPECT_REFUSED("/task/seq_len: the zoology layout",
                 R"({"task": {"layout": "zoology", "n_pairs": 8, "seq_len": 33}})");
  EXPECT_REFUSED("/task/seq_len: the zoology layout",
                 R"({"task": {"layout": "zoology", "n_pairs": 8, "seq_len": 30}})");
}

TEST(Validate, PassesAndRewritesFitVocabularyAndSequence) {
  EXPECT_EQ(refusal(R"({"task": {"n_pairs": 8, "passes": 2, "rewrites": 8, "seq_len": 50}})"), "");
  EXPECT_REFUSED(
      "/task/seq_len: 8 pairs in 2 passes with 8 rewrites, the separator and a query "
      "need at least 50 tokens, got 49",
      R"({"task": {"n_pairs": 8, "passes": 2, "rewrites": 8, "seq_len": 49}})");
  EXPECT_REFUSED("/task/rewrites: at most the 8 of /task/n_pairs, got 9",
                 R"({"task": {"n_pairs": 8, "rewrites": 9}})");
  EXPECT_REFUSED(
      "/task/rewrites: 65 distinct values from the upper half of the vocabulary need "
      "model.vocab_size of at least 129, got 128",
      R"({"task": {"layout": "zoology", "n_pairs": 40, "rewrites": 25}})");
  EXPECT_REFUSED(
      "/task/seq_len: the zoology layout of 8 pairs in 3 passes needs an even number of "
      "at least 64 tokens, got 62",
      R"({"task": {"layout": "zoology", "n_pairs": 8, "passes": 3, "seq_len": 62}})");
}

TEST(Validate, OtherExperiments) {
  EXPECT_REFUSED("at least 3 tokens", R"({"experiment": "copy", "task": {"seq_len": 2}})");
  EXPECT_EQ(sequence_length(parse_config(R"({"experiment": "copy"})", "x.json")), 63);
  EXPECT_REFUSED("/train/warmup: at most train.steps (10), got 300", R"({"train": {"steps": 10}})");
  EXPECT_REFUSED("/task/curriculum: at most train.steps (3000), got 3001",
                 R"({"task": {"curriculum": 3001}})");
  EXPECT_REFUSED("/task/curriculum: only the paper layout of mqar has one, got 5",
                 R"({"task": {"curriculum": 5, "layout": "zoology"}})");
  EXPECT_REFUSED("/task/curriculum: only the paper layout of mqar has one, got 5",
                 R"({"experiment": "copy", "task": {"curriculum": 5}})");
  EXPECT_REFUSED("exceed model.max_seq_len",
                 R"({"experiment": "state_norm", "task": {"seq_len": 5000}})");
  EXPECT_EQ(refusal(R"({"experiment": "state_norm", "probe": {"source": "gaussian"},
                        "task": {"seq_len": 1000000}})"),
            "");
  EXPECT_EQ(refusal(R"({"experiment": "latency", "task": {"seq_len": 1000000}})"), "");
  EXPECT_EQ(refusal(R"({"experiment": "recall", "task": {"n_pairs": 100000}})"), "");
  EXPECT_REFUSED("/latency/min_repeats",
                 R"({"experiment": "latency", "latency": {"min_repeats": 9, "max_repeats": 3}})");
}

// A pass timed twice would occur twice in the table and count twice in its fit.
TEST(Validate, NothingIsTimedTwice) {
  EXPECT_REFUSED("/latency/passes: forward stands twice",
                 R"({"experiment": "latency", "latency": {"passes": ["forward", "backward",
                                                                     "forward"]}})");
  EXPECT_REFUSED("/latency/implementations: production stands twice",
                 R"({"experiment": "latency",
                     "latency": {"implementations": ["production", "production"]}})");
  EXPECT_EQ(refusal(R"({"experiment": "latency", "latency": {"passes": ["backward", "forward"],
                        "implementations": ["reference", "production"]}})"),
            "");
}

TEST(Validate, EverySweepPointIsChecked) {
  EXPECT_REFUSED("x.json: at n_pairs=200: /task/n_pairs: 200 distinct keys",
                 R"({"sweep": {"task.n_pairs": [4, 200]}})");
  // The base value is invalid, but no point uses it.
  EXPECT_EQ(refusal(R"({"model": {"vocab_size": 8}, "sweep": {"task.n_pairs": [2, 4]}})"), "");
}

TEST(Overrides, SetAnyKey) {
  const std::vector<std::string> overrides = {
      "train.lr=0.01", "name=trial 1",           "mixers.0.penalty=frozen",
      "seeds=[1,2]",   "sweep.model.d_h=[8]",    "task.seq_len=80",
      "seeds.1=7",     "mixer.output_norm=true", "latency={\"batch\":1}"};
  const RunConfig config = parse_config(
      R"({"mixers": ["vla", "linear"], "latency": {"warmup": 9}})", "x.json", overrides);
  EXPECT_EQ(config.train.lr, 0.01);
  EXPECT_EQ(config.name, "trial 1");
  EXPECT_EQ(config.mixers[0].get<VlaOptions>().penalty, Penalty::frozen);
  EXPECT_EQ(config.seeds, (std::vector<Index>{1, 7}));
  ASSERT_EQ(config.sweep.size(), 1u);
  EXPECT_EQ(config.sweep[0].key, "model.d_h");
  EXPECT_EQ(config.task.seq_len, 80);
  EXPECT_EQ(config.mixers[1].output_norm, true);
  EXPECT_EQ(config.latency.batch, 1);
  EXPECT_EQ(config.latency.warmup, LatencyConfig{}.warmup) << "a whole struct is replaced";
}

TEST(Overrides, ReplaceTheAxisOfASweptKey) {
  const std::vector<std::string> overrides = {"task.n_pairs=8"};
  const RunConfig config = parse_config(R"({"sweep": {"task.n_pairs": [4, 16], "model.d_h": [8]}})",
                                        "x.json", overrides);
  ASSERT_EQ(config.sweep.size(), 1u);
  EXPECT_EQ(config.sweep[0].key, "model.d_h");
  EXPECT_EQ(config.task.n_pairs, 8);
}

TEST(Overrides, TakeAKeyOutOfAnAxisOfSeveral) {
  const char* text = R"({"sweep": {"train.lr,task.n_pairs": [[1e-3, 4], [1e-2, 4], [1e-2, 8]]}})";
  const RunConfig config = parse_config(text, "x.json", std::vector<std::string>{"train.lr=0.1"});
  ASSERT_EQ(config.sweep.size(), 1u);
  EXPECT_EQ(config.sweep[0].key, "task.n_pairs");
  EXPECT_EQ(config.sweep[0].values, (std::vector<std::string>{"4", "8"})) << "each once";
  EXPECT_EQ(config.train.lr, 0.1);
}

TEST(Overrides, MistakesNameTheArgument) {
  EXPECT_REFUSED(R"(--set modl.d_h=3: unknown key "modl", did you mean "model"?)", "{}",
                 {"modl.d_h=3"});
  EXPECT_REFUSED(R"(--set model.dh=3: unknown key "dh", did you mean "d_h"?)", "{}",
                 {"model.dh=3"});
  EXPECT_REFUSED("--set train.lr=fast: expected a finite number", "{}", {"train.lr=fast"});
  EXPECT_REFUSED("--set train.lr: expected key.path=JSON", "{}", {"train.lr"});
  EXPECT_REFUSED("expected key.path=JSON", "{}", {"=3"});
  EXPECT_REFUSED(R"("mixers" has elements 0 to 3, no "4")", "{}", {"mixers.4.penalty=key"});
  EXPECT_REFUSED(R"(no "x")", "{}", {"mixers.x.penalty=key"});
  EXPECT_REFUSED(R"("penalty" is a key of mixer vla; softmax does not have it)", "{}",
                 {"mixers.0.penalty=key"});
  EXPECT_REFUSED(R"("lr" has no keys of its own)", "{}", {"train.lr.x=1"});
  EXPECT_REFUSED("neither JSON nor valid UTF-8", "{}", {"name=\xff"});
  EXPECT_REFUSED("stands twice", "{}", {R"(model={"d_h":1,"d_h":2})"});
  EXPECT_REFUSED("unknown key", "{}", {"model..d_h=1"});
  EXPECT_REFUSED("is a key of mixers vla, kalman, and this config has none",
                 R"({"mixers": ["linear"]})", {"mixer.lambda_0=1"});
}

TEST(DumpConfig, RoundTrips) {
  const char* text = R"({"experiment": "recall", "name": "r",
    "mixers": ["softmax", {"mixer": "vla", "u_scale": 0.1, "label": "q\"\\"},
               {"mixer": "deltanet", "variant": "standard"}],
    "task": {"power_a": 0.30000000000000004}, "train": {"lr": 1e-7},
    "sweep": {"task.n_pairs": [4, 8], "recall.keys": ["feature", "gaussian"],
              "mixer.lambda_0": [0.1, 1e-3], "task.seq_len": [null, 16]}})";
  const std::string dump = dump_config(parse_config(text, "x.json"));
  const RunConfig again = parse_config(dump, "dump");
  EXPECT_EQ(dump_config(again), dump);
  EXPECT_EQ(again.task.power_a, 0.30000000000000004);
  EXPECT_EQ(again.mixers[1].label, "q\"\\");
  EXPECT_EQ(again.sweep[1].values[1], "\"gaussian\"");
}

TEST(ParseConfig, RefusesWhatFollowsANul) {
  EXPECT_REFUSED("NUL at byte 2", std::string_view("{}\0 and more", 12), {});
}

TEST(ReadConfig, StopsAtTheLimitOfFilesWithoutAnEnd) {
  try {
    read_config("/dev/zero", {});
    FAIL() << "accepted";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/zero: larger than"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace vla_bench
