#include "core/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "core/error.h"
#include "core/files.h"
#include "core/safetensors_header.h"

namespace vla_bench {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor data is copied as it lies");

constexpr std::size_t kLengthBytes = 8;
// The format's own limit: keeps a hostile length from costing memory.
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
// Aligned data lets files be memory-mapped.
constexpr std::size_t kHeaderAlignment = 8;

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DType::u8;
}

bool is_floating(DType dtype) { return dtype == DType::f64 || dtype == DType::f32; }

template <class Stored, class T>
std::vector<T> convert(const TensorEntry& entry) {
  std::vector<Stored> stored(static_cast<std::size_t>(entry.size()));
  if (!stored.empty()) std::memcpy(stored.data(), entry.data.data(), entry.data.size());
  if constexpr (std::is_same_v<Stored, T>) {
    return stored;
  } else {
    std::vector<T> values(stored.size());
    std::transform(stored.begin(), stored.end(), values.begin(),
                   [](Stored value) { return static_cast<T>(value); });
    return values;
  }
}

/// Parses the whole text as a number; returns false when it is not one.
template <class T>
bool parse_all(const std::string& text, T& value) {
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

/// Reads the length of the header from the first bytes of a file.
std::uint64_t read_header_length(std::string_view bytes, std::string_view origin) {
  if (bytes.size() < kLengthBytes) {
    throw BadInput(
        fmt::format("[{}] {} bytes are too few for a safetensors file", origin, bytes.size()));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes) {
    throw BadInput(
        fmt::format("[{}] header length: expected at most {} bytes (the format's limit), got {}",
                    origin, kMaxHeaderBytes, length));
  }
  return length;
}

/// Checks that the `held` bytes after the length are enough for a header of that length.
void require_header(std::uint64_t held, std::uint64_t length, std::string_view origin) {
  if (length <= held) return;
  throw BadInput(
      fmt::format("[{}] header length: expected at most {} bytes (what the file holds), got {}",
                  origin, held, length));
}

}  // namespace

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "F64";
    case DType::f32:
      return "F32";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
  }
  return "?";
}

Index dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::u8:
      return 1;
  }
  return 0;
}

Index TensorEntry::size() const {
  Index size = 1;
  for (const Index extent : shape) size *= extent;
  return size;
}

TensorFile TensorFile::read(const std::filesystem::path& path) {
  const std::string origin = path.string();
  InputFile file(path);
  std::string bytes = file.take(kLengthBytes);
  const std::uint64_t header_bytes = read_header_length(bytes, origin);
  bytes += file.take(header_bytes);
  require_header(bytes.size() - kLengthBytes, header_bytes, origin);
  const FileHeader header =
      parse_safetensors_header(std::string_view(bytes).substr(kLengthBytes), origin);
  // Reads one byte more than the tensors need, to detect a file that is too long.
  constexpr std::uint64_t kMost = std::numeric_limits<std::ptrdiff_t>::max();
  bytes += file.take(std::min(header.data_bytes, kMost) + 1);
  return parse(bytes, origin);
}

TensorFile TensorFile::parse(std::string_view bytes, std::string_view origin) {
  TensorFile file;
  file.origin_ = origin;
  const std::uint64_t header_bytes = read_header_length(bytes, origin);
  require_header(bytes.size() - kLengthBytes, header_bytes, origin);
  FileHeader header = parse_safetensors_header(bytes.substr(kLengthBytes, header_bytes), origin);
  const std::string_view data = bytes.substr(kLengthBytes + header_bytes);
  check_safetensors_data(header, data.size(), origin);
  file.metadata_ = std::move(header.metadata);
  file.tensors_.reserve(header.tensors.size());
  for (TensorHeader& tensor : header.tensors) {
    const auto slice =
        std::as_bytes(std::span(data.substr(tensor.begin, tensor.end - tensor.begin)));
    file.tensors_.push_back({.name = std::move(tensor.name),
                             .dtype = tensor.dtype,
                             .shape = std::move(tensor.shape),
                             .data = {slice.begin(), slice.end()}});
  }
  return file;
}

std::string TensorFile::serialise() const {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  std::size_t offset = 0;
  for (const TensorEntry& tensor : tensors_) {
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  std::string text = header.dump();
  // The format allows trailing spaces for this.
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');

  const std::uint64_t length = text.size();
  std::string bytes(kLengthBytes, '\0');
  std::memcpy(bytes.data(), &length, kLengthBytes);
  bytes.reserve(kLengthBytes + text.size() + offset);
  bytes += text;
  for (const TensorEntry& tensor : tensors_) {
    bytes.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
  }
  return bytes;
}

void TensorFile::write(const std::filesystem::path& path) const {
  write_file_atomically(path, serialise());
}

bool TensorFile::contains(std::string_view name) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [&](const TensorEntry& entry) { return entry.name == name; });
}

std::vector<std::string> TensorFile::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const TensorEntry& entry : tensors_) names.push_back(entry.name);
  return names;
}

const TensorEntry& TensorFile::at(std::string_view name) const {
  for (const TensorEntry& entry : tensors_) {
    if (entry.name == name) return entry;
  }
  throw BadInput(fmt::format("[{}] {}: no such tensor", origin_, name));
}

template <class T>
std::vector<T> TensorFile::values(std::string_view name, std::span<const Index> shape) const {
  const TensorEntry& entry = at(name);
  const bool convertible =
      entry.dtype == dtype_of<T>() || (std::is_floating_point_v<T> && is_floating(entry.dtype));
  const bool shape_fits = shape.empty() || std::equal(shape.begin(), shape.end(),
                                                      entry.shape.begin(), entry.shape.end());
  if (!convertible || !shape_fits) {
    const std::string expected =
        shape.empty() ? "" : shape_text(std::vector<Index>(shape.begin(), shape.end())) + " ";
    throw BadInput(fmt::format("[{}] {}: expected {}{}, got {} {}", origin_, name, expected,
                               dtype_name(dtype_of<T>()), shape_text(entry.shape),
                               dtype_name(entry.dtype)));
  }
  if constexpr (std::is_floating_point_v<T>) {
    return entry.dtype == DType::f64 ? convert<double, T>(entry) : convert<float, T>(entry);
  } else {
    return convert<T, T>(entry);
  }
}

template <class T>
void TensorFile::add(std::string name, std::vector<Index> shape, const T* data) {
  TensorEntry entry{.name = std::move(name), .dtype = dtype_of<T>(), .shape = std::move(shape)};
  const auto bytes = std::as_bytes(std::span(data, static_cast<std::size_t>(entry.size())));
  entry.data.assign(bytes.begin(), bytes.end());
  const auto same = std::find_if(tensors_.begin(), tensors_.end(),
                                 [&](const TensorEntry& old) { return old.name == entry.name; });
  if (same != tensors_.end()) {
    *same = std::move(entry);
  } else {
    tensors_.push_back(std::move(entry));
  }
}

std::string TensorFile::text(std::string_view key) const {
  const auto entry = metadata_.find(std::string(key));
  if (entry == metadata_.end()) {
    throw BadInput(fmt::format("[{}] __metadata__: no key \"{}\"", origin_, key));
  }
  return entry->second;
}

Index TensorFile::integer(std::string_view key) const {
  const std::string value = text(key);
  Index parsed = 0;
  if (!parse_all(value, parsed)) {
    throw BadInput(
        fmt::format("[{}] __metadata__: {}: expected an integer, got \"{}\"", origin_, key, value));
  }
  return parsed;
}

double TensorFile::number(std::string_view key) const {
  const std::string value = text(key);
  double parsed = 0.0;
  if (!parse_all(value, parsed) || !std::isfinite(parsed)) {
    throw BadInput(
        fmt::format("[{}] __metadata__: {}: expected a number, got \"{}\"", origin_, key, value));
  }
  return parsed;
}

#define VLA_INSTANTIATE(T)                                                                       \
  template std::vector<T> TensorFile::values<T>(std::string_view, std::span<const Index>) const; \
  template void TensorFile::add<T>(std::string, std::vector<Index>, const T*);
VLA_INSTANTIATE(double)
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(std::int64_t)
VLA_INSTANTIATE(std::int32_t)
VLA_INSTANTIATE(std::uint8_t)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
