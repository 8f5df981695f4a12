// The points of a sweep. Internal to config.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace vla_bench {

/// One value of one axis at a point.
struct Assignment {
  std::string key;    // dotted, as the config has it
  std::string value;  // as shown: strings without quotes, 0.1, 8
};

struct SweepPoint {
  RunConfig config;  // without a sweep
  std::vector<Assignment> assignments;
};

/// The keys of an axis: "train.lr,task.n_pairs" moves two together.
std::vector<std::string> axis_keys(std::string_view key);

/// "n_pairs=8 d_h=32": the last part of each key unless two axes share it.
std::string describe_assignments(std::span<const Assignment> assignments);
/// The name of `assignments[i]` there: "n_pairs".
std::string_view short_key(std::span<const Assignment> assignments, std::size_t i);

/// Calls `visit` with every point of the cartesian product, first axis slowest; with one point when
/// there is no sweep. One point at a time, since each holds all mixers and seeds. An axis of
/// several keys has one list per point, with one value per key. Throws BadInput naming axis and
/// value when a key is unknown or cannot be swept, a value is invalid or occurs twice, two keys
/// overlap
/// ("model" and "model.d_h"), or there are over 20,000 points, 200,000 values of all points or
/// 1,000,000 runs (points x mixers x seeds). `origin` names the config in messages.
void for_each_point(const RunConfig& config, std::string_view origin,
                    const std::function<void(const SweepPoint&)>& visit);

}  // namespace vla_bench
