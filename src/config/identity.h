// What makes a cell the cell it is: the keys that can change its result, and the hashes over them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "config/config.h"

namespace vla_bench {

/// A key that can change a cell's result.
struct IdentityKey {
  std::string key;    // "train.lr", "mixer.lambda_0", "seed"
  std::string value;  // as a person writes it: 0.001, frozen, null
  bool is_default = false;
};

/// The keys that can change the result of `cell` (one mixer, one seed, no sweep, a resolved
/// device), in the order of the config: experiment, device, precision where something is computed
/// in it, the seed, the mixer's keys, and those of the other sections that its experiment reads.
/// Not among them: name, label, threads, how often a run logs or writes checkpoints. task.seq_len
/// has the length that it stands for.
std::vector<IdentityKey> identity_keys(const RunConfig& cell);

/// The keys that are not at their default, sorted, a line each ("train.lr=0.001"): a key that a
/// later version adds leaves it as it is.
std::string identity_text(const RunConfig& cell);

/// hash_hex of identity_text: 16 digits.
std::string cell_hash(const RunConfig& cell);

/// 8 digits that cells share when they differ in the seed only.
std::string group_hash(const RunConfig& cell);
std::string group_hash(std::span<const IdentityKey> keys);

}  // namespace vla_bench
