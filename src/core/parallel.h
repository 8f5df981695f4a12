// A parallel loop over independent items. An item's result must not depend on which thread runs it;
// then results do not depend on the number of threads either.
#pragma once

#include <exception>
#include <vector>

#include "core/array.h"

namespace vla_bench {

/// Calls body(0) .. body(count - 1), each once. When items throw, the exception of the lowest one
/// is rethrown after all items are done (exceptions cannot leave an OpenMP region).
template <class Body>
void parallel_items(int threads, Index count, const Body& body) {
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(count));
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (Index item = 0; item < count; ++item) {
    try {
      body(item);
    } catch (...) {
      errors[static_cast<std::size_t>(item)] = std::current_exception();
    }
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace vla_bench
