#include "model/tiny_lm.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"
#include "mixers/value_groups.h"
#include "model/block.h"

namespace vla_bench {
namespace {

/// Checks tokens and rows, which index tables and must not read past them.
void check_batch(const Batch& batch, const ModelConfig& model) {
  if (model.positions && batch.tokens > model.max_seq_len) {
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
  for (std::int32_t token : batch.target_tokens) check("targets", token);
  for (std::int32_t row : batch.target_rows) {
    if (row < 0 || row >= batch.inputs.size()) {
      throw BadInput(fmt::format("[model] target_rows: expected positions of 0 .. {}, got {}",
                                 batch.inputs.size() - 1, row));
    }
  }
}

/// A model's parts and the offsets of their parameters; only State allocates memory for values.
template <class T>
struct Parts {
  Parts(const ModelConfig& model, const MixerConfig& mixer, Device device,
        Implementation implementation) {
    const Index D = model.d_model();
    token_table = table.add("tok.weight", {model.vocab_size, D}, Initialisation::normal);
    if (model.positions) {
      position_table = table.add("pos.weight", {model.max_seq_len, D}, Initialisation::normal);
    }
    for (Index i = 0; i < model.n_layers; ++i) {
      blocks.emplace_back(model, mixer, device, implementation, i, table);
    }
    final_norm = std::make_unique<LayerNorm<T>>("ln_f", D, table);
  }

  ParameterTable table;
  Index token_table = 0, position_table = 0;  // offsets
  std::vector<Block<T>> blocks;
  std::unique_ptr<LayerNorm<T>> final_norm;
};

}  // namespace

LossResult loss_result(const ops::LossSums& sums) {
  const auto count = static_cast<double>(sums.count);
  return {.loss = sums.loss / count,
          .accuracy = static_cast<double>(sums.correct) / count,
          .count = sums.count};
}

ParameterTable tiny_lm_parameters(const ModelConfig& model, const MixerConfig& mixer) {
  return std::move(Parts<float>(model, mixer, Device::cpu, Implementation::production).table);
}

template <class T>
struct TinyLm<T>::State : Parts<T> {
  using Parts<T>::table, Parts<T>::token_table, Parts<T>::position_table, Parts<T>::blocks,
      Parts<T>::final_norm;

  State(const ModelConfig& model_, const MixerConfig& mixer, const Context& context_,
        Implementation implementation)
      : Parts<T>(model_, mixer, context_.device, implementation),
        model(model_),
        context(context_),
        values(context_.device, table.size()),
        gradients(context_.device, table.size()) {}

  Matrix<T> token_matrix(T* flat) {
    return {flat + token_table, model.vocab_size, model.d_model()};
  }
  /// Empty without positions.
  Matrix<T> position_matrix(T* flat) {
    if (!model.positions) return {};
    return {flat + position_table, model.max_seq_len, model.d_model()};
  }
  Matrix<T> resized(Array<T>& array, Index rows, Index cols) {
    array.resize(context.device, rows * cols);
    return {array.data(), rows, cols};
  }

  /// The batch on the model's device.
  const Batch& on_device(const Batch& batch) {
    if (batch.inputs.device() == Device::cpu) check_batch(batch, model);
    if (batch.inputs.device() == context.device) return batch;
    uploaded.batch = batch.batch;
    uploaded.tokens = batch.tokens;
    const auto upload = [&](const Array<std::int32_t>& from, Array<std::int32_t>& to) {
      to.resize(context.device, from.size());
      device_copy(to.device(), to.data(), from.device(), from.data(),
                  static_cast<std::size_t>(from.bytes()));
    };
    upload(batch.inputs, uploaded.inputs);
    upload(batch.target_rows, uploaded.target_rows);
    upload(batch.target_tokens, uploaded.target_tokens);
    return uploaded;
  }

  /// Embeds the batch and runs the blocks; returns the residual stream (B * T, D).
  Matrix<const T> run_blocks(const Batch& batch, bool training) {
    const Matrix<T> h = resized(embedded, batch.batch * batch.tokens, model.d_model());
    ops::embedding_forward<T>(context, {.tokens = batch.inputs.data(),
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

  /// The loss over the rows with a target and, with `training`, its gradients with respect to their
  /// normed rows and the token table.
  void head(const Batch& batch, Matrix<const T> h, bool training, ops::LossSums* sums) {
    const Index count = batch.target_rows.size();
    if (count == 0) throw RunError("[model] loss: the batch has no targets");
    const Index D = model.d_model();
    const Index V = model.vocab_size;
    const Matrix<T> gathered = resized(selected, count, D);
    const Matrix<T> normed = resized(selected_normed, count, D);
    ops::gather_rows<T>(context, h, batch.target_rows.data(), gathered);
    final_norm->forward(context, gathered, values.data(), {}, normed);
    ops::LinearCrossEntropy<T> products{
        .x = normed,
        .weight = token_matrix(values.data()),
        .targets = batch.target_tokens.data(),
        .logits =
            resized(chunk_logits, std::min(count, ops::logit_chunk_rows(context.device, V)), V),
        .sums = sums};
    if (training) {
      products.dx = resized(d_selected_normed, count, D);
      products.dweight = token_matrix(gradients.data());
    }
    ops::linear_cross_entropy<T>(context, products);
  }

  /// After head(training): the gradient of the residual stream, zero in rows without a target.
  Matrix<T> head_backward(const Batch& batch, Index rows) {
    const Index count = batch.target_rows.size();
    const Index D = model.d_model();
    const Matrix<T> d_gathered = resized(d_selected, count, D);
    final_norm->backward(context, {selected.data(), count, D}, values.data(),
                         {d_selected_normed.data(), count, D}, {}, d_gathered, gradients.data());
    const Matrix<T> dh = resized(d_stream, rows, D);
    ops::scatter_rows<T>(context, d_gathered, batch.target_rows.data(), dh);
    return dh;
  }

  /// Runs `request` with memory for the loss and waits for the result.
  template <class Request>
  LossResult answer(const Request& request) {
    loss.resize(context.device, 1);
    request(loss.data());
    ops::LossSums sums;
    device_copy(Device::cpu, &sums, context.device, loss.data(), sizeof(sums));
    return loss_result(sums);
  }

  ModelConfig model;
  Context context;
  Array<T> values, gradients;

  Batch uploaded;                       // copy of a batch on another device
  Array<T> embedded;                    // (B * T, D)
  std::vector<Matrix<const T>> stream;  // residual stream before each block and at the end
  // Over the rows with a target.
  Array<T> selected, selected_normed;      // (count, D)
  Array<T> chunk_logits;                   // (rows of a chunk of them, V)
  Array<T> d_selected_normed, d_selected;  // (count, D)
  Array<T> d_stream;                       // (B * T, D)
  Array<ops::LossSums> loss;               // (1)
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
    const InitialScale scale{.init_std = state_->model.init_std,
                             .n_layers = state_->model.n_layers};
    T* values = host.data() + parameter.offset;
    for (Index i = 0; i < parameter.size(); ++i) {
      values[i] = static_cast<T>(initial_value(parameter, scale, rng));
    }
  }
  device_copy(state_->context.device, state_->values.data(), Device::cpu, host.data(),
              static_cast<std::size_t>(host.bytes()));
}

template <class T>
LossResult TinyLm<T>::evaluate(const Batch& batch) {
  return state_->answer([&](ops::LossSums* sums) { request_loss(batch, sums); });
}

template <class T>
void TinyLm<T>::request_loss(const Batch& batch, ops::LossSums* sums) {
  const Batch& placed = state_->on_device(batch);
  state_->head(placed, state_->run_blocks(placed, false), false, sums);
}

template <class T>
LossResult TinyLm<T>::forward_backward(const Batch& batch) {
  return state_->answer([&](ops::LossSums* sums) { request_gradients(batch, sums); });
}

template <class T>
void TinyLm<T>::request_gradients(const Batch& any, ops::LossSums* sums) {
  State& state = *state_;
  const Context& context = state.context;
  const Batch& batch = state.on_device(any);
  ops::fill_zero<T>(context, state.gradients.data(), state.gradients.size());
  const Matrix<const T> h = state.run_blocks(batch, true);
  state.head(batch, h, true, sums);
  Matrix<const T> dh = state.head_backward(batch, h.rows);
  for (Index i = state.model.n_layers - 1; i >= 0; --i) {
    dh = state.blocks[i].backward(context, state.stream[i], state.values.data(), dh,
                                  state.gradients.data());
  }
  // The head's gradient of the tied table may still be being computed.
  ops::join_side_streams(context);
  ops::embedding_backward<T>(context,
                             {.tokens = batch.inputs.data(),
                              .batch = batch.batch,
                              .tokens_per_row = batch.tokens,
                              .dh = dh,
                              .dtoken_table = state.token_matrix(state.gradients.data()),
                              .dposition_table = state.position_matrix(state.gradients.data())});
}

template <class T>
void TinyLm<T>::logits(const Batch& batch, Matrix<T> out) {
  State& state = *state_;
  const Index V = state.model.vocab_size;
  const Matrix<const T> h = state.run_blocks(state.on_device(batch), false);
  if (out.rows != h.rows || out.cols != V) {
    throw RunError(fmt::format("[model] logits: expected ({}, {}), got ({}, {})", h.rows, V,
                               out.rows, out.cols));
  }
  Array<T> normed_array, logits_array;
  const Matrix<T> normed = state.resized(normed_array, h.rows, h.cols);
  const Matrix<T> logits = state.resized(logits_array, h.rows, V);
  state.final_norm->forward(state.context, h, state.values.data(), {}, normed);
  ops::linear_forward<T>(
      state.context, {.x = normed, .weight = state.token_matrix(state.values.data()), .y = logits});
  for (Index i = 0; i < h.rows; ++i) {
    device_copy(Device::cpu, out.row(i), state.context.device, logits.row(i),
                static_cast<std::size_t>(V) * sizeof(T));
  }
}

template <class T>
CoreInputs<T> TinyLm<T>::core_inputs(const Batch& batch, Index layer) {
  state_->run_blocks(state_->on_device(batch), false);
  const MixerLayer<T>* mixer = state_->blocks.at(static_cast<std::size_t>(layer)).mixer();
  if (mixer == nullptr) {
    throw RunError(fmt::format("[model] core_inputs: layer {} is a gated convolution", layer));
  }
  return mixer->core_inputs(state_->values.data());
}

template <class T>
std::unique_ptr<HeadMemory<T>> TinyLm<T>::memory(Index head) const {
  const auto last = static_cast<std::size_t>(state_->model.last_mixer_layer());
  return head_memory(state_->blocks[last].mixer()->core(), head_dims(state_->model, 1, 1), head);
}

template <class T>
std::string TinyLm<T>::warning() const {
  for (const Block<T>& block : state_->blocks) {
    if (block.mixer() == nullptr) continue;
    if (std::string warning = block.mixer()->core().warning(); !warning.empty()) return warning;
  }
  return {};
}

template <class T>
Index TinyLm<T>::activation_bytes(Index batch, Index tokens, Index targets) const {
  const Index D = state_->model.d_model();
  // The embedded tokens; the head's rows before and after the final norm, their mean and deviation.
  const Index elements = batch * tokens * D + batch * targets * (2 * D + 2);
  Index bytes = elements * static_cast<Index>(sizeof(T));
  for (const Block<T>& block : state_->blocks) bytes += block.activation_bytes(batch, tokens);
  return bytes;
}

template class TinyLm<float>;
template class TinyLm<double>;

}  // namespace vla_bench
