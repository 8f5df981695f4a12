// The progress of a run: on a terminal one line that is rewritten and one line per cell; elsewhere,
// in a log, at most one line per worker every ten seconds, for any number of cells.
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

/// The cell that a worker runs.
struct RunningCell {
  Index cell = 0;  // from 1; 0: the worker is idle
  std::string title;
  TrainProgress training;
  std::chrono::steady_clock::time_point start, last_shown;
};

/// The line of several workers: "5/12 done  812.3 steps/s  2:10 left  cell 6 40%  cell 7 12%  cell
/// 8".
std::string workers_line(Index done, Index cells, const std::vector<RunningCell>& running,
                         double seconds_left);

/// Seconds until `todo` cells are done when `worked` of them (including fractions of cells) took
/// `elapsed` seconds; negative when no work is done yet. Assumes equal cells.
double time_left(double elapsed, double worked, double todo);

/// "120/234 cells done, 114 left".
std::string done_line(Index done, Index cells);

/// Chooses the lines of a log when cells end. A cell of ten seconds or more has its own; shorter
/// ones share one that counts them, every ten seconds.
class CellLines {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class Line { none, cell, count };

  explicit CellLines(Time start) : last_count_(start) {}
  Line after_cell(Time begun, Time now);
  /// Whether cells without a line have ended since the last count.
  bool owes_count() const { return uncounted_; }

 private:
  Time last_count_;
  bool uncounted_ = false;
};

/// Thread-safe: each worker reports its own cell. With one worker the line shows its cell, with
/// several the cells of all.
class Progress {
 public:
  /// `done` of the `cells` are finished before the run. `quiet` shows only the log's warnings.
  Progress(Index cells, Index done, int workers, bool quiet);
  /// Logs the number of cells without a line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void begin_cell(int worker, Index cell, const std::string& title);  // cell from 1
  void update(int worker, const TrainProgress& progress);
  /// `outcome`: "ok", "diverged: loss is nan at step 17". The caller logs why a cell failed.
  void end_cell(int worker, const std::string& outcome);
  /// Call when another process has finished the cell.
  void skip_cell();

  /// Logs a message without breaking the progress line: `write` is log_debug, log_error, ...
  void log(void (*write)(std::string_view), std::string_view message);

 private:
  /// Redraws the terminal's line after news of `running`.
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
