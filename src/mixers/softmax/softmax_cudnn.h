// Softmax attention by cuDNN 9, through its front end: the softmax to beat, for `latency` alone.
//
// The mathematics of softmax.h on bfloat16 tensors (q, k, v, o and their gradients), summed in
// float32; its flash kernels know no float32 tensors. prepare() makes packed (B, T, H, d) copies in
// that type and the plans of the shape; forward and backward run cuDNN on them and nothing else;
// deliver() writes the results where the contract wants them. `saved` holds the log-sum-exp of
// every row: one value per token and head.
//
// cuDNN's backward adds up dq with atomics: two runs differ in their last bits. Its deterministic
// variant keeps a T x T matrix and would be no rival.
//
// libcudnn.so.9 is loaded when it is first asked for. A build that did not find the headers of
// cuDNN and of its front end links no_cudnn/softmax_no_cudnn.cpp.
#pragma once

#include <memory>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Whether the library can be loaded and has kernels for heads of d_h channels.
Support cudnn_softmax_support(Index d_h);

/// On the GPU alone. Throws RunError with cudnn_softmax_support's reason.
std::unique_ptr<MixerCore<float>> make_cudnn_softmax_core(Index d_h);

}  // namespace vla_bench::mixers
