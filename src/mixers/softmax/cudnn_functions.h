#pragma once

#include <string>

namespace vla_bench::mixers {

/// Why cuDNN's functions cannot be called; empty when they can.
std::string cudnn_missing();

}  // namespace vla_bench::mixers
