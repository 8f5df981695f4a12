// Only for tests: runs the program as a user does.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "testing/source_dir.h"
#include "testing/temporary_folder.h"

namespace vla_bench::testing {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

/// All files of that name below `root`, in path order.
inline std::vector<std::filesystem::path> find_files(const std::filesystem::path& root,
                                                     const std::string& name) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.path().filename() == name) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

struct Outcome {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string out, err;
};

struct Surroundings {
  std::string standard_output;       // a path instead of the capture ("/dev/full")
  rlim_t file_size = RLIM_INFINITY;  // bytes a file may have; above it a write fails with EFBIG
};

/// The program, started with arguments; wait() or the destructor waits for its end.
class Process {
 public:
  explicit Process(const std::vector<std::string>& arguments, const Surroundings& around = {}) {
    const std::string out_path =
        around.standard_output.empty() ? (folder_.path() / "out").string() : around.standard_output;
    const std::string err_path = (folder_.path() / "err").string();
    // A build folder that was moved has another path than at compile time.
    std::vector<std::string> strings = {environment_or("VLA_BENCH_BINARY", VLA_BENCH_BINARY)};
    strings.insert(strings.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& text : strings) argv.push_back(text.data());
    argv.push_back(nullptr);
    process_ = fork();
    if (process_ == 0) {
      // Only async-signal-safe calls between fork and exec.
      dup2(open(out_path.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
      dup2(open(err_path.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
      if (around.file_size != RLIM_INFINITY) {
        const rlimit limit{around.file_size, around.file_size};
        setrlimit(RLIMIT_FSIZE, &limit);
        ::signal(SIGXFSZ, SIG_IGN);  // so that the write fails as on a full disk
      }
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (!collected_) {
      send(SIGKILL);
      wait();
    }
  }

  void send(int signal_number) const { ::kill(process_, signal_number); }

  /// Waits until the program handles the signal, which would end it before; at most a minute.
  void await_handler(int signal_number) const {
    const std::string path = "/proc/" + std::to_string(process_) + "/status";
    const auto is_handled = [&] {
      const std::string status = slurp(path);
      const std::size_t line = status.find("SigCgt:");  // a mask in hexadecimal
      if (line == std::string::npos) return false;
      const unsigned long long mask = std::strtoull(status.c_str() + line + 7, nullptr, 16);
      return (mask >> (signal_number - 1) & 1) != 0;
    };
    for (int i = 0; i < 60'000 && !is_handled(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  Outcome wait() {
    int status = 0;
    waitpid(process_, &status, 0);
    collected_ = true;
    Outcome outcome{.out = slurp(folder_.path() / "out"), .err = slurp(folder_.path() / "err")};
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
    return outcome;
  }

 private:
  TemporaryFolder folder_;
  pid_t process_ = -1;
  bool collected_ = false;
};

inline Outcome run_program(const std::vector<std::string>& arguments,
                           const Surroundings& around = {}) {
  return Process(arguments, around).wait();
}

}  // namespace vla_bench::testing
