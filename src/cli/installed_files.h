// The configs and experiments that are installed with the program.
#pragma once

#include <filesystem>
#include <string>

namespace vla_bench::cli {

/// The path of the config or folder of this name: `name` itself, from the working directory; if
/// that does not exist, in the folder installed with the program ("configs/quick.json",
/// "experiments"), also by the plain name of a config ("quick"). That folder is found relative to
/// the program, so that an installation may be moved. If neither exists it is `name`, and reading
/// it will fail.
std::filesystem::path find_input(const std::string& name);

}  // namespace vla_bench::cli
