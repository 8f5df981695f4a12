// How far a thread that launches work without waiting for it may be ahead of its device.
#pragma once

#include <memory>

#include "core/device.h"

namespace vla_bench {

/// Call launched() after each piece of work of a loop: it waits until at most two pieces are
/// unfinished. Without it a loop fills the device's queue, a launch into a full queue waits inside
/// the driver, and so does whatever other threads launch: of 16 cells that trained on one H200 two
/// or three made progress at a time. Does nothing on a CPU, where work is done when its call
/// returns.
class RunAhead {
 public:
  /// On the calling thread's device, whose stream the work is launched on.
  explicit RunAhead(Device device);
  ~RunAhead();
  RunAhead(const RunAhead&) = delete;
  RunAhead& operator=(const RunAhead&) = delete;

  void launched();

  class Marks {  // implemented by the device
   public:
    virtual ~Marks() = default;
    virtual void mark_and_wait() = 0;
  };

 private:
  std::unique_ptr<Marks> marks_;  // GPU
};

}  // namespace vla_bench
