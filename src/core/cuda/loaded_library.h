// Libraries of CUDA that are loaded when something of them is first called. A program that is
// linked with one does not start without it, and cuBLASLt takes .1 s and 200 MB of every start.
#pragma once

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>
#include <type_traits>

#include "core/error.h"

namespace vla_bench::cuda {

/// Never closed, since its objects may live as long as the program.
class LoadedLibrary {
 public:
  /// lib<name>.so.<major>
  LoadedLibrary(const char* name, int major) : name_(name) {
    const std::string file = fmt::format("lib{}.so.{}", name, major);
    handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) missing_ = fmt::format("{}: {}", name, dlerror());
  }

  /// Why it could not be loaded; empty when it was.
  const std::string& missing() const { return missing_; }

  template <class Function>
  Function* find(const char* function) const {
    if (handle_ == nullptr) throw RunError(missing_);
    void* const symbol = dlsym(handle_, function);
    if (symbol == nullptr) {
      throw RunError(fmt::format("{}: the library has no {}", name_, function));
    }
    return reinterpret_cast<Function*>(symbol);
  }

 private:
  std::string name_;
  void* handle_ = nullptr;
  std::string missing_;
};

}  // namespace vla_bench::cuda

/// Inside a namespace: calls of ::name find it in library(), a LoadedLibrary.
#define VLA_LOADED(library, name) VLA_LOADED_AS(decltype(::name), library, name)
/// The same where ::name is overloaded.
#define VLA_LOADED_AS(Function, library, name)                                          \
  constexpr auto name = [](auto... arguments) {                                         \
    static_assert(std::is_same_v<decltype(static_cast<Function*>(::name)), Function*>); \
    static auto* const function = library().find<Function>(#name);                      \
    return function(arguments...);                                                      \
  }
