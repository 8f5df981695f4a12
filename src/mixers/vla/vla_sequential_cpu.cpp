#include "core/error.h"
#include "mixers/vla/vla.h"
#include "mixers/vla/vla_sequential.h"

namespace vla_bench::mixers {
namespace {

template <class T>
class SequentialVlaCore final : public MixerCore<T> {
 public:
  SequentialVlaCore(const MixerConfig& config, Index d_h) : core_(make_vla_core<T>(config, d_h)) {}

  void forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
               Array<T>* saved) override {
    if (saved != nullptr) saved->resize(context.device, 0);
    const HeadDims& dims = inputs.dims;
#pragma omp parallel for num_threads(context.threads) schedule(static, 1)
    for (Index lane = 0; lane < dims.lanes(); ++lane) {
      const Index head = lane % dims.heads;
      const Index first = lane / dims.heads * dims.tokens;
      const auto memory = core_->memory();
      for (Index row = first; row < first + dims.tokens; ++row) {
        memory->step(inputs.q.at(row, head), inputs.k.at(row, head), inputs.v.at(row, head),
                     inputs.aux.empty() ? nullptr : inputs.aux.at(row, head), o.at(row, head));
      }
    }
  }

  void backward(const Context& /*context*/, const CoreInputs<T>& /*inputs*/,
                const CoreGradients<T>& /*gradients*/, const Array<T>& /*saved*/) override {
    throw RunError("[vla] sequential: forward alone");
  }

  std::unique_ptr<HeadMemory<T>> memory() const override { return core_->memory(); }
  Index state_bytes(const HeadDims& dims) const override { return core_->state_bytes(dims); }
  Index saved_bytes(const HeadDims& /*dims*/) const override { return 0; }

 private:
  std::unique_ptr<MixerCore<T>> core_;
};

}  // namespace

template <class T>
std::unique_ptr<MixerCore<T>> make_sequential_vla_core(const MixerConfig& config, Index d_h) {
  return std::make_unique<SequentialVlaCore<T>>(config, d_h);
}

template std::unique_ptr<MixerCore<float>> make_sequential_vla_core(const MixerConfig&, Index);
template std::unique_ptr<MixerCore<double>> make_sequential_vla_core(const MixerConfig&, Index);

}  // namespace vla_bench::mixers
