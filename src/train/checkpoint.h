// Checkpoints of a training run, in two safetensors files:
//   checkpoint.safetensors         the parameters under their PyTorch names and nothing else, the
//                                  tied head once, as tok.weight: load_state_dict(load_file(...),
//                                  strict=False) takes it; step, resolved config and identity in
//                                  the metadata, and "stopped" where stop_accuracy was reached
//   optimizer.<step>.safetensors   exp_avg.<name>, exp_avg_sq.<name>, history (rows, 5) and
//                                  train_seconds (1)
// The metadata of both has a checksum of the whole content, which loading verifies.
// The optimiser's file is written first and earlier ones are removed last: whenever a run is
// killed, the parameters on disk have their optimiser state. When several processes run one cell,
// the slower one may lose its optimiser's file to the faster one between those two writes; loading
// refuses such a pair, and the run starts again at step 0 and reaches the same bits.
#pragma once

#include <filesystem>
#include <vector>

#include "train/trainer.h"

namespace vla_bench {

/// Throws RunError when the files cannot be written.
template <class T>
void save_checkpoint(const std::filesystem::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, const TrainLog& log);

/// Throws BadInput naming the file and the tensor when the checkpoint does not fit the model, is of
/// a config of another identity (config/identity.h), or is damaged; nothing is changed then.
template <class T>
void load_checkpoint(const std::filesystem::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, TrainLog& log);

/// Path of the optimiser's file of a checkpoint at `step`.
std::filesystem::path optimiser_path(const std::filesystem::path& checkpoint, Index step);

}  // namespace vla_bench
