// The identity of a cell: the keys that can change its result, and hashes of them.
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
  std::string value;  // as written in a config: 0.001, frozen, null
  bool is_default = false;
  bool named_at_default = true;  // FieldInfo's
};

/// The keys that can change the result of `cell` (one mixer, one seed, no sweep, a resolved
/// device), in the order of the config: experiment, device, precision where something is computed
/// in it, the seed, the mixer's keys, and those of the other sections that its experiment reads.
/// Not among them: name, label, threads, how often a run logs or writes checkpoints. task.seq_len
/// is resolved to a length. Keys that are not named at their default are left out there.
std::vector<IdentityKey> identity_keys(const RunConfig& cell);

/// The keys that are not at their default, sorted, one per line ("train.lr=0.001"). Keys that later
/// versions add do not change it.
std::string identity_text(const RunConfig& cell);

/// hash_hex of identity_text: 16 digits.
std::string cell_hash(const RunConfig& cell);

/// identity_text without the line of the seed: the same for cells that differ only in the seed.
std::string group_text(const RunConfig& cell);
/// The identity_text of the group's cell with this seed.
std::string with_seed(std::string_view group_text, Index seed);

/// A group's hash: 8 digits.
std::string group_hash(const RunConfig& cell);
std::string group_hash_of_text(std::string_view group_text);

}  // namespace vla_bench
