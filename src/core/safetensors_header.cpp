#include "core/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/error.h"

namespace vla_bench {
namespace {

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::u8}) {
    if (dtype_name(dtype) == name) return dtype;
  }
  return std::nullopt;
}

/// Accepts exactly the header's grammar, event by event. A document tree would keep the last of
/// duplicate keys silently and would be built in full before anything is refused.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(FileHeader& header, std::string_view origin) : header_(header), origin_(origin) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return unexpected(fmt::format("{}", value));  // negative: the others come as unsigned
  }
  bool number_float(number_float_t, const string_t& text) override { return unexpected(text); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::shape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) {
        return unexpected(fmt::format("{}", value));
      }
      tensor_.shape.push_back(static_cast<Index>(value));
      return true;
    }
    if (state_ != State::offsets) return unexpected(fmt::format("{}", value));
    if (offsets_ == 2) return unexpected("a third offset");
    (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::metadata) {
      header_.metadata[key_] = value;
      return true;
    }
    if (state_ != State::dtype) return unexpected(fmt::format("\"{}\"", value));
    const std::optional<DType> dtype = parse_dtype(value);
    if (!dtype) refuse("dtype: expected F64, F32, I64, I32 or U8, got {}", value);
    tensor_.dtype = *dtype;
    state_ = State::tensor;
    return true;
  }

  bool key(string_t& value) override {
    switch (state_) {
      case State::file:
        if (!names_.insert(value).second) refuse_file("name \"{}\" occurs twice", value);
        tensor_ = {.name = value};
        state_ = value == "__metadata__" ? State::before_metadata : State::before_tensor;
        return true;
      case State::metadata:
        key_ = value;
        if (header_.metadata.contains(value)) refuse("key \"{}\" occurs twice", value);
        return true;
      default:  // State::tensor
        if (!fields_.insert(value).second) refuse("key \"{}\" occurs twice", value);
        if (value == "dtype") {
          state_ = State::dtype;
        } else if (value == "shape") {
          state_ = State::before_shape;
        } else if (value == "data_offsets") {
          state_ = State::before_offsets;
        } else {
          refuse("unknown key \"{}\", expected dtype, shape and data_offsets", value);
        }
        return true;
    }
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::start:
        state_ = State::file;
        return true;
      case State::before_metadata:
        state_ = State::metadata;
        return true;
      case State::before_tensor:
        state_ = State::tensor;
        fields_.clear();
        offsets_ = 0;
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool end_object() override {
    if (state_ == State::file) {
      state_ = State::start;
      return true;
    }
    if (state_ == State::tensor) {
      if (fields_.size() != 3) refuse("expected dtype, shape and data_offsets, got {}", fields_);
      header_.tensors.push_back(std::move(tensor_));
    }
    state_ = State::file;
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::before_shape) {
      state_ = State::shape;
    } else if (state_ == State::before_offsets) {
      state_ = State::offsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::offsets && offsets_ != 2) {
      refuse("data_offsets: expected 2 numbers, got {}", offsets_);
    }
    state_ = State::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    refuse_file("header is not valid JSON near byte {}", position);
  }

 private:
  enum class State {
    start,
    file,
    before_metadata,
    metadata,
    before_tensor,
    tensor,
    dtype,
    before_shape,
    shape,
    before_offsets,
    offsets,
  };

  bool unexpected(std::string_view what) {
    switch (state_) {
      case State::start:
        refuse_file("header: expected an object, got {}", what);
      case State::before_metadata:
      case State::metadata:
        refuse_file("__metadata__: expected a map of strings, got {}", what);
      case State::dtype:
        refuse("dtype: expected a string, got {}", what);
      case State::before_shape:
      case State::shape:
        refuse("shape: expected an array of sizes, got {}", what);
      case State::before_offsets:
      case State::offsets:
        refuse("data_offsets: expected [begin, end], got {}", what);
      default:
        refuse("expected an object of dtype, shape and data_offsets, got {}", what);
    }
  }

  template <class... Args>
  [[noreturn]] void refuse_file(fmt::format_string<Args...> format, Args&&... args) {
    throw BadInput(
        fmt::format("[{}] {}", origin_, fmt::format(format, std::forward<Args>(args)...)));
  }
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
    refuse_file("{}: {}", tensor_.name, fmt::format(format, std::forward<Args>(args)...));
  }

  FileHeader& header_;
  std::string_view origin_;
  State state_ = State::start;
  std::set<std::string> names_;   // of the file
  std::set<std::string> fields_;  // of the current tensor
  std::string key_;               // of the current metadata entry
  TensorHeader tensor_;
  int offsets_ = 0;
};

std::optional<std::uint64_t> tensor_bytes(const TensorHeader& tensor) {
  // A product that overflows is refused even when a later size is zero: no valid file has one.
  Index bytes = dtype_bytes(tensor.dtype);
  for (const Index size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace

std::string shape_text(const std::vector<Index>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

FileHeader parse_safetensors_header(std::string_view json, std::string_view origin) {
  // The parser takes a NUL for the end of the text. The format allows only spaces as padding.
  if (const std::size_t nul = json.find('\0'); nul != std::string_view::npos) {
    throw BadInput(
        fmt::format("[{}] header: NUL at byte {}: expected JSON, padded with spaces", origin, nul));
  }
  FileHeader header;
  HeaderReader reader(header, origin);
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  for (const TensorHeader& tensor : header.tensors) {
    header.data_bytes = std::max(header.data_bytes, tensor.end);
  }
  return header;
}

void check_safetensors_data(FileHeader& header, std::uint64_t data_bytes, std::string_view origin) {
  for (const TensorHeader& tensor : header.tensors) {
    const std::string where = fmt::format("[{}] {}", origin, tensor.name);
    if (tensor.begin > tensor.end || tensor.end > data_bytes) {
      throw BadInput(fmt::format("{}: data_offsets [{}, {}] are outside the {} bytes of data",
                                 where, tensor.begin, tensor.end, data_bytes));
    }
    const std::optional<std::uint64_t> bytes = tensor_bytes(tensor);
    if (!bytes) {
      throw BadInput(
          fmt::format("{}: shape {} has too many elements", where, shape_text(tensor.shape)));
    }
    if (*bytes != tensor.end - tensor.begin) {
      throw BadInput(fmt::format("{}: expected {} bytes for {} {}, got {}", where, *bytes,
                                 shape_text(tensor.shape), dtype_name(tensor.dtype),
                                 tensor.end - tensor.begin));
    }
  }

  // Empty tensors share their offset with a neighbour: equal begins are ordered by their ends.
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorHeader& a, const TensorHeader& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  std::uint64_t covered = 0;
  for (const TensorHeader& tensor : header.tensors) {
    if (tensor.begin != covered) {
      throw BadInput(fmt::format("[{}] {}: data starts at byte {}, expected {}: tensors must {}",
                                 origin, tensor.name, tensor.begin, covered,
                                 tensor.begin < covered ? "not overlap" : "leave no gap"));
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    throw BadInput(fmt::format(
        "[{}] more than the {} bytes of data that its tensors have: no tensor owns the rest",
        origin, covered));
  }
}

}  // namespace vla_bench
