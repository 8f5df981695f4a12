// What follows from more than one key, of a config without a sweep; checks first of all.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "config/identity.h"
#include "config/read.h"
#include "core/rng.h"
#include "experiments/list.h"

namespace vla_bench {
namespace {

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

void validate_name(const RunConfig& config) {
  const std::string& name = config.name;
  const bool plain = name != "." && name != ".." && name.size() <= kMaxNameBytes &&
                     name.find_first_of("/\\") == std::string::npos && !has_control_character(name);
  require(plain, "/name", "expected a plain folder name of at most {} bytes", kMaxNameBytes);
}

void validate_mixers(const RunConfig& config) {
  require(!config.mixers.empty(), "/mixers", "expected at least one mixer");
  std::set<std::string> labels;
  for (std::size_t i = 0; i < config.mixers.size(); ++i) {
    const MixerConfig& mixer = config.mixers[i];
    const std::string pointer = fmt::format("/mixers/{}", i);
    const std::string label = mixer_label(mixer);
    require(label.size() <= kMaxNameBytes && !has_control_character(label), pointer + "/label",
            "expected at most {} bytes without control characters", kMaxNameBytes);
    require(labels.insert(label).second, pointer,
            "label \"{}\" is taken by an earlier mixer; give this one its own \"label\"", label);
  }
}

void validate_layers(const ModelConfig& model) {
  const auto listed = static_cast<Index>(model.layers.size());
  require(listed == 0 || listed == model.n_layers, "/model/layers",
          "expected one kind for each of model.n_layers ({}) layers or an empty list, got {}",
          model.n_layers, listed);
  require(model.mixer_layers() > 0, "/model/layers", "expected at least one layer to be \"mixer\"");
}

void validate_value_width(const RunConfig& config) {
  const Index d_h = config.model.d_h;
  const Index d_v = config.model.value_channels();
  require(d_v % d_h == 0, "/model/d_v", "expected a multiple of model.d_h ({}), got {}", d_h, d_v);
  if (d_v == d_h) return;
  for (const MixerConfig& mixer : config.mixers) {
    const std::string_view reason = why_values_are_as_wide_as_keys(mixer.options);
    require(reason.empty(), "/model/d_v",
            "expected null or model.d_h ({}) for the mixer {}, since {}; got {}", d_h,
            mixer_label(mixer), reason, d_v);
  }
}

void validate_seeds(const RunConfig& config) {
  require(!config.seeds.empty(), "/seeds", "expected at least one seed");
  std::vector<Index> seeds = config.seeds;
  std::sort(seeds.begin(), seeds.end());
  const auto twice = std::adjacent_find(seeds.begin(), seeds.end());
  require(twice == seeds.end(), "/seeds", "{} stands twice", twice == seeds.end() ? 0 : *twice);
}

/// The config with rows of one size in place of its segments.
RunConfig of_one_size(RunConfig config) {
  config.task.train_segments.clear();
  config.task.eval_segments.clear();
  return config;
}
template <class Segment>
RunConfig of_one_size(const RunConfig& config, const Segment& segment) {
  RunConfig sized = of_one_size(config);
  sized.task.n_pairs = segment.n_pairs;
  sized.task.seq_len = segment.seq_len;
  return sized;
}

}  // namespace

Index sequence_length(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::sequence_length(config); });
}

Index targets_per_row(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::targets_per_row(config); });
}

RowKind row_kind(const RunConfig& config) {
  return with_experiment(config.experiment, [&]<class E>() { return E::row_kind(config); });
}

TrainSizes::TrainSizes(const RunConfig& config)
    : starts_{0},
      shuffled_(config.task.segment_order == SegmentOrder::shuffled),
      seed_(static_cast<std::uint64_t>(config.seeds.empty() ? 0 : config.seeds.front())) {
  const std::vector<TrainSegment>& segments = config.task.train_segments;
  if (segments.empty() || !reads_key(config, "task.train_segments")) {
    configs_.push_back(of_one_size(config));
    size_of_.push_back(0);
    starts_.push_back(1);
    return;
  }
  for (const TrainSegment& segment : segments) {
    const auto same = std::find_if(configs_.begin(), configs_.end(), [&](const RunConfig& known) {
      return known.task.n_pairs == segment.n_pairs && known.task.seq_len == segment.seq_len;
    });
    size_of_.push_back(static_cast<std::size_t>(same - configs_.begin()));
    if (same == configs_.end()) configs_.push_back(of_one_size(config, segment));
    starts_.push_back(starts_.back() + segment.steps);
  }
}

std::size_t TrainSizes::at(Index step) {
  const Index in_cycle = step % cycle();
  if (size_of_.size() == 1) return 0;
  if (shuffled_) {
    if (step / cycle() != shuffled_cycle_) shuffle(step / cycle());
    return size_of_[order_[static_cast<std::size_t>(in_cycle)]];
  }
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), in_cycle);
  return size_of_[static_cast<std::size_t>(after - starts_.begin()) - 1];
}

/// Fisher and Yates's shuffle of the cycle's steps.
void TrainSizes::shuffle(Index cycle) {
  order_.clear();
  for (std::size_t segment = 0; segment < size_of_.size(); ++segment) {
    const Index steps = starts_[segment + 1] - starts_[segment];
    order_.insert(order_.end(), static_cast<std::size_t>(steps),
                  static_cast<std::uint32_t>(segment));
  }
  Rng rng(seed_, RngStream::segments, static_cast<std::uint32_t>(cycle), 0);
  for (std::size_t left = order_.size(); left > 1; --left) {
    std::swap(order_[left - 1], order_[rng.below(static_cast<std::uint32_t>(left))]);
  }
  shuffled_cycle_ = cycle;
}

Index TrainSizes::steps_of(std::size_t size) const {
  Index steps = 0;
  for (std::size_t segment = 0; segment < size_of_.size(); ++segment) {
    if (size_of_[segment] == size) steps += starts_[segment + 1] - starts_[segment];
  }
  return steps;
}

bool has_slices(const RunConfig& config) {
  return !config.task.eval_segments.empty() && reads_key(config, "task.eval_segments");
}

std::vector<Slice> eval_slices(const RunConfig& config) {
  if (!has_slices(config)) return {{.name = "", .config = of_one_size(config)}};
  std::vector<Slice> slices;
  for (const EvalSegment& segment : config.task.eval_segments) {
    slices.push_back({.name = slice_name(segment.seq_len, segment.n_pairs),
                      .config = of_one_size(config, segment)});
  }
  return slices;
}

std::string slice_name(Index seq_len, Index n_pairs) {
  return fmt::format("{}/{}", seq_len, n_pairs);
}

std::string_view computed_in(const RunConfig& config) {
  const bool in_float64 =
      with_experiment(config.experiment, [&]<class E>() { return E::in_float64(config); });
  return in_float64 ? "float64" : enum_name(config.precision);
}

void validate(const RunConfig& config) {
  validate_name(config);
  validate_mixers(config);
  validate_layers(config.model);
  validate_value_width(config);
  validate_seeds(config);
  with_experiment(config.experiment, [&]<class E>() { E::validate(config); });
}

}  // namespace vla_bench
