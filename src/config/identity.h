// What makes a cell the cell it is: the keys that can change its result, and the hashes over them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace vla_bench {

/// Whether the experiment of `config` reads the key ("task.n_pairs").
bool reads_key(const RunConfig& config, std::string_view key);

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

/// identity_text without the line of the seed: cells that differ in the seed only share it.
std::string group_text(const RunConfig& cell);
/// The identity_text of the cell of a group that has this seed.
std::string with_seed(std::string_view group_text, Index seed);

/// 8 digits of a group.
std::string group_hash(const RunConfig& cell);
std::string group_hash_of_text(std::string_view group_text);

}  // namespace vla_bench
