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

// Where a config has task.train_segments or task.eval_segments, the functions below take the config
// of one size: see TrainSizes and eval_slices.

/// Tokens per row: task.seq_len or its default. copy: the odd 2 floor((seq_len - 1) / 2) + 1;
/// recall: one write per pair.
Index sequence_length(const RunConfig& config);
/// Positions per row with a target, over which accuracy is taken; 0 without training.
Index targets_per_row(const RunConfig& config);
/// How a row of tokens is made; random: uniformly random tokens without targets.
RowKind row_kind(const RunConfig& config);

/// The sizes of training sequences, and which of them a step has: a function of (seed, step) only.
/// A cycle has every segment for its number of steps, in the order of task.train_segments or
/// shuffled (segment_order, RngStream::segments). Without segments there is one size.
class TrainSizes {
 public:
  explicit TrainSizes(const RunConfig& config);

  /// The distinct sizes in the order of their first segment: configs of one size.
  const std::vector<RunConfig>& configs() const { return configs_; }
  /// The position in configs() of training step `step`, counted from 0.
  std::size_t at(Index step);
  /// Steps of a cycle, and those of each size.
  Index cycle() const { return starts_.back(); }
  Index steps_of(std::size_t size) const;

 private:
  void shuffle(Index cycle);

  std::vector<RunConfig> configs_;
  std::vector<std::size_t> size_of_;  // (segments)
  std::vector<Index> starts_;         // (segments + 1), steps of a cycle before each segment
  bool shuffled_ = false;
  std::uint64_t seed_ = 0;
  Index shuffled_cycle_ = -1;
  std::vector<std::uint32_t> order_;  // (cycle), segments of that cycle's steps
};

/// What the evaluation measures by itself.
struct Slice {
  std::string name;  // slice_name; "" without task.eval_segments
  RunConfig config;  // of one size
};
/// In the order of task.eval_segments; without them one slice of n_pairs and seq_len.
std::vector<Slice> eval_slices(const RunConfig& config);
/// Whether the config's rows in tables are slices and their mean.
bool has_slices(const RunConfig& config);

/// "64/4": tokens and pairs, as arXiv:2312.04927 has them.
std::string slice_name(Index seq_len, Index n_pairs);
/// The slice of tables that is the mean of all, each with the same weight.
inline constexpr std::string_view kMeanSlice = "mean";

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
