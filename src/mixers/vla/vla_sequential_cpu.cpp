// VLA one token at a time on the CPU: a HeadMemory stepped through each lane.
#include "core/error.h"
#include "mixers/recurrence/recurrence.h"
#include "mixers/vla/vla.h"

namespace vla_bench {
namespace {

template <class T>
class SequentialVlaCore final : public MixerCore<T> {
 public:
  SequentialVlaCore(const VlaOptions& options, Index d_h)
      : core_(mixers::make_recurrent_core<T>(make_chain_rule<T>(options, d_h))) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override {
    if (saved != nullptr) saved->resize(context.device, 0);
    const HeadDims& dims = inputs.dims;
#pragma omp parallel for num_threads(context.threads) schedule(static, 1)
    for (Index lane = 0; lane < dims.lanes(); ++lane) {
      const Index head = lane % dims.heads;
      const Index first = lane / dims.heads * dims.tokens;
      const auto memory = core_->memory(head);
      for (Index row = first; row < first + dims.tokens; ++row) {
        memory->step(token_inputs(inputs, row, head), o.at(row, head));
      }
    }
  }

  void backward(const Context& /*context*/, const CoreInputs<T>& /*inputs*/,
                const CoreGradients<T>& /*gradients*/, const Array<T>& /*saved*/) override {
    throw RunError("[vla] sequential: only a forward pass");
  }

  std::unique_ptr<HeadMemory<T>> memory(Index head) const override { return core_->memory(head); }
  Index state_bytes(const HeadDims& dims) const override { return core_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }

 private:
  std::unique_ptr<MixerCore<T>> core_;
};

}  // namespace

template <class T>
std::unique_ptr<MixerCore<T>> make_sequential_core(const VlaOptions& options, Index d_h) {
  return std::make_unique<SequentialVlaCore<T>>(options, d_h);
}

template std::unique_ptr<MixerCore<float>> make_sequential_core(const VlaOptions&, Index);
template std::unique_ptr<MixerCore<double>> make_sequential_core(const VlaOptions&, Index);

}  // namespace vla_bench
