// TinyLM, the small language model of the protocol (arXiv:2605.11196):
//   h = tok[x] + pos;  per block: h += mixer(LN1 h) [a short convolution between, if any];
//   h += W2 gelu(W1 LN2 h);  logits = LN_f(h) tok^T (tied head, no bias).
// Loss: mean cross entropy over positions that carry a target.
// By config it is the small model of the MQAR benchmark (arXiv:2312.04927, HazyResearch/zoology)
// instead: no pos, a gated convolution as the first layer, no MLP (model/block.h), convolutions of
// q, k and v and an RMSNorm over heads (mixers/layer.h). Its LayerNorms are the ones here, epsilon
// 1e-5. It differs from that program in that it has no dropout (there 0.1 on the embedding, and on
// attention's weights).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/array.h"
#include "mixers/layer.h"
#include "mixers/parameters.h"
#include "tasks/batch.h"

namespace vla_bench {

/// The loss of a batch; one without targets throws RunError.
struct LossResult {
  double loss = 0.0;      // mean over counted positions
  double accuracy = 0.0;  // exact match, fraction of counted positions
  Index count = 0;
};
LossResult loss_result(const ops::LossSums& sums);

/// The parameters of such a model, in table order, without making one: to check a file before
/// allocating memory for what it claims to hold.
ParameterTable tiny_lm_parameters(const ModelConfig& model, const MixerConfig& mixer);

template <class T>
class TinyLm {
 public:
  TinyLm(const ModelConfig& model, const MixerConfig& mixer, const Context& context,
         Implementation implementation = Implementation::production);
  ~TinyLm();

  const ParameterTable& parameters() const;
  Array<T>& values();     // flat, in table order
  Array<T>& gradients();  // flat, in table order

  /// Sets the protocol's initial values, drawn in double from RngStream::parameters, rounded to T.
  void initialise(std::uint64_t seed);

  // Batches may be on the CPU or on the model's device. The head runs only on positions with a
  // target, and never holds more of their logits than ops::logit_chunk_rows rows.

  /// Returns the loss; computes no gradients.
  LossResult evaluate(const Batch& batch);
  /// evaluate without waiting for the device; the loss goes to *sums, in device memory.
  void request_loss(const Batch& batch, ops::LossSums* sums);
  /// Returns the loss; overwrites gradients() with those of the mean loss.
  LossResult forward_backward(const Batch& batch);
  /// forward_backward without waiting for the device; the loss goes to *sums, in device memory.
  void request_gradients(const Batch& batch, ops::LossSums* sums);
  /// Writes all logits (B * T, V) of a batch to host memory.
  void logits(const Batch& batch, Matrix<T> out);
  /// Runs the blocks and returns what the core of `layer`, a mixer, read, valid until the next
  /// call: the raw projections, behind their convolutions where there are any, and its parameters.
  CoreInputs<T> core_inputs(const Batch& batch, Index layer);
  /// Makes an empty memory of one head of the model's mixer.
  std::unique_ptr<HeadMemory<T>> memory(Index head) const;

  /// MixerCore::warning of the first layer that has one.
  std::string warning() const;

  /// Bytes kept between forward and backward for (B, T) with `targets` targets a row.
  Index activation_bytes(Index batch, Index tokens, Index targets) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vla_bench
