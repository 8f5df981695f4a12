// How far a run is: on a terminal one line rewritten in place and a line a cell; elsewhere, in a
// log, at most a line every ten seconds a worker, however many cells there are.
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

/// "120/234 cells done, 114 left".
std::string done_line(Index done, Index cells);

/// Decides which line a log gets when a cell has ended. A cell of ten seconds has one of its own;
/// shorter ones share one that counts them, every ten seconds.
class CellLines {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Line { none, cell, count };

  explicit CellLines(Time start) : last_count_(start) {}
  Line after_cell(Time begun, Time now);
  /// Whether cells have ended since the last count that had no line.
  bool owes_count() const { return uncounted_; }

 private:
  Time last_count_;
  bool uncounted_ = false;
};

/// Any worker may call at any time, each about its own cell. With one worker the line shows its
/// cell, with several what all are at.
class Progress {
 public:
  /// `done` of the `cells` are finished before the run. `quiet` shows nothing but the log's
  /// warnings.
  Progress(Index cells, Index done, int workers, bool quiet);
  /// Counts the cells that had no line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin_cell(int worker, Index cell, const std::string& title);  // cell from 1
  void update(int worker, const TrainProgress& progress);
  /// `outcome`: "ok", "diverged: loss is nan at step 17". Why a cell failed is for the caller to
  /// log.
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
  CellLines lines_{start_};           // without a terminal
  std::vector<RunningCell> running_;  // (workers)
  std::chrono::steady_clock::time_point last_drawn_;
};

}  // namespace vla_bench::cli
