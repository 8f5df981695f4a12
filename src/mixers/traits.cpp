#include "mixers/mixer.h"

namespace vla_bench {

MixerTraits mixer_traits(const MixerConfig& config) {
  MixerTraits traits;
  if (config.is<SoftmaxOptions>()) traits.joint_qkv = true;
  if (const auto* deltanet = config.get_if<DeltaNetOptions>()) {
    traits.aux_source = AuxSource::token;
    traits.aux_bias = true;
    if (deltanet->variant == DeltaNetVariant::paper) {
      traits.aux_name = "Wg";
    } else {
      traits.aux_name = "Wb";
      traits.aux_per_head = true;
      traits.output_norm = true;
    }
  }
  if (const auto* vla = config.get_if<VlaOptions>()) {
    if (vla->penalty == Penalty::learned) {
      traits.aux_source = AuxSource::key;
      traits.aux_name = "Wu";
    }
    traits.output_norm = true;
  }
  traits.output_norm = config.output_norm.value_or(traits.output_norm);
  return traits;
}

Index aux_width(const MixerTraits& traits, Index d_h) {
  if (traits.aux_source == AuxSource::none) return 0;
  return traits.aux_per_head ? 1 : d_h;
}

}  // namespace vla_bench
