// How far a run is: one line rewritten in place on a terminal, plain log lines elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "core/array.h"
#include "train/trainer.h"

namespace vla_bench::cli {

/// "0:07", "12:34", "3:02:09"; "?" when unknown (negative or not finite).
std::string format_duration(double seconds);

/// "cell 3/12  step 1200/3000  loss 0.1234  accuracy 0.912  45.2 steps/s  0:40 left  vla seed=42";
/// without steps "cell 3/12  vla seed=42".
std::string progress_line(Index cell, Index cells, const std::string& title,
                          const TrainProgress& progress);

class Progress {
 public:
  /// `quiet` shows nothing but the log's warnings.
  Progress(Index cells, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin_cell(Index cell, const std::string& title);  // cell from 1
  void update(const TrainProgress& progress);
  /// `outcome`: "ok", "diverged: loss is nan at step 17".
  void end_cell(const std::string& outcome);

 private:
  void draw(const std::string& line);
  void clear();

  const Index cells_;
  const bool quiet_;
  const bool terminal_;
  bool drawn_ = false;
  Index cell_ = 0;
  std::string title_;
  std::chrono::steady_clock::time_point cell_start_, last_shown_;
};

}  // namespace vla_bench::cli
