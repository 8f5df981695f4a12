// The list of mixers: the one place that names them all. Config, schema, registry, benchmarks,
// tests and figures loop over it, in this order.
#pragma once

#include "core/type_list.h"
#include "mixers/deltanet/options.h"
#include "mixers/linear/options.h"
#include "mixers/softmax/options.h"
#include "mixers/vla/options.h"

namespace vla_bench {

/// A mixer's type is that of its options: a struct with
///   name     as a config spells it
///   title    as figures spell it
///   colour   of its lines in figures
///   members  its keys in a config, with the defaults of its paper, and their visit
///   (config/config.h)
using Mixers = TypeList<SoftmaxOptions, LinearOptions, DeltaNetOptions, VlaOptions>;
using MixerOptions = Mixers::Variant;

}  // namespace vla_bench
