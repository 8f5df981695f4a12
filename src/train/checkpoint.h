// A training run on disk, in two safetensors files:
//   checkpoint.safetensors         the parameters under their PyTorch names and nothing else, the
//                                  tied head once, as tok.weight: load_state_dict(load_file(...),
//                                  strict=False) takes it; step, resolved config and identity in
//                                  the metadata
//   optimizer.<step>.safetensors   exp_avg.<name>, exp_avg_sq.<name>, history (rows, 5) and
//                                  train_seconds (1)
// Both carry a checksum over all their content in the metadata, which loading verifies.
// The optimiser's file is written first and the ones before are removed last: whenever a run is
// killed, the parameters on disk have their optimiser state beside them. When several processes
// run one cell, the one behind may lose its optimiser's file to the one ahead between those two
// writes; such a pair is refused, and a run that starts anew from step 0 reaches the same bits.
#pragma once

#include <filesystem>
#include <vector>

#include "train/trainer.h"

namespace vla_bench {

/// Throws RunError when the files cannot be written.
template <class T>
void save_checkpoint(const std::filesystem::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, const std::vector<HistoryRow>& history,
                     double train_seconds);

/// Throws BadInput naming the file, and the tensor, when it does not fit the model or was made by
/// a config of another identity (config/identity.h), or is damaged; then nothing has been changed.
template <class T>
void load_checkpoint(const std::filesystem::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, std::vector<HistoryRow>& history,
                     double& train_seconds);

/// The optimiser's file beside a checkpoint of `step`.
std::filesystem::path optimiser_path(const std::filesystem::path& checkpoint, Index step);

}  // namespace vla_bench
