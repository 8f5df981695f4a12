#include "runs/worker_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <barrier>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "core/error.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

const std::atomic<bool> kNoStop{false};

Workload training_on(int gpus, Index jobs, Index items = 100) {
  return {.device = Device::cuda, .gpus = gpus, .items = items, .jobs = jobs};
}

std::vector<int> gpus_of(const std::vector<Slot>& slots) {
  std::vector<int> gpus;
  for (const Slot& slot : slots) gpus.push_back(slot.gpu);
  return gpus;
}

TEST(AssignSlots, GoRoundTheGpus) {
  EXPECT_EQ(gpus_of(assign_slots(training_on(1, 3))), (std::vector{0, 0, 0}));
  EXPECT_EQ(gpus_of(assign_slots(training_on(3, 7))), (std::vector{0, 1, 2, 0, 1, 2, 0}));
  EXPECT_EQ(gpus_of(assign_slots(training_on(4, 2))), (std::vector{0, 1}));
  const auto slots = assign_slots(training_on(2, 5));
  for (std::size_t i = 0; i < slots.size(); ++i) EXPECT_EQ(slots[i].worker, static_cast<int>(i));
}

TEST(AssignSlots, AutomaticFillsGpusAsTheExperimentAllows) {
  const auto workers = [](ExperimentKind experiment, Device device, int gpus) {
    return assign_slots({.experiment = experiment, .device = device, .gpus = gpus, .items = 100})
        .size();
  };
  EXPECT_EQ(workers(experiment_kind<Mqar>, Device::cuda, 1), 4u);
  EXPECT_EQ(workers(experiment_kind<Copy>, Device::cuda, 8), 32u);
  EXPECT_EQ(workers(experiment_kind<Latency>, Device::cuda, 2), 2u);
  EXPECT_EQ(workers(experiment_kind<Recall>, Device::cuda, 2), 1u);
  EXPECT_EQ(workers(experiment_kind<StateNorm>, Device::cuda, 2), 1u);
  EXPECT_EQ(workers(experiment_kind<Jacobian>, Device::cuda, 2), 1u);
  for (const auto& [kind, name] : enum_names<ExperimentKind>) {
    EXPECT_EQ(workers(kind, Device::cpu, 0), 1u) << name;
  }
  // Four a GPU, evenly.
  std::map<int, int> count;
  for (const int gpu : gpus_of(assign_slots(training_on(3, 0)))) ++count[gpu];
  EXPECT_EQ(count, (std::map<int, int>{{0, 4}, {1, 4}, {2, 4}}));
}

TEST(AssignSlots, NeverMoreThanThereAreItemsAndAlwaysOne) {
  EXPECT_EQ(gpus_of(assign_slots(training_on(2, 8, 3))), (std::vector{0, 1, 0}));
  EXPECT_EQ(assign_slots(training_on(2, 8, 0)).size(), 1u);
  EXPECT_EQ(gpus_of(assign_slots({.items = 2, .jobs = 5})), (std::vector{-1, -1}));
}

TEST(AssignSlots, TimingsShareNoDevice) {
  const auto refusal = [](Device device, int gpus, Index jobs) -> std::string {
    try {
      assign_slots({.experiment = experiment_kind<Latency>,
                    .device = device,
                    .gpus = gpus,
                    .items = 100,
                    .jobs = jobs});
    } catch (const BadInput& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal(Device::cuda, 2, 2), "");
  EXPECT_EQ(refusal(Device::cpu, 0, 1), "");
  EXPECT_EQ(refusal(Device::cuda, 2, 3),
            "--jobs: latency is timed by one worker a device: at most 2 here, got 3");
  EXPECT_NE(refusal(Device::cpu, 0, 2).find("at most 1 here, got 2"), std::string::npos);
}

TEST(AssignSlots, RefusesNumbersOutOfRange) {
  for (const Index jobs : {-1, 1025}) {
    EXPECT_THROW(assign_slots({.items = 1, .jobs = jobs}), BadInput) << jobs;
  }
}

TEST(ThreadsPerWorker, SharesThemOut) {
  EXPECT_EQ(threads_per_worker(16, 4), 4);
  EXPECT_EQ(threads_per_worker(16, 3), 5);
  EXPECT_EQ(threads_per_worker(2, 8), 1);
  EXPECT_EQ(threads_per_worker(5, 1), 5);
}

/// The log of what the workers did.
struct Log {
  std::mutex mutex;
  std::vector<Index> order;        // items as they were taken
  std::map<int, Index> by_worker;  // items each worker had

  void add(const Slot& slot, Index item) {
    const std::scoped_lock lock(mutex);
    order.push_back(item);
    ++by_worker[slot.worker];
  }
};

TEST(RunWorkers, EveryItemOnceWhateverTheSlots) {
  for (const Index jobs : {1, 2, 3, 8}) {
    Log log;
    run_workers(assign_slots(training_on(2, jobs)), 100, kNoStop,
                [&](const Slot& slot, Index item) {
                  EXPECT_EQ(slot.gpu, slot.worker % 2);
                  log.add(slot, item);
                  return true;
                });
    EXPECT_EQ(log.order.size(), 100u);
    EXPECT_EQ(std::set<Index>(log.order.begin(), log.order.end()).size(), 100u);
    EXPECT_EQ(*std::max_element(log.order.begin(), log.order.end()), 99);
  }
}

TEST(RunWorkers, ItemsAreTakenInOrder) {
  Log log;
  run_workers(assign_slots(training_on(1, 1)), 20, kNoStop, [&](const Slot& slot, Index item) {
    log.add(slot, item);
    return true;
  });
  EXPECT_TRUE(std::is_sorted(log.order.begin(), log.order.end()));

  // Four at a time: since all wait for each other, each round is the next four items.
  Log rounds;
  std::barrier meet(4);
  run_workers(assign_slots(training_on(2, 4)), 40, kNoStop, [&](const Slot& slot, Index item) {
    rounds.add(slot, item / 4);
    meet.arrive_and_wait();
    return true;
  });
  EXPECT_TRUE(std::is_sorted(rounds.order.begin(), rounds.order.end()));
  for (const auto& [worker, items] : rounds.by_worker) EXPECT_EQ(items, 10) << worker;
}

TEST(RunWorkers, OneSlotIsTheCallingThread) {
  const auto caller = std::this_thread::get_id();
  run_workers(assign_slots(training_on(1, 1)), 3, kNoStop, [&](const Slot&, Index) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    return true;
  });
}

TEST(RunWorkers, NothingToDoIsFine) {
  run_workers(assign_slots(training_on(2, 4, 0)), 0, kNoStop, [](const Slot&, Index) {
    ADD_FAILURE() << "there is no item";
    return true;
  });
}

TEST(RunWorkers, AnExceptionEndsTheRunWhenTheOthersAreDone) {
  std::atomic<Index> started{0}, finished{0};
  std::barrier meet(2);
  try {
    run_workers(assign_slots(training_on(2, 2)), 100, kNoStop, [&](const Slot&, Index item) {
      ++started;
      // Items 0 and 1 run beside each other; 0 fails first.
      if (item < 2) meet.arrive_and_wait();
      if (item == 0) throw BadInput("item 0");
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      ++finished;
      return true;
    });
    FAIL() << "no exception";
  } catch (const BadInput& error) {
    EXPECT_STREQ(error.what(), "item 0");
  }
  EXPECT_EQ(finished.load(), started.load() - 1) << "an item was left in the middle";
  EXPECT_LT(started.load(), 100);
}

TEST(RunWorkers, OfSeveralExceptionsTheLowestItemsIsThrown) {
  std::barrier meet(3);
  try {
    run_workers(assign_slots(training_on(1, 3)), 3, kNoStop, [&](const Slot&, Index item) -> bool {
      meet.arrive_and_wait();
      throw std::runtime_error("item " + std::to_string(item));
    });
    FAIL() << "no exception";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "item 0");
  }
}

TEST(RunWorkers, AStopInTheMiddleHandsOutNoMore) {
  for (const Index jobs : {1, 2}) {
    std::atomic<bool> stop{false};
    Log log;
    run_workers(assign_slots(training_on(2, jobs)), 1000, stop, [&](const Slot&, Index item) {
      const std::scoped_lock lock(log.mutex);
      log.order.push_back(item);
      if (log.order.size() == 5) stop.store(true);
      return true;
    });
    EXPECT_GE(log.order.size(), 5u);
    // The other worker may have had its item already when the stop came.
    EXPECT_LE(log.order.size(), 5u + static_cast<std::size_t>(jobs - 1));
  }
}

TEST(RunWorkers, AWorkerThatGivesUpLeavesItsItemsToTheOthers) {
  Log log;
  run_workers(assign_slots(training_on(2, 2)), 50, kNoStop, [&](const Slot& slot, Index item) {
    log.add(slot, item);
    return slot.gpu != 0;  // GPU 0 is lost
  });
  EXPECT_EQ(log.order.size(), 50u);
  EXPECT_LE(log.by_worker[0], 1);
}

TEST(RunWorkers, TheLastWorkerGoesOnToTheEnd) {
  for (const Index jobs : {1, 4}) {
    Log log;
    run_workers(assign_slots(training_on(1, jobs)), 50, kNoStop, [&](const Slot& slot, Index item) {
      log.add(slot, item);
      return false;
    });
    EXPECT_EQ(log.order.size(), 50u);
  }
}

}  // namespace
}  // namespace vla_bench
