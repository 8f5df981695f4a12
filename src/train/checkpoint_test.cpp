#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"
#include "testing/small_runs.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

using testing::small_run_config;
using testing::SmallRun;
using testing::TemporaryFolder;

/// A run with optimiser state and history that can be saved and loaded.
template <class T>
struct Saved {
  SmallRun<T> run;
  OptimiserState<T> optimiser{run.context, run.model.values().size()};
  TrainLog log = {
      .history = {{.step = 1, .loss = 0.1, .accuracy = 0.25, .lr = 1e-3, .gradient_norm = 2.5},
                  {.step = 2, .loss = 0.3, .accuracy = 0.5, .lr = 1e-4, .gradient_norm = 1.0 / 3}},
      .train_seconds = 12.5};

  explicit Saved(Index step) {
    const Index count = run.model.values().size();
    optimiser.write({.step = step});
    for (Index i = 0; i < count; ++i) {
      optimiser.first_moment[i] = static_cast<T>(0.1 * static_cast<double>(i + step));
      optimiser.second_moment[i] = static_cast<T>(0.3 * static_cast<double>(i));
    }
  }
  void save(const std::filesystem::path& path) {
    save_checkpoint(path, run.config, run.model, optimiser, log);
  }
};

template <class T>
struct Loaded {
  SmallRun<T> run;
  OptimiserState<T> optimiser;
  TrainLog log;

  explicit Loaded(RunConfig config = small_run_config())
      : run(std::move(config)), optimiser(run.context, run.model.values().size()) {
    std::fill(run.model.values().begin(), run.model.values().end(), T(-1));
  }
  void load(const std::filesystem::path& path) {
    load_checkpoint(path, run.config, run.model, optimiser, log);
  }
};

template <class T>
bool same(const Array<T>& a, const Array<T>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

template <class T>
void check_round_trip(DType stored_as) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<T> saved(5);
  saved.save(path);
  Loaded<T> loaded;
  loaded.load(path);
  EXPECT_EQ(loaded.run.values(), saved.run.values());
  EXPECT_TRUE(same(loaded.optimiser.first_moment, saved.optimiser.first_moment));
  EXPECT_TRUE(same(loaded.optimiser.second_moment, saved.optimiser.second_moment));
  EXPECT_EQ(loaded.optimiser.read().step, 5);
  EXPECT_EQ(loaded.log.train_seconds, 12.5);
  ASSERT_EQ(loaded.log.history.size(), 2u);
  EXPECT_EQ(loaded.log.history[1].step, 2);
  EXPECT_EQ(loaded.log.history[1].loss, 0.3);
  EXPECT_EQ(loaded.log.history[1].accuracy, 0.5);
  EXPECT_EQ(loaded.log.history[1].lr, 1e-4);
  EXPECT_EQ(loaded.log.history[1].gradient_norm, 1.0 / 3.0);

  // For torch users the file has only the parameters, under their state_dict names.
  const TensorFile file = TensorFile::read(path);
  EXPECT_EQ(file.names().size(), loaded.run.model.parameters().all().size());
  const TensorEntry& entry = file.at("blocks.0.attn.Wq.weight");
  EXPECT_EQ(entry.dtype, stored_as);
  EXPECT_EQ(entry.shape, (std::vector<Index>{16, 16}));
  EXPECT_EQ(file.at("blocks.0.conv.weight").shape, (std::vector<Index>{16, 1, 2}));
}

TEST(Checkpoint, RoundTripsEveryBit) {
  check_round_trip<float>(DType::f32);
  check_round_trip<double>(DType::f64);
}

TEST(Checkpoint, KeepsTheOptimiserOfTheParametersOnDisk) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<float> saved(5);
  saved.save(path);
  const std::string parameters_of_5 = read_file(path);
  const std::string moments_of_5 = read_file(optimiser_path(path, 5));
  Saved<float> later(6);
  later.save(path);
  EXPECT_FALSE(std::filesystem::exists(optimiser_path(path, 5)));

  // Killed after the optimiser of step 6 was written, before its parameters were.
  write_file_atomically(path, parameters_of_5);
  write_file_atomically(optimiser_path(path, 5), moments_of_5);
  Loaded<float> loaded;
  loaded.load(path);
  EXPECT_EQ(loaded.optimiser.read().step, 5);
  EXPECT_TRUE(same(loaded.optimiser.first_moment, saved.optimiser.first_moment));
}

// Two processes on one cell: the slower one must not remove the other's optimiser file.
TEST(Checkpoint, LeavesTheOptimiserOfALaterStep) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<float> ahead(6);
  ahead.save(path);
  const std::string parameters_of_6 = read_file(path);
  Saved<float> behind(5);
  behind.save(path);
  EXPECT_TRUE(std::filesystem::exists(optimiser_path(path, 6)));
  Loaded<float> loaded;
  loaded.load(path);
  EXPECT_EQ(loaded.optimiser.read().step, 5);

  // The two may also write their parameters in the other order.
  write_file_atomically(path, parameters_of_6);
  loaded.load(path);
  EXPECT_EQ(loaded.optimiser.read().step, 6);
  EXPECT_TRUE(same(loaded.optimiser.first_moment, ahead.optimiser.first_moment));

  write_file_atomically(folder.path() / "optimizer.best.safetensors", "no step of ours");
  Saved<float>(7).save(path);
  EXPECT_FALSE(std::filesystem::exists(optimiser_path(path, 5)));
  EXPECT_FALSE(std::filesystem::exists(optimiser_path(path, 6)));
  EXPECT_TRUE(std::filesystem::exists(optimiser_path(path, 7)));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "optimizer.best.safetensors"));
}

TEST(Checkpoint, ChangesNothingWhenItIsRefused) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<float>(5).save(path);
  std::filesystem::remove(optimiser_path(path, 5));
  Loaded<float> loaded;
  const auto values = loaded.run.values();
  EXPECT_THROW(loaded.load(path), BadInput);
  EXPECT_EQ(loaded.run.values(), values);
  EXPECT_EQ(loaded.optimiser.read().step, 0);
  EXPECT_TRUE(loaded.log.history.empty());
}

TEST(Checkpoint, RefusesAnotherConfig) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<float>(5).save(path);
  RunConfig config = small_run_config();
  config.train.lr = 0.5;
  Loaded<float> other(config);
  EXPECT_THROW(other.load(path), BadInput);
  config = small_run_config();
  config.precision = Precision::tf32;
  Loaded<float> rounded(config);
  EXPECT_THROW(rounded.load(path), BadInput);

  // A key that cannot change results does not make another config.
  config = small_run_config();
  config.threads = 2;
  config.name = "elsewhere";
  config.train.log_every = 1;
  config.mixers.front().label = "mine";
  Loaded<float> same_run(config);
  EXPECT_NO_THROW(same_run.load(path));
}

TEST(Checkpoint, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "checkpoint.safetensors";
  Saved<float> saved(5);
  saved.save(path);
  const std::string whole = read_file(path);

  write_file_atomically(path, whole.substr(0, whole.size() - 4));
  EXPECT_THROW(Loaded<float>().load(path), BadInput);

  // One flipped bit anywhere, in either file.
  const auto flip_everywhere = [&](const std::filesystem::path& file) {
    const std::string content = read_file(file);
    for (std::size_t at = 0; at < content.size(); at += 97) {
      std::string flipped = content;
      flipped[at] = static_cast<char>(flipped[at] ^ 1);
      write_file_atomically(file, flipped);
      ASSERT_THROW(Loaded<float>().load(path), BadInput) << file << " at byte " << at;
    }
    write_file_atomically(file, content);
  };
  write_file_atomically(path, whole);
  flip_everywhere(path);
  flip_everywhere(optimiser_path(path, 5));
  EXPECT_NO_THROW(Loaded<float>().load(path));

  TensorFile file;
  // A step beyond the end of the run.
  write_file_atomically(path, whole);
  file = TensorFile::read(path);
  file.metadata()["step"] = "8";
  file.write(path);
  EXPECT_THROW(Loaded<float>().load(path), BadInput);

  // A history that a run of 5 steps cannot have.
  write_file_atomically(path, whole);
  const std::string moments = read_file(optimiser_path(path, 5));
  file = TensorFile::read(optimiser_path(path, 5));
  for (const double step : {6.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    const std::vector<double> row = {step, 0.1, 0.2, 0.3, 0.4};
    file.add("history", {1, 5}, row.data());
    file.write(optimiser_path(path, 5));
    EXPECT_THROW(Loaded<float>().load(path), BadInput) << step;
  }
  write_file_atomically(optimiser_path(path, 5), moments);
  EXPECT_NO_THROW(Loaded<float>().load(path));

  std::filesystem::remove(optimiser_path(path, 5));
  EXPECT_THROW(Loaded<float>().load(path), BadInput);
}

// A path below a file cannot be created even by root, whom permission bits do not stop.
TEST(Checkpoint, ReportsWhatCannotBeWritten) {
  const TemporaryFolder folder;
  write_file_atomically(folder.path() / "file", "x");
  Saved<float> saved(5);
  EXPECT_THROW(saved.save(folder.path() / "file" / "checkpoint.safetensors"), RunError);
}

}  // namespace
}  // namespace vla_bench
