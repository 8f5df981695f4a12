// Softmax attention by cuDNN 9, through its front end: the fast baseline, only for `latency`.
//
// The mathematics of softmax.h on bfloat16 tensors (q, k, v, o and their gradients), summed in
// float32; its flash kernels have no float32 tensors. prepare() makes packed (B, T, H, d) copies in
// that type and the plans of the shape; forward and backward only run cuDNN on them; deliver()
// copies the results to the tensors of the contract. `saved` holds the log-sum-exp of every row:
// one value per token and head.
//
// cuDNN's backward accumulates dq with atomics: two runs differ in their last bits. Its
// deterministic variant keeps a T x T matrix and would be no fair baseline.
//
// libcudnn.so.9 is loaded at first use. A build that did not find the headers of cuDNN and of its
// front end links no_cudnn/softmax_no_cudnn.cpp.
#pragma once

#include <memory>
#include <string>

#include "mixers/mixer.h"

namespace vla_bench::mixers {

/// Whether the library can be loaded and has kernels for heads of d_h channels.
Support cudnn_softmax_support(Index d_h);

/// Why cuDNN's functions (cudnn_functions.cpp) cannot be called; empty when they can.
std::string cudnn_missing();

/// Only for a GPU. Throws RunError with cudnn_softmax_support's reason.
std::unique_ptr<MixerCore<float>> make_cudnn_softmax_core(Index d_h);

}  // namespace vla_bench::mixers
