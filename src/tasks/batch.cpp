#include "tasks/batch.h"

#include <algorithm>

#include "config/read.h"
#include "tasks/cuda_batches.h"
#include "tasks/make_rows.h"
#include "tasks/rows.h"

namespace vla_bench {
namespace {

/// Rows of copy_row or random_row.
template <class MakeRow>
void make_rows(const RunConfig& config, const RowDraws& draws, Batch& batch, MakeRow&& make_row) {
  for (Index b = 0; b < batch.batch; ++b) {
    Rng rng = draws.row(b);
    make_row(rng, static_cast<std::int32_t>(config.model.vocab_size),
             static_cast<std::int32_t>(batch.tokens), kIgnoreTarget,
             batch.inputs.data() + b * batch.tokens, batch.targets.data() + b * batch.tokens);
  }
}

}  // namespace

void Batch::index_targets() {
  const auto carries = [](std::int32_t target) { return target != kIgnoreTarget; };
  const auto count = static_cast<Index>(std::count_if(targets.begin(), targets.end(), carries));
  target_rows.resize(Device::cpu, count);
  target_tokens.resize(Device::cpu, count);
  Index next = 0;
  for (Index i = 0; i < targets.size(); ++i) {
    if (!carries(targets[i])) continue;
    target_rows[next] = static_cast<std::int32_t>(i);
    target_tokens[next++] = targets[i];
  }
}

BatchMaker::BatchMaker(const Context& context, const RunConfig& config)
    : context_(context), config_(config) {
  if (context.device == Device::cuda) on_gpu_ = tasks::make_cuda_batch_maker(config);
}

BatchMaker::~BatchMaker() = default;

void BatchMaker::make_next(RngStream stream, Index* index, Index batch_size, Batch& batch) {
  if (on_gpu_ == nullptr) return make_batch(config_, stream, (*index)++, batch_size, batch);
  batch.batch = batch_size;
  batch.tokens = sequence_length(config_);
  for (Array<std::int32_t>* positions : {&batch.inputs, &batch.targets}) {
    positions->resize(context_.device, batch.batch * batch.tokens);
  }
  for (Array<std::int32_t>* targets : {&batch.target_rows, &batch.target_tokens}) {
    targets->resize(context_.device, batch.batch * targets_per_row(config_));
  }
  on_gpu_->make_next(stream, index, batch);
}

void make_batch(const RunConfig& config, RngStream stream, Index index, Index batch_size,
                Batch& batch) {
  batch.batch = batch_size;
  batch.tokens = sequence_length(config);
  batch.inputs.resize(Device::cpu, batch.batch * batch.tokens);
  batch.targets.resize(Device::cpu, batch.batch * batch.tokens);
  const RowDraws draws{.seed = static_cast<std::uint64_t>(config.seeds.front()),
                       .stream = stream,
                       .index = static_cast<std::uint32_t>(index)};
  switch (row_kind(config)) {
    case RowKind::paper:
    case RowKind::zoology:
      make_mqar_rows(config, draws, batch);
      break;
    case RowKind::copy:
      make_rows(config, draws, batch, copy_row<Rng>);
      break;
    case RowKind::random:
      make_rows(config, draws, batch, random_row<Rng>);
      break;
  }
  batch.index_targets();
}

}  // namespace vla_bench
