// The JSON header of a safetensors file, read from untrusted bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.h"

namespace vla_bench {

struct TensorHeader {
  std::string name;
  DType dtype = DType::f64;
  std::vector<Index> shape;
  std::uint64_t begin = 0;  // bytes from the start of the data
  std::uint64_t end = 0;
};

struct FileHeader {
  std::map<std::string, std::string> metadata;
  std::vector<TensorHeader> tensors;  // after the check in the order of their data, without gaps
  std::uint64_t data_bytes = 0;       // up to the last end
};

/// Parses the header. Throws BadInput starting with "[origin]".
FileHeader parse_safetensors_header(std::string_view json, std::string_view origin);

/// Checks the tensors against each other and the `data_bytes` that follow the header, and sorts
/// them by their data. Throws BadInput starting with "[origin]".
void check_safetensors_data(FileHeader& header, std::uint64_t data_bytes, std::string_view origin);

/// "(2, 3)"
std::string shape_text(const std::vector<Index>& shape);

}  // namespace vla_bench
