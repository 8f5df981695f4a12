#include "core/error.h"
#include "mixers/softmax/softmax_cudnn.h"

namespace vla_bench::mixers {

Support cudnn_softmax_support(Index /*d_h*/) {
  return {.ok = false,
          .reason = "this binary was built without cuDNN (cudnn.h or its front end was not found)"};
}

std::unique_ptr<MixerCore<float>> make_cudnn_softmax_core(Index d_h) {
  throw RunError(cudnn_softmax_support(d_h).reason);
}

}  // namespace vla_bench::mixers
