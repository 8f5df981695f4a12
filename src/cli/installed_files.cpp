#include "cli/installed_files.h"

#include <system_error>

namespace vla_bench::cli {
namespace {

namespace fs = std::filesystem;

/// Empty when the system does not provide it.
fs::path program_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

}  // namespace

fs::path find_input(const std::string& name) {
  const fs::path named = name;
  if (named.empty() || named.is_absolute() || is_there(named)) return named;
  // "../x" is relative to the working directory and never to the installation.
  const fs::path plain = named.lexically_normal();
  if (*plain.begin() == "..") return named;
  const fs::path share = (program_folder() / VLA_SHARE_FROM_PROGRAM).lexically_normal();
  for (const fs::path& place : {share / plain, share / "configs" / (plain.string() + ".json")}) {
    if (is_there(place)) return place;
  }
  return named;
}

}  // namespace vla_bench::cli
