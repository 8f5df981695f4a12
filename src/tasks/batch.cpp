#include "tasks/batch.h"

#include "config/read.h"
#include "ops/ops.h"
#include "tasks/make_rows.h"
#include "tasks/rows.h"

namespace vla_bench {
namespace {

void make_random_rows(const RunConfig& config, const RowDraws& draws, Batch& batch) {
  for (Index b = 0; b < batch.batch; ++b) {
    random_row(draws.row(b), static_cast<std::int32_t>(config.model.vocab_size),
               static_cast<std::int32_t>(batch.tokens), kIgnoreTarget,
               batch.inputs.data() + b * batch.tokens, batch.targets.data() + b * batch.tokens);
  }
}

}  // namespace

void make_batch(const RunConfig& config, RngStream stream, Index index, Index batch_size,
                Batch& batch) {
  batch.batch = batch_size;
  batch.tokens = sequence_length(config);
  batch.inputs.resize(Device::cpu, batch.batch * batch.tokens);
  batch.targets.resize(Device::cpu, batch.batch * batch.tokens);
  const RowDraws draws{.seed = static_cast<std::uint64_t>(config.seeds.front()),
                       .stream = stream,
                       .index = static_cast<std::uint32_t>(index)};
  switch (config.experiment) {
    case ExperimentKind::mqar:
      make_mqar_rows(config, draws, batch);
      break;
    case ExperimentKind::copy:
      make_copy_rows(config, draws, batch);
      break;
    case ExperimentKind::recall:
    case ExperimentKind::state_norm:
    case ExperimentKind::jacobian:
    case ExperimentKind::latency:
      make_random_rows(config, draws, batch);
      break;
  }
}

}  // namespace vla_bench
