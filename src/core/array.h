// An owned, typed, zero-initialised block of memory on one device.
//
// Legend of every shape comment in this project:
//   B batch, T tokens, H heads, d channels per head (d_h), D = H * d channels (d_model),
//   F feed-forward channels (d_ff), V vocabulary, n stored pairs, M = B * T rows.
#pragma once

#include <type_traits>
#include <utility>

#include "core/device.h"
#include "core/index.h"
#include "core/matrix.h"

namespace vla_bench {

template <class T>
class Array {
 public:
  static_assert(std::is_trivially_copyable_v<T>);

  Array() = default;
  Array(Device device, Index size) { resize(device, size); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept {
    Array(std::move(other)).swap(*this);
    return *this;
  }
  ~Array() { device_free(device_, data_); }

  /// Resizes to `size` elements. Keeps the contents when size and device stay. Where the memory is
  /// large enough it is used again, so that a buffer that was once of its largest size stays where
  /// captured graphs expect it, and the contents are unspecified; new memory is zero.
  void resize(Device device, Index size) {
    if (device == device_ && size <= capacity_) {
      size_ = size;
      return;
    }
    Array fresh;
    fresh.device_ = device;
    fresh.size_ = size;
    fresh.capacity_ = size;
    if (size > 0) {
      fresh.data_ =
          static_cast<T*>(device_allocate(device, static_cast<std::size_t>(size) * sizeof(T)));
    }
    swap(fresh);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  Index bytes() const { return size_ * static_cast<Index>(sizeof(T)); }
  bool empty() const { return size_ == 0; }
  Device device() const { return device_; }

  /// Host access; only for cpu arrays.
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

  void swap(Array& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(data_, other.data_);
  }

 private:
  Device device_ = Device::cpu;
  Index size_ = 0;
  Index capacity_ = 0;  // elements of the memory
  T* data_ = nullptr;
};

}  // namespace vla_bench
