// A compile-time list of types, declared once and looped over everywhere else.
#pragma once

#include <cstddef>
#include <type_traits>
#include <variant>

namespace vla_bench {

template <class... Ts>
struct TypeList {
  static_assert(sizeof...(Ts) > 0);

  /// One value of one of the types.
  using Variant = std::variant<Ts...>;

  static constexpr std::size_t size = sizeof...(Ts);

  template <class T>
  static constexpr bool contains = (std::is_same_v<T, Ts> || ...);

  /// Position of T, which is also its index in Variant.
  template <class T>
  requires contains<T>
  static constexpr std::size_t index_of() {
    std::size_t index = 0;
    (void)((std::is_same_v<T, Ts> || (++index, false)) || ...);
    return index;
  }

  /// Calls visit.operator()<T>() for every T in order: for_each([&]<class T>() { ... }).
  template <class F>
  static constexpr void for_each(F&& visit) {
    (visit.template operator()<Ts>(), ...);
  }
};

}  // namespace vla_bench
