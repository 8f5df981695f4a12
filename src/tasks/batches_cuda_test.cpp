// Batches made on the GPU have the same bits as those of make_batch.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/read.h"
#include "ops/ops.h"
#include "tasks/batch.h"
#include "testing/gpu.h"

namespace vla_bench {
namespace {

using testing::gpu_context;
using testing::to_host;

void set_index(Array<Index>& index, Index value) {
  device_copy(Device::cuda, index.data(), Device::cpu, &value, sizeof(value));
}

void expect_same_batch(const Batch& actual, const Batch& expected) {
  EXPECT_EQ(actual.batch, expected.batch);
  EXPECT_EQ(actual.tokens, expected.tokens);
  EXPECT_EQ(to_host(actual.inputs), to_host(expected.inputs));
  EXPECT_EQ(to_host(actual.targets), to_host(expected.targets));
  EXPECT_EQ(to_host(actual.target_rows), to_host(expected.target_rows));
  EXPECT_EQ(to_host(actual.target_tokens), to_host(expected.target_tokens));
}

/// `task` is the body of a config's JSON object.
void check(const std::string& task) {
  // The last index needs 32 bits. The batch is reused, so that all of it must be overwritten.
  constexpr Index kIndices[] = {0, 1, 2999, (Index{1} << 31) + 5};
  for (const char* seed : {"42", "7", "4294967301"}) {
    const std::string json = "{" + task + R"(, "seeds": [)" + seed + "]}";
    const RunConfig config = parse_config(json, "test");
    BatchMaker maker(gpu_context(), config);
    Array<Index> index(Device::cuda, 1);
    Batch actual, expected;
    for (const Index rows : {1, 33, 64}) {
      for (const RngStream stream : {RngStream::train_batch, RngStream::eval_batch}) {
        for (const Index at : kIndices) {
          SCOPED_TRACE(::testing::Message() << json << " rows " << rows << " stream "
                                            << static_cast<unsigned>(stream) << " index " << at);
          set_index(index, at);
          maker.make_next(stream, index.data(), rows, actual);
          ops::join_side_streams(gpu_context());
          EXPECT_EQ(to_host(index)[0], at + 1);
          make_batch(config, stream, at, rows, expected);
          expect_same_batch(actual, expected);
        }
      }
    }
  }
}

TEST(BatchesCuda, PaperLayout) {
  VLA_NEEDS_GPU();
  check(R"("task": {"n_pairs": 24})");
  check(R"("task": {"n_pairs": 1})");
  check(R"("task": {"n_pairs": 127})");  // every token is a key
  check(R"("task": {"n_pairs": 8, "seq_len": 512})");
  check(R"("model": {"vocab_size": 9}, "task": {"n_pairs": 4})");
}

TEST(BatchesCuda, Curriculum) {
  VLA_NEEDS_GPU();
  check(R"("task": {"n_pairs": 24, "curriculum": 3000})");  // indices before, at and after its end
  check(R"("task": {"n_pairs": 5, "curriculum": 1})");
}

TEST(BatchesCuda, ZoologyLayout) {
  VLA_NEEDS_GPU();
  for (const char* filler : {"true", "false", R"(true, "filler_values": true)"}) {
    const std::string rest = std::string(R"("layout": "zoology", "random_filler": )") + filler;
    check(R"("task": {"n_pairs": 8, "seq_len": 64, )" + rest + "}");
    check(R"("task": {"n_pairs": 63, )" + rest + "}");  // every slot holds a query
    check(R"("task": {"n_pairs": 1, "seq_len": 20, "power_a": 3.0, )" + rest + "}");
    check(R"("model": {"vocab_size": 8192}, "task": {"n_pairs": 64, "seq_len": 512, )" + rest +
          "}");
    check(R"("model": {"vocab_size": 131}, "task": {"n_pairs": 20, "seq_len": 98, )" + rest + "}");
  }
}

TEST(BatchesCuda, PassesAndRewrites) {
  VLA_NEEDS_GPU();
  check(R"("task": {"n_pairs": 24, "passes": 3})");
  check(R"("task": {"n_pairs": 24, "rewrites": 24, "seq_len": 300})");
  check(R"("task": {"n_pairs": 8, "passes": 2, "rewrites": 5, "curriculum": 3000})");
  check(R"("model": {"vocab_size": 20000}, "task": {"n_pairs": 24, "passes": 2, "rewrites": 7})");
  for (const char* filler : {"true", "false"}) {
    const std::string rest = std::string(R"("layout": "zoology", "random_filler": )") + filler;
    check(R"("task": {"n_pairs": 30, "passes": 4, "rewrites": 30, )" + rest + "}");
    check(R"("model": {"vocab_size": 131}, "task": {"n_pairs": 20, "passes": 2, "rewrites": 3,
             "seq_len": 198, )" +
          rest + "}");
    check(R"("task": {"n_pairs": 1, "rewrites": 1, )" + rest + "}");
  }
}

TEST(BatchesCuda, RowsTooLargeForSharedMemory) {
  VLA_NEEDS_GPU();
  check(R"("model": {"vocab_size": 20000}, "task": {"n_pairs": 24})");
  check(R"("model": {"vocab_size": 20000}, "task": {"layout": "zoology", "n_pairs": 8})");
}

TEST(BatchesCuda, CopyAndRandomTokens) {
  VLA_NEEDS_GPU();
  check(R"("experiment": "copy")");
  check(R"("experiment": "copy", "task": {"seq_len": 3})");
  check(R"("experiment": "copy", "task": {"seq_len": 1000})");
  check(R"("experiment": "state_norm", "model": {"vocab_size": 5}, "task": {"seq_len": 333})");
}

TEST(BatchesCuda, ReplayReadsTheIndexWhenItRuns) {
  VLA_NEEDS_GPU();
  const RunConfig config = parse_config(R"({"task": {"n_pairs": 24}})", "test");
  BatchMaker maker(gpu_context(), config);
  Array<Index> index(Device::cuda, 1);
  Batch actual, expected;
  const auto make = [&] {
    maker.make_next(RngStream::train_batch, index.data(), 64, actual);
    ops::join_side_streams(gpu_context());
  };
  make();
  Replay replay(Device::cuda, make);
  for (const Index at : {0, 1, 17}) {
    set_index(index, at);
    replay.run();
    make_batch(config, RngStream::train_batch, at, 64, expected);
    expect_same_batch(actual, expected);
  }
}

}  // namespace
}  // namespace vla_bench
