// How far a run is: one line rewritten in place on a terminal, plain log lines elsewhere.
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "core/array.h"
#include "train/trainer.h"

namespace vla_bench::cli {

/// "0:07", "12:34", "3:02:09"; "?" when unknown (negative or not finite).
std::string format_duration(double seconds);

/// "cell 3/12  step 1200/3000  loss 0.1234  accuracy 0.912  45.2 steps/s  0:40 left  vla seed=42";
/// without steps "cell 3/12  vla seed=42".
std::string progress_line(Index cell, Index cells, const std::string& title,
                          const TrainProgress& progress);

/// A cell that a worker is at.
struct RunningCell {
  Index cell = 0;  // from 1; 0: the worker is idle
  std::string title;
  TrainProgress training;
  std::chrono::steady_clock::time_point start, last_shown;
};

/// Of several workers: "5/12 done  812.3 steps/s  2:10 left  cell 6 40%  cell 7 12%  cell 8".
std::string workers_line(Index done, Index cells, const std::vector<RunningCell>& running,
                         double seconds_left);

/// Seconds until `todo` cells are done when `worked` of them (a fraction of a cell counts as such)
/// took `elapsed` seconds; negative when nothing has been worked yet. Takes cells to be alike.
double time_left(double elapsed, double worked, double todo);

/// Any worker may call at any time, each about its own cell. With one worker the line shows its
/// cell, with several what all are at.
class Progress {
 public:
  /// `done` of the `cells` are finished before the run. `quiet` shows nothing but the log's
  /// warnings.
  Progress(Index cells, Index done, int workers, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin_cell(int worker, Index cell, const std::string& title);  // cell from 1
  void update(int worker, const TrainProgress& progress);
  /// `outcome`: "ok", "diverged: loss is nan at step 17".
  void end_cell(int worker, const std::string& outcome);
  /// A cell turned out to be finished.
  void skip_cell();

  /// Says something in the log without tearing the line: `write` is log_debug, log_error, ...
  void log(void (*write)(std::string_view), std::string_view message);

 private:
  /// What the terminal shows after news of `running`.
  std::string line_of(const RunningCell& running) const;
  void draw(const std::string& line);
  void clear();

  const Index cells_;
  const bool quiet_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  std::mutex mutex_;  // guards all below
  bool drawn_ = false;
  Index done_;                        // skipped ones included
  Index worked_ = 0;                  // done by this run
  std::vector<RunningCell> running_;  // (workers)
  std::chrono::steady_clock::time_point last_drawn_;
};

}  // namespace vla_bench::cli
