// Reading and writing safetensors: u64 little-endian header length N, N bytes of JSON mapping
// name -> {dtype, shape, data_offsets} plus a string map "__metadata__", then raw row-major data.
// Files are untrusted: every length, offset, overlap, dtype and shape is checked before any data is
// touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/array.h"

namespace vla_bench {

enum class DType { f64, f32, i64, i32, u8 };
std::string_view dtype_name(DType dtype);  // "F64", "F32", "I64", "I32", "U8"
Index dtype_bytes(DType dtype);

struct TensorEntry {
  std::string name;
  DType dtype = DType::f64;
  std::vector<Index> shape;
  std::vector<std::byte> data;  // row-major, little-endian

  Index size() const;  // product of shape; 1 for a scalar
};

/// A safetensors file in memory.
class TensorFile {
 public:
  /// Throws BadInput naming the file (and tensor) and what was expected: truncated file, header
  /// length past the end, invalid JSON, unknown dtype, negative or overflowing shape, offsets out
  /// of range or overlapping or not matching dtype x shape, bytes no tensor owns, duplicate names.
  /// Reads no further than the header says, so that a file without an end is refused.
  static TensorFile read(const std::filesystem::path& path);
  /// The same for bytes in memory; `origin` names them in messages.
  static TensorFile parse(std::string_view bytes, std::string_view origin);

  /// Writes the file with write_file_atomically. Throws RunError.
  void write(const std::filesystem::path& path) const;
  /// The bytes `write` writes.
  std::string serialise() const;

  std::map<std::string, std::string>& metadata() { return metadata_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  bool contains(std::string_view name) const;
  std::vector<std::string> names() const;  // in file order
  /// Throws BadInput naming the file and the tensor when there is none.
  const TensorEntry& at(std::string_view name) const;

  /// The tensor as T: double, float, int64, int32 or uint8. Floating dtypes convert to each other;
  /// everything else must match. An empty `shape` accepts any. Throws BadInput as
  /// "[file] name: expected (2, 3) F64, got (2, 4) F32".
  template <class T>
  std::vector<T> values(std::string_view name, std::span<const Index> shape = {}) const;

  /// Adds or replaces. T as in values().
  template <class T>
  void add(std::string name, std::vector<Index> shape, const T* data);

  /// Returns metadata as text, integer or number. Throws BadInput naming file and key.
  std::string text(std::string_view key) const;
  Index integer(std::string_view key) const;
  double number(std::string_view key) const;

 private:
  std::string origin_ = "memory";  // for messages
  std::map<std::string, std::string> metadata_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace vla_bench
