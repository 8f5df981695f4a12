// Reading, checking and writing configs, and expanding them into cells.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"

namespace vla_bench {

/// Reads a config file (comments allowed), applies `overrides` ("key.path=JSON"; a value that is
/// not JSON is taken as a string), validates. Throws BadInput naming file, JSON pointer and what
/// was expected; an unknown key names the nearest known one.
/// An override names elements by index ("mixers.0.penalty") or a key of every mixer that has it
/// ("mixer.lambda_0"); config/overrides.h says what it does to a sweep.
RunConfig read_config(const std::filesystem::path& path, std::span<const std::string> overrides);
RunConfig parse_config(std::string_view json, std::string_view origin,
                       std::span<const std::string> overrides = {});

/// Reads a mixer from a file's metadata: its name under "mixer" and the keys of its own that are
/// there; ignores the rest. Values are JSON or plain names. Throws BadInput.
MixerOptions read_mixer(const std::map<std::string, std::string>& texts, std::string_view origin);

/// Checks that need more than one key (n_pairs against vocabulary and sequence, seq_len against
/// max_seq_len, duplicate labels) of one sweep point. Throws BadInput beginning with the JSON
/// pointer. parse_config calls it for every point; ignores `config.sweep`.
void validate(const RunConfig& config);

/// Tokens per row: task.seq_len or its default. copy: the odd 2 floor((seq_len - 1) / 2) + 1;
/// recall: one write per pair.
Index sequence_length(const RunConfig& config);
/// Positions per row with a target, over which accuracy is taken; 0 without training.
Index targets_per_row(const RunConfig& config);
/// How a row of tokens is made; random: uniformly random tokens without targets.
RowKind row_kind(const RunConfig& config);

/// Most bytes of a label or a run's name, so that tables and legends can show it; folder names,
/// which have the same limit, may have at most 255.
inline constexpr std::size_t kMaxNameBytes = 200;

/// The mixer's label, else its name and the keys not at their defaults: "vla penalty=frozen".
std::string mixer_label(const MixerConfig& mixer);

/// The precision of the numbers in the experiment's table: the config's, or "float64" where only
/// memories are stepped (recall; state_norm and jacobian on a Gaussian stream).
std::string_view computed_in(const RunConfig& config);

/// One unit of work: a config with one mixer, one seed, no sweep.
struct CellConfig {
  RunConfig config;
  std::string hash;   // cell_hash (config/identity.h)
  std::string title;  // "vla n_pairs=8 seed=42" for progress lines
};

/// All cells in the order of sweep axes (first slowest), mixers, seeds (fastest). `device` is the
/// resolved one, which is part of a cell's identity. A cell that the config repeats (by a sweep
/// over a key of other mixers, say) appears once. A cell's mixer has its full label. Throws
/// BadInput when there are over 100,000 cells.
std::vector<CellConfig> expand_cells(const RunConfig& config, Device device);

/// The resolved config as JSON: every key, in a fixed order; `parse_config(dump_config(c))` is c.
std::string dump_config(const RunConfig& config);

/// The JSON Schema (draft 2020-12) of configs, made from the visits.
std::string config_schema();

}  // namespace vla_bench
