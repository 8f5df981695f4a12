#include "model/tiny_lm.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "model/block.h"

namespace vla_bench {
namespace {

/// Tokens index tables: one out of range would read past them.
void check_batch(const Batch& batch, const ModelConfig& model) {
  if (batch.tokens > model.max_seq_len) {
    throw BadInput(fmt::format("[model] batch: expected at most {} tokens a row, got {}",
                               model.max_seq_len, batch.tokens));
  }
  const auto check = [&](const char* what, std::int32_t token) {
    if (token < 0 || token >= model.vocab_size) {
      throw BadInput(fmt::format("[model] {}: expected a token of 0 .. {}, got {}", what,
                                 model.vocab_size - 1, token));
    }
  };
  for (std::int32_t token : batch.inputs) check("inputs", token);
  for (std::int32_t token : batch.targets) {
    if (token != kIgnoreTarget) check("targets", token);
  }
}

void copy_to(Device device, Array<std::int32_t>& to, const std::vector<std::int32_t>& from) {
  to.resize(device, static_cast<Index>(from.size()));
  device_copy(device, to.data(), Device::cpu, from.data(), from.size() * sizeof(std::int32_t));
}

}  // namespace

template <class T>
struct TinyLm<T>::State {
  State(const ModelConfig& model_, const MixerConfig& mixer, const Context& context_,
        Implementation implementation)
      : model(model_), context(context_) {
    const Index D = model.d_model();
    token_table = table.add("tok.weight", {model.vocab_size, D}, Initialisation::normal);
    position_table = table.add("pos.weight", {model.max_seq_len, D}, Initialisation::normal);
    for (Index i = 0; i < model.n_layers; ++i) {
      blocks.emplace_back(model, mixer, context.device, implementation, i, table);
    }
    final_norm = std::make_unique<LayerNorm<T>>("ln_f", D, table);
    values.resize(context.device, table.size());
    gradients.resize(context.device, table.size());
  }

  Matrix<T> token_matrix(T* flat) {
    return {flat + token_table, model.vocab_size, model.d_model()};
  }
  Matrix<T> position_matrix(T* flat) {
    return {flat + position_table, model.max_seq_len, model.d_model()};
  }
  Matrix<T> resized(Array<T>& array, Index rows, Index cols) {
    array.resize(context.device, rows * cols);
    return {array.data(), rows, cols};
  }

  /// Embeds the batch and runs the blocks; returns the residual stream (B * T, D).
  Matrix<const T> run_blocks(const Batch& batch, bool training) {
    check_batch(batch, model);
    tokens.resize(context.device, batch.inputs.size());
    device_copy(context.device, tokens.data(), Device::cpu, batch.inputs.data(),
                static_cast<std::size_t>(batch.inputs.bytes()));
    const Matrix<T> h = resized(embedded, batch.batch * batch.tokens, model.d_model());
    ops::embedding_forward<T>(context, {.tokens = tokens.data(),
                                        .batch = batch.batch,
                                        .tokens_per_row = batch.tokens,
                                        .token_table = token_matrix(values.data()),
                                        .position_table = position_matrix(values.data()),
                                        .h = h});
    stream.assign(1, h);
    for (Block<T>& block : blocks) {
      stream.push_back(block.forward(context, batch.batch, batch.tokens, stream.back(),
                                     values.data(), training));
    }
    return stream.back();
  }

  /// Logits and loss over the rows that carry a target; with `training`, dlogits in their place.
  LossResult head(const Batch& batch, Matrix<const T> h, bool training) {
    std::vector<std::int32_t> rows;
    std::vector<std::int32_t> targets;
    for (Index i = 0; i < batch.targets.size(); ++i) {
      if (batch.targets[i] == kIgnoreTarget) continue;
      rows.push_back(static_cast<std::int32_t>(i));
      targets.push_back(batch.targets[i]);
    }
    if (rows.empty()) throw RunError("[model] loss: the batch has no targets");
    copy_to(context.device, target_rows, rows);
    copy_to(context.device, target_tokens, targets);

    const Index count = target_rows.size();
    const Index D = model.d_model();
    const Matrix<T> gathered = resized(selected, count, D);
    const Matrix<T> normed = resized(selected_normed, count, D);
    const Matrix<T> logits = resized(selected_logits, count, model.vocab_size);
    ops::gather_rows<T>(context, h, target_rows.data(), gathered);
    final_norm->forward(context, gathered, values.data(), normed);
    ops::linear_forward<T>(context,
                           {.x = normed, .weight = token_matrix(values.data()), .y = logits});
    const ops::LossSums sums =
        ops::cross_entropy<T>(context, {.logits = logits,
                                        .targets = target_tokens.data(),
                                        .dlogits = training ? logits : Matrix<T>()});
    const auto counted = static_cast<double>(sums.count);
    return {.loss = sums.loss / counted,
            .accuracy = static_cast<double>(sums.correct) / counted,
            .count = sums.count};
  }

  /// After head(training): the gradient of the residual stream, zero in rows without a target.
  Matrix<T> head_backward(Index rows) {
    const Index count = target_rows.size();
    const Index D = model.d_model();
    const Matrix<T> normed(selected_normed.data(), count, D);
    const Matrix<T> d_normed = resized(d_selected, count, D);
    ops::linear_backward<T>(context, {.x = normed,
                                      .weight = token_matrix(values.data()),
                                      .dy = {selected_logits.data(), count, model.vocab_size},
                                      .dx = d_normed,
                                      .dweight = token_matrix(gradients.data())});
    // Row by row, dx may take the place of dy.
    final_norm->backward(context, {selected.data(), count, D}, values.data(), d_normed, d_normed,
                         false, gradients.data());
    const Matrix<T> dh = resized(d_stream, rows, D);
    ops::scatter_rows<T>(context, d_normed, target_rows.data(), dh);
    return dh;
  }

  ModelConfig model;
  Context context;
  ParameterTable table;
  Index token_table = 0, position_table = 0;  // offsets
  std::vector<Block<T>> blocks;
  std::unique_ptr<LayerNorm<T>> final_norm;
  Array<T> values, gradients;

  Array<std::int32_t> tokens;           // (B, T)
  Array<T> embedded;                    // (B * T, D)
  std::vector<Matrix<const T>> stream;  // residual stream before each block and at the end
  Array<std::int32_t> target_rows;      // (count): rows that carry a target
  Array<std::int32_t> target_tokens;    // (count)
  Array<T> selected, selected_normed;   // (count, D)
  Array<T> selected_logits;             // (count, V)
  Array<T> d_selected;                  // (count, D)
  Array<T> d_stream;                    // (B * T, D)
  BlockScratch<T> scratch;
};

template <class T>
TinyLm<T>::TinyLm(const ModelConfig& model, const MixerConfig& mixer, const Context& context,
                  Implementation implementation)
    : state_(std::make_unique<State>(model, mixer, context, implementation)) {}

template <class T>
TinyLm<T>::~TinyLm() = default;

template <class T>
const ParameterTable& TinyLm<T>::parameters() const {
  return state_->table;
}

template <class T>
Array<T>& TinyLm<T>::values() {
  return state_->values;
}

template <class T>
Array<T>& TinyLm<T>::gradients() {
  return state_->gradients;
}

template <class T>
void TinyLm<T>::initialise(std::uint64_t seed) {
  Array<T> host(Device::cpu, state_->table.size());
  std::uint32_t index = 0;
  for (const Parameter& parameter : state_->table.all()) {
    Rng rng(seed, RngStream::parameters, index++, 0);
    const double bound = 1.0 / std::sqrt(static_cast<double>(parameter.shape.back()));
    const auto draw = [&]() -> double {
      switch (parameter.initialisation) {
        case Initialisation::normal:
          return state_->model.init_std * rng.normal();
        case Initialisation::zeros:
          return 0.0;
        case Initialisation::ones:
          return 1.0;
        case Initialisation::uniform_fan_in:
          return bound * (2.0 * rng.uniform() - 1.0);
      }
      return 0.0;
    };
    T* values = host.data() + parameter.offset;
    for (Index i = 0; i < parameter.size(); ++i) values[i] = static_cast<T>(draw());
  }
  device_copy(state_->context.device, state_->values.data(), Device::cpu, host.data(),
              static_cast<std::size_t>(host.bytes()));
}

template <class T>
LossResult TinyLm<T>::evaluate(const Batch& batch) {
  return state_->head(batch, state_->run_blocks(batch, false), false);
}

template <class T>
LossResult TinyLm<T>::forward_backward(const Batch& batch) {
  State& state = *state_;
  const Context& context = state.context;
  ops::fill_zero<T>(context, state.gradients.data(), state.gradients.size());
  const Matrix<const T> h = state.run_blocks(batch, true);
  const LossResult result = state.head(batch, h, true);
  const Matrix<T> dh = state.head_backward(h.rows);
  for (Index i = state.model.n_layers - 1; i >= 0; --i) {
    state.blocks[i].backward(context, state.stream[i], state.values.data(), state.scratch, dh,
                             state.gradients.data());
  }
  ops::embedding_backward<T>(context,
                             {.tokens = state.tokens.data(),
                              .batch = batch.batch,
                              .tokens_per_row = batch.tokens,
                              .dh = dh,
                              .dtoken_table = state.token_matrix(state.gradients.data()),
                              .dposition_table = state.position_matrix(state.gradients.data())});
  return result;
}

template <class T>
void TinyLm<T>::logits(const Batch& batch, Matrix<T> out) {
  State& state = *state_;
  const Index V = state.model.vocab_size;
  const Matrix<const T> h = state.run_blocks(batch, false);
  if (out.rows != h.rows || out.cols != V) {
    throw RunError(fmt::format("[model] logits: expected ({}, {}), got ({}, {})", h.rows, V,
                               out.rows, out.cols));
  }
  Array<T> normed_array, logits_array;
  const Matrix<T> normed = state.resized(normed_array, h.rows, h.cols);
  const Matrix<T> logits = state.resized(logits_array, h.rows, V);
  state.final_norm->forward(state.context, h, state.values.data(), normed);
  ops::linear_forward<T>(
      state.context, {.x = normed, .weight = state.token_matrix(state.values.data()), .y = logits});
  for (Index i = 0; i < h.rows; ++i) {
    device_copy(Device::cpu, out.row(i), state.context.device, logits.row(i),
                static_cast<std::size_t>(V) * sizeof(T));
  }
}

template <class T>
CoreInputs<T> TinyLm<T>::core_inputs(const Batch& batch, Index layer) {
  state_->run_blocks(batch, false);
  return state_->blocks.at(static_cast<std::size_t>(layer)).mixer().core_inputs();
}

template <class T>
std::unique_ptr<HeadMemory<T>> TinyLm<T>::memory() const {
  return state_->blocks.front().mixer().core().memory();
}

template <class T>
Index TinyLm<T>::activation_bytes(Index batch, Index tokens) const {
  Index bytes = batch * tokens * state_->model.d_model() * static_cast<Index>(sizeof(T));
  for (const Block<T>& block : state_->blocks) bytes += block.activation_bytes(batch, tokens);
  return bytes;
}

template class TinyLm<float>;
template class TinyLm<double>;

}  // namespace vla_bench
