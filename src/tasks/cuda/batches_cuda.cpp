// Makes batches on a GPU: translates a config into the kernel's arguments.
#include "tasks/cuda/batches_cuda.h"

#include "config/read.h"
#include "core/cuda/stream_context.h"
#include "ops/ops.h"
#include "tasks/cuda_batches.h"
#include "tasks/query_slots.h"

namespace vla_bench::tasks {
namespace {

class CudaBatchMaker final : public BatchMaker::Implementation {
 public:
  explicit CudaBatchMaker(const RunConfig& config) : curriculum_(config.task.curriculum) {
    rows_.kind = row_kind(config);
    rows_.row = {.n_pairs = static_cast<std::int32_t>(config.task.n_pairs),
                 .distinct = static_cast<std::int32_t>(config.task.n_pairs),
                 .passes = static_cast<std::int32_t>(config.task.passes),
                 .rewrites = static_cast<std::int32_t>(config.task.rewrites),
                 .vocab = static_cast<std::int32_t>(config.model.vocab_size),
                 .tokens = static_cast<std::int32_t>(sequence_length(config)),
                 .ignore = kIgnoreTarget};
    rows_.filler = filler_of(rows_.row.vocab, config.task.random_filler, config.task.filler_values);
    rows_.seed = static_cast<std::uint64_t>(config.seeds.front());
    rows_.targets_per_row = targets_per_row(config);
    if (rows_.kind == RowKind::zoology) upload_slots(config.task.power_a);
  }

  void make_next(RngStream stream, Index* index, Batch& batch) override {
    rows_.stream = stream;
    rows_.curriculum = stream == RngStream::train_batch ? curriculum_ : 0;
    rows_.index = index;
    rows_.batch = batch.batch;
    rows_.inputs = batch.inputs.data();
    rows_.targets = batch.targets.data();
    rows_.target_rows = batch.target_rows.data();
    rows_.target_tokens = batch.target_tokens.data();
    scratch_.resize(Device::cuda, batch.batch * scratch_words(rows_));
    finished_.resize(Device::cuda, 1);
    rows_.finished = finished_.data();
    request_rows(cuda::stream_context().fork_side_stream(cuda::SideStream::batches), rows_,
                 scratch_.data());
  }

 private:
  void upload_slots(double power_a) {
    const QuerySlotTable table((rows_.row.tokens - written_tokens(rows_.row)) / 2, power_a);
    rows_.slots = table.view();
    const auto upload = [&](const std::uint32_t* from, Array<std::uint32_t>& to) {
      to.resize(Device::cuda, rows_.slots.count);
      device_copy(Device::cuda, to.data(), Device::cpu, from, static_cast<std::size_t>(to.bytes()));
      return to.data();
    };
    rows_.slots.weights = upload(rows_.slots.weights, weights_);
    rows_.slots.tree = upload(rows_.slots.tree, tree_);
  }

  Index curriculum_;
  BatchRows rows_;
  Array<std::uint32_t> weights_, tree_;  // (slots.count)
  Array<std::uint32_t> scratch_;         // (B, scratch_words)
  Array<unsigned> finished_;             // (1)
};

}  // namespace

std::unique_ptr<BatchMaker::Implementation> make_cuda_batch_maker(const RunConfig& config) {
  return std::make_unique<CudaBatchMaker>(config);
}

}  // namespace vla_bench::tasks
