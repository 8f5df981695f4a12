#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/curriculum.h"
#include "config/read.h"
#include "ops/ops.h"
#include "tasks/batch.h"
#include "tasks/query_slots.h"

namespace vla_bench {
namespace {

Batch batch_of(const char* json, Index rows, RngStream stream = RngStream::train_batch,
               Index index = 0) {
  Batch batch;
  make_batch(parse_config(json, "test"), stream, index, rows, batch);
  return batch;
}

std::vector<std::int32_t> input_row(const Batch& batch, Index b) {
  return {batch.inputs.data() + b * batch.tokens, batch.inputs.data() + (b + 1) * batch.tokens};
}
std::vector<std::int32_t> target_row(const Batch& batch, Index b) {
  return {batch.targets.data() + b * batch.tokens, batch.targets.data() + (b + 1) * batch.tokens};
}

/// Key -> value of a row that begins with n pairs; checks that keys are distinct.
std::map<std::int32_t, std::int32_t> pairs_of(const std::vector<std::int32_t>& inputs,
                                              std::size_t n) {
  std::map<std::int32_t, std::int32_t> pairs;
  for (std::size_t i = 0; i < n; ++i) pairs[inputs[2 * i]] = inputs[2 * i + 1];
  EXPECT_EQ(pairs.size(), n) << "keys repeat";
  return pairs;
}

TEST(MqarPaper, RowsFollowTheLayout) {
  const Batch batch = batch_of(R"({"task": {"n_pairs": 8}})", 50);
  ASSERT_EQ(batch.tokens, 25);
  for (Index b = 0; b < batch.batch; ++b) {
    const auto inputs = input_row(batch, b);
    const auto targets = target_row(batch, b);
    const auto pairs = pairs_of(inputs, 8);
    EXPECT_EQ(inputs[16], 127);
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      if (t <= 16) {
        EXPECT_EQ(targets[t], kIgnoreTarget);
      } else {
        ASSERT_TRUE(pairs.contains(inputs[t]));
        EXPECT_EQ(targets[t], pairs.at(inputs[t]));
      }
      if (t != 16) {
        EXPECT_GE(inputs[t], 0);
        EXPECT_LE(inputs[t], 126);
      }
    }
  }
}

TEST(MqarPaper, LongerSequencesHoldMoreQueries) {
  const Batch batch = batch_of(R"({"task": {"n_pairs": 8, "seq_len": 512}})", 1);
  EXPECT_EQ(batch.tokens, 512);
  const auto targets = target_row(batch, 0);
  EXPECT_EQ(std::count(targets.begin(), targets.end(), kIgnoreTarget), 17);
}

TEST(MqarPaper, ACurriculumGrowsFromOnePairToAll) {
  EXPECT_EQ(distinct_pairs(24, 0, 0), 24) << "none";
  EXPECT_EQ(distinct_pairs(24, 100, 0), 1);
  EXPECT_EQ(distinct_pairs(24, 100, 99), 23);
  EXPECT_EQ(distinct_pairs(24, 100, 100), 24);
  EXPECT_EQ(distinct_pairs(1 << 20, Index{1} << 31, (Index{1} << 31) - 1), (1 << 20) - 1);
  for (Index step = 1; step <= 100; ++step) {
    const std::int32_t growth = distinct_pairs(24, 100, step) - distinct_pairs(24, 100, step - 1);
    EXPECT_TRUE(growth == 0 || growth == 1) << step;
  }
}

TEST(MqarPaper, ACurriculumRepeatsPairsAndKeepsTheShape) {
  const RunConfig config = parse_config(R"({"task": {"n_pairs": 8, "curriculum": 100}})", "x.json");
  const RunConfig plain = parse_config(R"({"task": {"n_pairs": 8}})", "x.json");
  Batch batch, whole;
  make_batch(config, RngStream::train_batch, 30, 5, batch);
  make_batch(plain, RngStream::train_batch, 30, 5, whole);
  ASSERT_EQ(batch.tokens, whole.tokens);
  EXPECT_EQ(batch.target_rows.size(), whole.target_rows.size());
  const auto distinct = static_cast<std::size_t>(distinct_pairs(8, 100, 30));
  ASSERT_EQ(distinct, 3u);
  for (Index b = 0; b < batch.batch; ++b) {
    const auto inputs = input_row(batch, b);
    const auto targets = target_row(batch, b);
    const auto pairs = pairs_of(inputs, distinct);
    for (std::size_t i = 2 * distinct; i < 16; ++i) EXPECT_EQ(inputs[i], inputs[i - 2 * distinct]);
    EXPECT_EQ(inputs[16], 127);
    for (std::size_t t = 17; t < inputs.size(); ++t) EXPECT_EQ(targets[t], pairs.at(inputs[t]));
  }
  // After the curriculum, and in the evaluation, the task is the one without it.
  for (const auto& [stream, index] : {std::pair(RngStream::train_batch, Index{100}),
                                      std::pair(RngStream::eval_batch, Index{0})}) {
    make_batch(config, stream, index, 5, batch);
    make_batch(plain, stream, index, 5, whole);
    for (Index b = 0; b < 5; ++b) EXPECT_EQ(input_row(batch, b), input_row(whole, b));
  }
}

/// The rewrites of a row that begins with `written` tokens of pairs, as key -> value; checks that
/// their keys are distinct keys of pairs.
std::map<std::int32_t, std::int32_t> rewrites_of(
    const std::vector<std::int32_t>& inputs, std::size_t first, std::size_t count,
    const std::map<std::int32_t, std::int32_t>& pairs) {
  std::map<std::int32_t, std::int32_t> rewrites;
  for (std::size_t t = first; t < first + 2 * count; t += 2) {
    EXPECT_TRUE(pairs.contains(inputs[t])) << "not a pair's key at " << t;
    EXPECT_TRUE(rewrites.emplace(inputs[t], inputs[t + 1]).second) << "key repeats at " << t;
  }
  return rewrites;
}

/// Checks that the first n pairs stand there `passes` times.
void expect_passes(const std::vector<std::int32_t>& inputs, std::size_t n, std::size_t passes) {
  for (std::size_t t = 2 * n; t < 2 * n * passes; ++t) EXPECT_EQ(inputs[t], inputs[t % (2 * n)]);
}

TEST(MqarPaper, PassesRepeatThePairsAndTheLastValueIsTheTarget) {
  const Batch batch = batch_of(R"({"task": {"n_pairs": 8, "passes": 3, "rewrites": 5}})", 50);
  ASSERT_EQ(batch.tokens, 48 + 10 + 1 + 8);
  EXPECT_EQ(batch.target_rows.size(), 50 * 8);
  Index changed = 0, asked_again = 0;
  for (Index b = 0; b < batch.batch; ++b) {
    const auto inputs = input_row(batch, b);
    const auto targets = target_row(batch, b);
    const auto pairs = pairs_of(inputs, 8);
    expect_passes(inputs, 8, 3);
    const auto rewrites = rewrites_of(inputs, 48, 5, pairs);
    EXPECT_EQ(inputs[58], 127);
    for (std::size_t t = 0; t <= 58; ++t) EXPECT_EQ(targets[t], kIgnoreTarget);
    for (std::size_t t = 59; t < inputs.size(); ++t) {
      const bool again = rewrites.contains(inputs[t]);
      asked_again += again ? 1 : 0;
      EXPECT_EQ(targets[t], again ? rewrites.at(inputs[t]) : pairs.at(inputs[t]));
    }
    for (const auto& [key, value] : rewrites) {
      EXPECT_LE(value, 126);
      changed += value != pairs.at(key) ? 1 : 0;
    }
  }
  EXPECT_GT(changed, 240) << "of 250 values, drawn from 127";
  EXPECT_NEAR(static_cast<double>(asked_again), 250.0, 49.0) << "5 deviations of 400 draws at 5/8";
}

// Fewer distinct pairs than rewrites: these repeat as well, and the shape stays.
TEST(MqarPaper, ACurriculumRepeatsRewrites) {
  const Batch batch =
      batch_of(R"({"task": {"n_pairs": 8, "passes": 2, "rewrites": 6, "curriculum": 100}})", 5,
               RngStream::train_batch, 30);
  ASSERT_EQ(batch.tokens, 32 + 12 + 1 + 8);
  for (Index b = 0; b < batch.batch; ++b) {
    const auto inputs = input_row(batch, b);
    const auto targets = target_row(batch, b);
    const auto pairs = pairs_of(inputs, 3);
    const auto rewrites = rewrites_of(inputs, 32, 3, pairs);
    EXPECT_EQ(rewrites.size(), 3u);
    for (std::size_t t = 38; t < 44; ++t) EXPECT_EQ(inputs[t], inputs[t - 6]);
    EXPECT_EQ(inputs[44], 127);
    for (std::size_t t = 45; t < inputs.size(); ++t) EXPECT_EQ(targets[t], rewrites.at(inputs[t]));
  }
}

TEST(MqarPaper, FullVocabularyOfKeysIsAPermutation) {
  const Batch batch = batch_of(R"({"task": {"n_pairs": 127}})", 2);
  EXPECT_EQ(pairs_of(input_row(batch, 0), 127).size(), 127u);
  EXPECT_NE(input_row(batch, 0), input_row(batch, 1));
}

// Over N draws the count of an outcome of probability p has standard deviation sqrt(N p (1 - p)).
// Draws are fixed by the seed, so 5 deviations is a fixed check that a biased draw fails.
void expect_uniform(const std::vector<Index>& counts, Index draws) {
  const double p = 1.0 / static_cast<double>(counts.size());
  const auto n = static_cast<double>(draws);
  for (const Index count : counts) {
    EXPECT_NEAR(static_cast<double>(count), n * p, 5.0 * std::sqrt(n * p * (1.0 - p)));
  }
}

TEST(MqarPaper, KeysValuesAndQueriesAreUniform) {
  constexpr Index kRows = 20000;
  const Batch batch = batch_of(R"({"model": {"vocab_size": 9}, "task": {"n_pairs": 4}})", kRows);
  std::vector<Index> first_key(8), last_key(8), value(8), query(4);
  for (Index b = 0; b < kRows; ++b) {
    const auto inputs = input_row(batch, b);
    ++first_key[static_cast<std::size_t>(inputs[0])];
    ++last_key[static_cast<std::size_t>(inputs[6])];
    ++value[static_cast<std::size_t>(inputs[7])];
    for (std::size_t i = 0; i < 4; ++i) query[i] += inputs[12] == inputs[2 * i] ? 1 : 0;
  }
  expect_uniform(first_key, kRows);
  expect_uniform(last_key, kRows);
  expect_uniform(value, kRows);
  expect_uniform(query, kRows);
}

TEST(MqarPaper, RewrittenKeysAndTheirValuesAreUniform) {
  constexpr Index kRows = 20000;
  const Batch batch =
      batch_of(R"({"model": {"vocab_size": 9}, "task": {"n_pairs": 4, "rewrites": 2}})", kRows);
  std::vector<Index> first(4), second(4), value(8);
  for (Index b = 0; b < kRows; ++b) {
    const auto inputs = input_row(batch, b);
    for (std::size_t i = 0; i < 4; ++i) {
      first[i] += inputs[8] == inputs[2 * i] ? 1 : 0;
      second[i] += inputs[10] == inputs[2 * i] ? 1 : 0;
    }
    ++value[static_cast<std::size_t>(inputs[11])];
  }
  expect_uniform(first, kRows);
  expect_uniform(second, kRows);
  expect_uniform(value, kRows);
}

TEST(MqarZoology, RowsFollowTheLayout) {
  struct Case {
    const char* keys;
    std::int32_t least, most;  // of fillers
  };
  for (const Case& filler :
       {Case{R"("random_filler": true)", 0, 127}, Case{R"("random_filler": false)", 0, 0},
        Case{R"("random_filler": false, "filler_values": true)", 0, 0},
        Case{R"("filler_values": true)", 64, 127}}) {
    const std::string json =
        std::string(R"({"task": {"layout": "zoology", "n_pairs": 8, "seq_len": 64, )") +
        filler.keys + "}}";
    const Batch batch = batch_of(json.c_str(), 50);
    ASSERT_EQ(batch.tokens, 64);
    Index fillers = 0;
    std::set<std::int32_t> seen;
    for (Index b = 0; b < batch.batch; ++b) {
      const auto inputs = input_row(batch, b);
      const auto targets = target_row(batch, b);
      const auto pairs = pairs_of(inputs, 8);
      std::set<std::int32_t> values, queried;
      for (const auto& [key, value] : pairs) {
        EXPECT_GE(key, 1);
        EXPECT_LT(key, 64);
        EXPECT_GE(value, 64);
        EXPECT_LT(value, 128);
        values.insert(value);
      }
      EXPECT_EQ(values.size(), 8u) << "values repeat";
      for (std::size_t t = 0; t < inputs.size(); ++t) {
        if (targets[t] == kIgnoreTarget) {
          if (t < 16) continue;
          ++fillers;
          seen.insert(inputs[t]);
          continue;
        }
        EXPECT_GE(t, 16u);
        EXPECT_EQ(t % 2, 0u) << "queries stand at even offsets";
        ASSERT_TRUE(pairs.contains(inputs[t]));
        EXPECT_EQ(targets[t], pairs.at(inputs[t]));
        EXPECT_TRUE(queried.insert(inputs[t]).second) << "each key is queried once";
      }
      EXPECT_EQ(queried.size(), 8u);
    }
    // 2,000 of at most 128 tokens: all of them.
    EXPECT_EQ(fillers, 50 * (48 - 8));
    EXPECT_EQ(*seen.begin(), filler.least);
    EXPECT_EQ(*seen.rbegin(), filler.most);
    EXPECT_EQ(static_cast<std::int32_t>(seen.size()), filler.most - filler.least + 1);
  }
}

TEST(MqarZoology, ShortestSequenceFillsEverySlot) {
  const Batch batch = batch_of(R"({"task": {"layout": "zoology", "n_pairs": 63}})", 1);
  ASSERT_EQ(batch.tokens, 252);
  const auto targets = target_row(batch, 0);
  for (std::size_t t = 126; t < 252; ++t) EXPECT_EQ(targets[t] != kIgnoreTarget, t % 2 == 0);
}

TEST(MqarZoology, PassesAndRewritesPrecedeTheQueries) {
  for (const char* length : {"null", "90"}) {
    const std::string json = std::string(R"({"model": {"vocab_size": 27}, "task": {"layout":
        "zoology", "n_pairs": 8, "passes": 3, "rewrites": 6, "seq_len": )") +
                             length + "}}";
    const Batch batch = batch_of(json.c_str(), 50);
    ASSERT_EQ(batch.tokens, std::string(length) == "null" ? 60 + 16 : 90);
    for (Index b = 0; b < batch.batch; ++b) {
      const auto inputs = input_row(batch, b);
      const auto targets = target_row(batch, b);
      const auto pairs = pairs_of(inputs, 8);
      expect_passes(inputs, 8, 3);
      auto last = rewrites_of(inputs, 48, 6, pairs);
      std::set<std::int32_t> values;
      for (const auto& of : {pairs, last}) {
        for (const auto& [key, value] : of) {
          EXPECT_TRUE(13 <= value && value <= 26) << value;
          EXPECT_TRUE(values.insert(value).second) << "values repeat";
        }
      }
      EXPECT_EQ(last.size(), 6u);
      last.insert(pairs.begin(), pairs.end());  // keeps the rewritten ones
      std::set<std::int32_t> queried;
      for (std::size_t t = 0; t < inputs.size(); ++t) {
        if (targets[t] == kIgnoreTarget) continue;
        EXPECT_GE(t, 60u);
        EXPECT_EQ(t % 2, 0u);
        EXPECT_EQ(targets[t], last.at(inputs[t]));
        EXPECT_TRUE(queried.insert(inputs[t]).second);
      }
      EXPECT_EQ(queried.size(), 8u);
    }
  }
}

TEST(MqarZoology, GapsFollowThePowerLaw) {
  constexpr Index kRows = 20000;
  // With one pair the draw without replacement is a single draw; 9 slots.
  const Batch batch = batch_of(
      R"({"task": {"layout": "zoology", "n_pairs": 1, "seq_len": 20, "power_a": 0.01}})", kRows);
  std::vector<double> expected(9);
  double sum = 0.0;
  for (std::size_t g = 0; g < 9; ++g) {
    expected[g] = std::pow(static_cast<double>(g + 1), 0.01 - 1.0);
    sum += expected[g];
  }
  std::vector<Index> counts(9);
  for (Index b = 0; b < kRows; ++b) {
    const auto targets = target_row(batch, b);
    for (std::size_t g = 0; g < 9; ++g) counts[g] += targets[2 + 2 * g] != kIgnoreTarget ? 1 : 0;
  }
  for (std::size_t g = 0; g < 9; ++g) {
    const double p = expected[g] / sum;
    EXPECT_NEAR(static_cast<double>(counts[g]), kRows * p, 5.0 * std::sqrt(kRows * p * (1.0 - p)))
        << "slot " << g;
  }
}

TEST(QuerySlots, WeightsStayPositiveAndFitIn32Bits) {
  for (const double power_a : {1e-6, 0.01, 1.0, 3.0, 1e6}) {
    for (const std::int32_t count : {1, 2, 7, 100000}) {
      const QuerySlotTable table(count, power_a);
      const QuerySlots slots = table.view();
      std::uint64_t sum = 0;
      for (std::int32_t g = 0; g < count; ++g) {
        ASSERT_GE(slots.weights[g], 1u);
        sum += slots.weights[g];
      }
      EXPECT_EQ(sum, slots.total) << "a = " << power_a << ", " << count << " slots";
    }
  }
}

TEST(QuerySlots, TakeFindsTheSlotOfEveryRunningSum) {
  const std::uint32_t weights[] = {3, 1, 4, 1, 5};
  const std::uint32_t tree[] = {3, 4, 4, 9, 5};
  std::uint32_t at = 0;
  for (std::int32_t slot = 0; slot < 5; ++slot) {
    for (std::uint32_t i = 0; i < weights[slot]; ++i, ++at) {
      std::vector<std::uint32_t> scratch(tree, tree + 5);
      EXPECT_EQ(take_weighted(at, weights, 5, scratch.data()), slot) << "at " << at;
      // Its weight is gone: the same sum now leads to the next slot that has any.
      if (slot < 4) {
        EXPECT_EQ(take_weighted(at - i, weights, 5, scratch.data()), slot + 1);
      }
    }
  }
}

TEST(Copy, SecondHalfRepeatsTheFirst) {
  const Batch batch = batch_of(R"({"experiment": "copy"})", 20);
  ASSERT_EQ(batch.tokens, 63);
  for (Index b = 0; b < batch.batch; ++b) {
    const auto inputs = input_row(batch, b);
    const auto targets = target_row(batch, b);
    EXPECT_EQ(inputs[31], 127);
    EXPECT_EQ(targets[31], kIgnoreTarget);
    for (std::size_t i = 0; i < 31; ++i) {
      EXPECT_LT(inputs[i], 127);
      EXPECT_EQ(inputs[32 + i], inputs[i]);
      EXPECT_EQ(targets[i], kIgnoreTarget);
      EXPECT_EQ(targets[32 + i], inputs[i]);
    }
  }
}

TEST(Probe, RandomTokensWithoutTargets) {
  const Batch batch = batch_of(R"({"experiment": "state_norm", "model": {"vocab_size": 5},
                                   "task": {"seq_len": 4000}})",
                               1, RngStream::probe_tokens);
  std::vector<Index> counts(5);
  for (const std::int32_t token : batch.inputs) ++counts[static_cast<std::size_t>(token)];
  expect_uniform(counts, 4000);
  for (const std::int32_t target : batch.targets) EXPECT_EQ(target, kIgnoreTarget);
}

TEST(MakeBatch, DependsOnSeedStreamIndexAndRowAlone) {
  const char* json = R"({"task": {"n_pairs": 4}})";
  const Batch eight = batch_of(json, 8, RngStream::train_batch, 3);
  const Batch two = batch_of(json, 2, RngStream::train_batch, 3);
  EXPECT_EQ(input_row(eight, 1), input_row(two, 1)) << "a row does not depend on the batch size";
  EXPECT_NE(input_row(eight, 0), input_row(eight, 1));
  EXPECT_NE(input_row(eight, 0), input_row(batch_of(json, 1, RngStream::train_batch, 4), 0));
  EXPECT_NE(input_row(eight, 0), input_row(batch_of(json, 1, RngStream::eval_batch, 3), 0));
  EXPECT_NE(input_row(eight, 0), input_row(batch_of(R"({"task": {"n_pairs": 4}, "seeds": [1]})", 1,
                                                    RngStream::train_batch, 3),
                                           0));
  // A reused batch is overwritten completely.
  Batch reused = batch_of(R"({"task": {"n_pairs": 4}})", 2, RngStream::train_batch, 9);
  make_batch(parse_config(json, "test"), RngStream::train_batch, 3, 2, reused);
  EXPECT_EQ(input_row(reused, 1), input_row(two, 1));
  EXPECT_EQ(target_row(reused, 1), target_row(two, 1));
}

// Batches are part of every result's identity: a change of these values changes all results.
TEST(MakeBatch, ValuesArePinned) {
  using Row = std::vector<std::int32_t>;
  EXPECT_EQ(input_row(batch_of(R"({"task": {"n_pairs": 3}})", 1), 0),
            (Row{41, 9, 24, 47, 58, 105, 127, 24, 41, 58}));
  EXPECT_EQ(input_row(batch_of(R"({"task": {"layout": "zoology", "n_pairs": 2}})", 1), 0),
            (Row{21, 92, 13, 69, 21, 73, 13, 8}));
  EXPECT_EQ(input_row(batch_of(R"({"task": {"n_pairs": 2, "passes": 2, "rewrites": 1}})", 1), 0),
            (Row{41, 57, 24, 9, 41, 57, 24, 9, 41, 105, 127, 24, 41}));
  EXPECT_EQ(input_row(batch_of(R"({"task": {"layout": "zoology", "n_pairs": 2, "passes": 2,
                                            "rewrites": 1}})",
                               1),
                      0),
            (Row{21, 92, 13, 69, 21, 92, 13, 69, 13, 89, 21, 98, 13, 78}));
  EXPECT_EQ(input_row(batch_of(R"({"experiment": "copy", "task": {"seq_len": 7}})", 1), 0),
            (Row{41, 23, 57, 127, 41, 23, 57}));
  EXPECT_EQ(input_row(batch_of(R"({"experiment": "jacobian", "task": {"seq_len": 6}})", 1), 0),
            (Row{41, 23, 57, 9, 48, 106}));
}

TEST(DescribeRow, ShowsRolesTokensAndTargets) {
  const RunConfig config = parse_config(R"({"task": {"n_pairs": 2}})", "test");
  Batch batch;
  make_batch(config, RngStream::train_batch, 0, 1, batch);
  const std::int32_t inputs[] = {17, 3, 99, 4, 127, 99, 17};
  const std::int32_t targets[] = {-100, -100, -100, -100, -100, 4, 3};
  std::copy_n(inputs, 7, batch.inputs.data());
  std::copy_n(targets, 7, batch.targets.data());
  EXPECT_EQ(describe_row(config, batch, 0, 104),
            "position     0     1     2     3     4     5     6\n"
            "role        k1    v1    k2    v2   SEP    q2    q1\n"
            "token       17     3    99     4   127    99    17\n"
            "target       .     .     .     .     .     4     3\n");
}

TEST(DescribeRow, PassesKeepTheirRolesAndRewritesAreMarked) {
  const RunConfig config =
      parse_config(R"({"task": {"n_pairs": 2, "passes": 2, "rewrites": 1}})", "test");
  Batch batch;
  make_batch(config, RngStream::train_batch, 0, 1, batch);
  const std::int32_t inputs[] = {17, 3, 99, 4, 17, 3, 99, 4, 99, 5, 127, 99, 17};
  std::copy_n(inputs, 13, batch.inputs.data());
  const std::string text = describe_row(config, batch, 0, 104);
  EXPECT_NE(text.find("role        k1    v1    k2    v2    k1    v1    k2    v2   k2'   v2'   SEP"
                      "    q2    q1\n"),
            std::string::npos)
      << text;
}

TEST(DescribeRow, LongRowsAreFoldedAndCopyHasItsRoles) {
  const RunConfig config = parse_config(R"({"experiment": "copy"})", "test");
  Batch batch;
  make_batch(config, RngStream::train_batch, 0, 1, batch);
  const std::string text = describe_row(config, batch, 0, 104);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4 * 4 + 3);
  EXPECT_NE(text.find(" t31   SEP"), std::string::npos);
  EXPECT_NE(text.find(" c31"), std::string::npos);
}

}  // namespace
}  // namespace vla_bench
