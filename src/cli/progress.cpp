#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "cli/output.h"

namespace vla_bench::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRedraw{100};     // a terminal line: 10 times a second
constexpr std::chrono::seconds kLogInterval{10};      // a log file: readable after a night
constexpr double kLongestShown = 1000.0 * 24 * 3600;  // seconds; above it "?" says as much

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
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
  // The title stands last: a narrow terminal cuts it first.
  return fmt::format(
      "cell {}/{}  step {}/{}  loss {:.4f}  accuracy {:.3f}  {:.1f} steps/s  {} left  {}", cell,
      cells, progress.step, progress.steps, progress.loss, progress.accuracy,
      progress.steps_per_second, format_duration(left), title);
}

Progress::Progress(Index cells, bool quiet)
    : cells_(cells), quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { clear(); }

void Progress::begin_cell(Index cell, const std::string& title) {
  cell_ = cell;
  title_ = title;
  cell_start_ = last_shown_ = Clock::now();
  if (terminal_ && !quiet_) draw(progress_line(cell_, cells_, title_, {}));
}

void Progress::update(const TrainProgress& progress) {
  if (quiet_) return;
  const auto now = Clock::now();
  const bool last = progress.step == progress.steps;
  if (terminal_) {
    if (!last && now - last_shown_ < kRedraw) return;
    draw(progress_line(cell_, cells_, title_, progress));
  } else {
    if (now - last_shown_ < kLogInterval) return;
    log_info(progress_line(cell_, cells_, title_, progress));
  }
  last_shown_ = now;
}

void Progress::end_cell(const std::string& outcome) {
  clear();
  const std::chrono::duration<double> elapsed = Clock::now() - cell_start_;
  log_info(fmt::format("cell {}/{}  {}  {} in {:.1f} s", cell_, cells_, title_, outcome,
                       elapsed.count()));
}

void Progress::draw(const std::string& line) {
  // A line that wraps cannot be rewritten with one carriage return.
  const std::string shown = line.substr(0, terminal_width() - 1);
  std::fprintf(stderr, "\r\x1b[K%s", shown.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace vla_bench::cli
