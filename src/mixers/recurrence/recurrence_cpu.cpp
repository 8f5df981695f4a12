#include "mixers/recurrence/recurrent_core.h"

namespace vla_bench::mixers {

template <class T>
void RecurrentCore<T>::forward(const Context& context, const CoreInputs<T>& inputs, HeadView<T> o,
                               Array<T>* saved) {
  const HeadDims& dims = inputs.dims;
  if (saved != nullptr) saved->resize(Device::cpu, saved_size(dims));
  T* const base = saved != nullptr ? saved->data() : nullptr;
  for_each_lane(context, dims, [&](Index lane, Thread& thread) {
    for (Index group = 0; group < dims.value_groups(); ++group) {
      thread.rule->start(dims.tokens, kept(base, dims, lane));
      thread.state.reset();
      const CoreInputs<T> own = of_group(inputs, group);
      const LaneTrace<T> trace = this->trace(base, dims, lane, group);
      for_each_tile(lane / dims.heads, lane % dims.heads, dims.tokens, false,
                    [&](const Tile& tile) {
                      thread.state.advance(tile, own, *thread.rule, of_group(o, group), trace);
                    });
    }
  });
}

template <class T>
void RecurrentCore<T>::backward(const Context& context, const CoreInputs<T>& inputs,
                                const CoreGradients<T>& gradients, const Array<T>& saved) {
  const HeadDims& dims = inputs.dims;
  d_parameters_.resize(Device::cpu, form_.parameters_width(form_.parameters, d_) * dims.lanes());
  std::fill_n(d_parameters_.data(), d_parameters_.size(), T(0));
  for_each_lane(context, dims, [&](Index index, Thread& thread) {
    if (thread.backward == nullptr || thread.backward_tokens != dims.tokens) {
      thread.backward = std::make_unique<BackwardScratch<T>>(form_, d_, dims.tokens);
      thread.backward_tokens = dims.tokens;
    }
    // The rule reads what it kept.
    thread.rule->start(dims.tokens, const_cast<T*>(kept(saved.data(), dims, index)));
    CoreGradients<T> of_lane = gradients;
    for (Index i = 0; i < form_.parameters; ++i) {
      of_lane.dparameters[static_cast<std::size_t>(i)] =
          lane_sums(dims, i) + index / dims.heads * dims.heads * form_.parameter_width(i, d_);
    }
    BackwardScratch<T>& scratch = *thread.backward;
    std::fill_n(scratch.sums, scratch.sums_size, T(0));
    const Index batch = index / dims.heads, head = index % dims.heads;
    for (Index group = 0; group < dims.value_groups(); ++group) {
      const CoreInputs<T> own_inputs = of_group(inputs, group);
      const CoreGradients<T> own_gradients = of_group(gradients, group);
      const Lane lane{.inputs = own_inputs,
                      .gradients = own_gradients,
                      .batch = batch,
                      .head = head,
                      .trace = trace(saved.data(), dims, index, group),
                      .rule = *thread.rule,
                      .scratch = scratch};
      against_time(lane);
      in_time(lane);
    }
    for_each_tile(batch, head, dims.tokens, false, [&](const Tile& tile) {
      thread.rule->unbind(tile, inputs, scratch.gradients(form_.decay, tile.first), of_lane);
    });
    thread.rule->finish(inputs, of_lane);
  });
  add_parameter_gradients(dims, gradients);
}

/// Lanes summed over their tokens; heads sum their lanes here, in the order of the batch.
template <class T>
void RecurrentCore<T>::add_parameter_gradients(const HeadDims& dims,
                                               const CoreGradients<T>& gradients) {
  for (Index i = 0; i < form_.parameters; ++i) {
    T* const sums = gradients.dparameters[static_cast<std::size_t>(i)];
    const T* of_lane = lane_sums(dims, i);
    const Index width = dims.heads * form_.parameter_width(i, d_);
    for (Index batch = 0; batch < dims.batch; ++batch, of_lane += width) {
      for (Index j = 0; j < width; ++j) sums[j] += of_lane[j];
    }
  }
}

template <class T>
std::unique_ptr<MixerCore<T>> make_recurrent_core(std::unique_ptr<RecurrentRule<T>> rule) {
  return std::make_unique<RecurrentCore<T>>(std::move(rule));
}
template std::unique_ptr<MixerCore<float>> make_recurrent_core(
    std::unique_ptr<RecurrentRule<float>>);
template std::unique_ptr<MixerCore<double>> make_recurrent_core(
    std::unique_ptr<RecurrentRule<double>>);

}  // namespace vla_bench::mixers
