// The configs and experiments that are installed with the program.
#pragma once

#include <filesystem>
#include <string>

namespace vla_bench::cli {

/// Where the config or folder of this name lies: as named, from the working directory; where that
/// does not exist, in the folder that is installed with the program ("configs/quick.json",
/// "experiments"), also as the plain name of one of its configs ("quick"). That folder is found
/// from where the program lies, so that an installation may be moved. Without either it is `name`
/// itself, for whoever reads it to complain of.
std::filesystem::path find_input(const std::string& name);

}  // namespace vla_bench::cli
