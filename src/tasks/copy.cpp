#include "ops/ops.h"
#include "tasks/make_rows.h"
#include "tasks/rows.h"

namespace vla_bench {

void make_copy_rows(const RunConfig& config, const RowDraws& draws, Batch& batch) {
  for (Index b = 0; b < batch.batch; ++b) {
    Rng rng = draws.row(b);
    copy_row(rng, static_cast<std::int32_t>(config.model.vocab_size),
             static_cast<std::int32_t>(batch.tokens), kIgnoreTarget,
             batch.inputs.data() + b * batch.tokens, batch.targets.data() + b * batch.tokens);
  }
}

}  // namespace vla_bench
