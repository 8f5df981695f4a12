// What a cell costs before anybody has run it: what cells are dealt to shards by.
#pragma once

#include "config/config.h"

namespace vla_bench {

/// Floating-point operations of a cell (a config with one mixer and one seed), two for each
/// multiply-add, counted from its mathematics as mixers/work.h does for the cores:
///
///   mqar, copy   steps x (6 x weights x rows, 6 x head x rows with a target, the cores' forward
///   and
///                backward) and a forward of every evaluation batch
///   recall       trials x (n writes and reads, n decodings among the codebook)
///   state_norm   T steps of the memories; from a model also its forward
///   jacobian     that, a rank-one product a step and two SVDs at each recorded token
///   latency      the calls that every timing makes at least (more follow until it is exact)
///
/// Operations are not seconds: mixers reach different rates. Whole numbers, because every machine
/// must deal a sweep alike, and the last bit of a sum of fractions depends on the build.
Index cell_flop(const RunConfig& config);

}  // namespace vla_bench
