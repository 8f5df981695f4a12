#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/output.h"
#include "cli/terminal_text.h"

namespace vla_bench::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRedraw{100};     // a terminal line: 10 times a second
constexpr std::chrono::seconds kLogInterval{10};      // a log file: readable after a night
constexpr double kLongestShown = 1000.0 * 24 * 3600;  // seconds; longer times are shown as "?"

/// 0 for a cell without steps.
double fraction_done(const TrainProgress& training) {
  if (training.steps == 0) return 0.0;
  return static_cast<double>(training.step) / static_cast<double>(training.steps);
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0.0 && seconds < kLongestShown)) return "?";
  const auto total = static_cast<long>(std::lround(seconds));
  const long hours = total / 3600, minutes = total / 60 % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60);
  return fmt::format("{}:{:02}", minutes, total % 60);
}

std::string progress_line(Index cell, Index cells, const std::string& title,
                          const TrainProgress& progress) {
  if (progress.steps == 0) return fmt::format("cell {}/{}  {}", cell, cells, title);
  const double left =
      static_cast<double>(progress.steps - progress.step) / progress.steps_per_second;
  // The title is last, so that a narrow terminal cuts it first.
  return fmt::format(
      "cell {}/{}  step {}/{}  loss {:.4f}  accuracy {:.3f}  {:.1f} steps/s  {} left  {}", cell,
      cells, progress.step, progress.steps, progress.loss, progress.accuracy,
      progress.steps_per_second, format_duration(left), title);
}

std::string workers_line(Index done, Index cells, const std::vector<RunningCell>& running,
                         double seconds_left) {
  std::string at;
  double rate = 0.0;
  for (const RunningCell& cell : running) {
    if (cell.cell == 0) continue;
    at += fmt::format("  cell {}", cell.cell);
    if (cell.training.steps == 0) continue;
    at += fmt::format(" {:.0f}%", std::floor(100.0 * fraction_done(cell.training)));
    rate += cell.training.steps_per_second;
  }
  // The cells are last, so that a narrow terminal cuts them first.
  return fmt::format("{}/{} done  {:.1f} steps/s  {} left{}", done, cells, rate,
                     format_duration(seconds_left), at);
}

double time_left(double elapsed, double worked, double todo) {
  if (!(worked > 0.0)) return -1.0;
  return elapsed * std::max(0.0, todo - worked) / worked;
}

std::string done_line(Index done, Index cells) {
  return fmt::format("{}/{} cells done, {} left", done, cells, cells - done);
}

CellLines::Line CellLines::after_cell(Time begun, Time now) {
  if (now - begun >= kLogInterval) return Line::cell;
  const bool due = now - last_count_ >= kLogInterval;
  uncounted_ = !due;
  if (!due) return Line::none;
  last_count_ = now;
  return Line::count;
}

Progress::Progress(Index cells, Index done, int workers, bool quiet)
    : cells_(cells),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      done_(done),
      running_(static_cast<std::size_t>(workers)) {}

Progress::~Progress() {
  clear();
  if (lines_.owes_count()) log_info(done_line(done_, cells_));
}

void Progress::begin_cell(int worker, Index cell, const std::string& title) {
  const std::scoped_lock lock(mutex_);
  const auto now = Clock::now();
  RunningCell& running = running_.at(static_cast<std::size_t>(worker));
  running = {.cell = cell, .title = title, .training = {}, .start = now, .last_shown = now};
  if (terminal_ && !quiet_) draw(line_of(running));
}

void Progress::update(int worker, const TrainProgress& progress) {
  const std::scoped_lock lock(mutex_);
  RunningCell& running = running_.at(static_cast<std::size_t>(worker));
  running.training = progress;
  if (quiet_) return;
  const auto now = Clock::now();
  if (terminal_) {
    const bool last = progress.step == progress.steps;
    if (!last && now - last_drawn_ < kRedraw) return;
    draw(line_of(running));
  } else if (now - running.last_shown >= kLogInterval) {
    log_info(progress_line(running.cell, cells_, running.title, progress));
    running.last_shown = now;
  }
}

void Progress::end_cell(int worker, const std::string& outcome) {
  const std::scoped_lock lock(mutex_);
  clear();
  RunningCell& running = running_.at(static_cast<std::size_t>(worker));
  ++done_;
  ++worked_;
  const auto now = Clock::now();
  const CellLines::Line line =
      terminal_ ? CellLines::Line::cell : lines_.after_cell(running.start, now);
  if (line == CellLines::Line::cell) {
    const std::chrono::duration<double> elapsed = now - running.start;
    log_info(fmt::format("cell {}/{}  {}  {} in {:.1f} s", running.cell, cells_, running.title,
                         outcome, elapsed.count()));
  } else if (line == CellLines::Line::count) {
    log_info(done_line(done_, cells_));
  }
  running = {};
}

void Progress::skip_cell() {
  const std::scoped_lock lock(mutex_);
  ++done_;
}

void Progress::log(void (*write)(std::string_view), std::string_view message) {
  const std::scoped_lock lock(mutex_);
  clear();
  write(message);
}

std::string Progress::line_of(const RunningCell& running) const {
  if (running_.size() == 1) {
    return progress_line(running.cell, cells_, running.title, running.training);
  }
  double worked = static_cast<double>(worked_);
  for (const RunningCell& cell : running_) worked += fraction_done(cell.training);
  const std::chrono::duration<double> elapsed = Clock::now() - start_;
  const auto todo = static_cast<double>(cells_ - done_ + worked_);
  return workers_line(done_, cells_, running_, time_left(elapsed.count(), worked, todo));
}

void Progress::draw(const std::string& line) {
  // A line that wraps cannot be rewritten with one carriage return.
  const std::string shown = cut_text(line, terminal_width(STDERR_FILENO).value_or(80) - 1);
  std::fprintf(stderr, "\r\x1b[K%s", shown.c_str());
  std::fflush(stderr);
  drawn_ = true;
  last_drawn_ = Clock::now();
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace vla_bench::cli
