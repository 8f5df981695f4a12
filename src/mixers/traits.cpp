#include "mixers/mixer.h"

namespace vla_bench {

MixerTraits mixer_traits(const MixerConfig& config) {
  MixerTraits traits;
  switch (config.mixer) {
    case MixerKind::softmax:
      traits.joint_qkv = true;
      break;
    case MixerKind::linear:
      break;
    case MixerKind::deltanet:
      traits.aux_source = AuxSource::token;
      traits.aux_bias = true;
      if (config.variant == DeltaNetVariant::paper) {
        traits.aux_name = "Wg";
      } else {
        traits.aux_name = "Wb";
        traits.aux_per_head = true;
        traits.output_norm = true;
      }
      break;
    case MixerKind::vla:
      if (config.penalty == Penalty::learned) {
        traits.aux_source = AuxSource::key;
        traits.aux_name = "Wu";
      }
      traits.output_norm = true;
      break;
  }
  traits.output_norm = config.output_norm.value_or(traits.output_norm);
  return traits;
}

Index aux_width(const MixerTraits& traits, Index d_h) {
  if (traits.aux_source == AuxSource::none) return 0;
  return traits.aux_per_head ? 1 : d_h;
}

}  // namespace vla_bench
