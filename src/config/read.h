// JSON in and out of RunConfig.
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

/// The mixer that a file's metadata names under "mixer", with those of its keys that it names too;
/// what else it says is not looked at. Values are JSON or plain names. Throws BadInput.
MixerOptions read_mixer(const std::map<std::string, std::string>& texts, std::string_view origin);

/// Checks that need more than one key (n_pairs against vocabulary and sequence, seq_len against
/// max_seq_len, duplicate labels) of one sweep point. Throws BadInput beginning with the JSON
/// pointer. parse_config calls it for every point; `config.sweep` is not looked at.
void validate(const RunConfig& config);

/// Tokens a row: task.seq_len or its default. copy: the odd 2 floor((seq_len - 1) / 2) + 1;
/// recall: one write a pair.
Index sequence_length(const RunConfig& config);
/// Positions of a row that carry a target, which accuracy is over; 0 where nothing is trained.
Index targets_per_row(const RunConfig& config);
/// How a row of tokens is made; random: uniformly random tokens without targets.
RowKind row_kind(const RunConfig& config);

/// Bytes of a label or of a run's name: what a table or a figure's legend can still show; folder
/// names, which share it, end at 255.
inline constexpr std::size_t kMaxNameBytes = 200;

/// The mixer's label, else its name and what differs from its defaults: "vla penalty=frozen".
std::string mixer_label(const MixerConfig& mixer);

/// What the numbers of the experiment's table are computed in: the config's precision, or "float64"
/// where memories alone are stepped (recall; state_norm and jacobian on a Gaussian stream).
std::string_view computed_in(const RunConfig& config);

/// One unit of work: a config with one mixer, one seed, no sweep.
struct CellConfig {
  RunConfig config;
  std::string hash;   // cell_hash: of what can change the result (config/identity.h)
  std::string title;  // "vla n_pairs=8 seed=42" for progress lines
};

/// All cells in the stated order: sweep axes (first slowest), mixers, seeds (fastest).
/// `device` is the resolved one: it is part of a cell's identity. A cell that the config would
/// repeat (a sweep over a key of other mixers, say) stands once. A cell's mixer carries its full
/// label, to which swept keys without a column in the experiment's table are added
/// ("vla lr=0.001"). Throws BadInput when that makes a label too long, or there are over 100,000
/// cells.
std::vector<CellConfig> expand_cells(const RunConfig& config, Device device);

/// Resolved config, every key, fixed order; `parse_config(dump_config(c))` gives c back.
std::string dump_config(const RunConfig& config);

/// JSON Schema (draft 2020-12) made from the visits.
std::string config_schema();

}  // namespace vla_bench
