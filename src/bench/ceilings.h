// Measured ceilings of the two rates that bound every kernel, arithmetic (products of large
// matrices) and memory bandwidth (copies). Kernels are compared with these, measured in the same
// process, not with data sheets.
//
//   GPU  products of 8,192 x 8,192 float32 matrices by cuBLASLt at the context's precision (the
//        operands are stored as float32 at every precision, as this program stores them); a copy of
//        1 GiB within device memory
//   CPU  sgemm_gflops on the context's threads; a copy larger than the last cache, split over the
//        same threads
// A copied byte counts twice, read and written. (A CPU that reads a line before it writes it moves
// three; glibc writes past the caches at this size where it can.)
#pragma once

#include "ops/ops.h"

namespace vla_bench {

struct Ceilings {
  double flops_per_s = 0.0;
  double bytes_per_s = 0.0;
};

/// Measured at the first call in this process, once for each GPU and precision, or number of CPU
/// threads; later calls return the same numbers. The machine should be idle otherwise.
const Ceilings& measured_ceilings(const Context& context);

}  // namespace vla_bench
