#include "train/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "config/identity.h"
#include "config/read.h"
#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

constexpr Index kHistoryColumns = 5;
constexpr std::string_view kOptimiserPrefix = "optimizer.";
constexpr std::string_view kOptimiserSuffix = ".safetensors";

/// The config as the checkpoint's metadata has it: without run name, device and threads, which
/// cannot change the parameters.
std::string told_config(RunConfig config) {
  config.name.clear();
  config.device = DeviceRequest::automatic;
  config.threads = 0;
  return dump_config(config);
}

constexpr const char* kIdentity = "identity";
constexpr const char* kChecksum = "checksum";
constexpr const char* kStopped = "stopped";

/// hash_hex of the whole file except the checksum itself.
std::string checksum_of(const TensorFile& file) {
  std::string digest;
  for (const auto& [key, value] : file.metadata()) {
    if (key != kChecksum) digest += fmt::format("{}={}\n", key, value);
  }
  for (const std::string& name : file.names()) {
    const TensorEntry& tensor = file.at(name);
    const std::string_view bytes(reinterpret_cast<const char*>(tensor.data.data()),
                                 tensor.data.size());
    digest += fmt::format("{} {} {} {}\n", name, dtype_name(tensor.dtype),
                          fmt::join(tensor.shape, "x"), hash_hex(bytes));
  }
  return hash_hex(digest);
}

void write_sealed(TensorFile& file, const fs::path& path) {
  file.metadata()[kChecksum] = checksum_of(file);
  file.write(path);
}

/// Reads a file. Throws BadInput when a byte has changed since it was written.
TensorFile read_sealed(const fs::path& path) {
  TensorFile file = TensorFile::read(path);
  if (file.text(kChecksum) != checksum_of(file)) {
    throw BadInput(
        fmt::format("[{}] checksum: damaged, its content is not what was written", path.string()));
  }
  return file;
}

/// Adds each parameter's slice of a flat buffer as "<prefix><name>".
template <class T>
void add_slices(TensorFile& file, const ParameterTable& table, const Array<T>& flat,
                const std::string& prefix) {
  Array<T> host(Device::cpu, flat.size());
  device_copy(Device::cpu, host.data(), flat.device(), flat.data(),
              static_cast<std::size_t>(flat.bytes()));
  for (const Parameter& parameter : table.all()) {
    file.add(prefix + parameter.name, parameter.shape, host.data() + parameter.offset);
  }
}

template <class T>
Array<T> read_slices(const TensorFile& file, const ParameterTable& table,
                     const std::string& prefix) {
  Array<T> host(Device::cpu, table.size());
  for (const Parameter& parameter : table.all()) {
    const std::vector<T> values = file.values<T>(prefix + parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), host.data() + parameter.offset);
  }
  return host;
}

template <class T>
void copy_to(const Array<T>& host, Array<T>& flat) {
  device_copy(flat.device(), flat.data(), Device::cpu, host.data(),
              static_cast<std::size_t>(host.bytes()));
}

/// The step in the name of an optimiser's file.
std::optional<Index> step_of(std::string_view name) {
  if (!name.starts_with(kOptimiserPrefix) || !name.ends_with(kOptimiserSuffix)) return {};
  name.remove_prefix(kOptimiserPrefix.size());
  if (name.size() <= kOptimiserSuffix.size()) return {};
  name.remove_suffix(kOptimiserSuffix.size());
  Index step = 0;
  const char* const end = name.data() + name.size();
  const auto result = std::from_chars(name.data(), end, step);
  if (result.ec != std::errc() || result.ptr != end) return {};
  return step;
}

/// Keeps files of later steps: another process on the same cell is ahead, and the checkpoint on
/// disk may be its own.
void remove_earlier_optimisers(const fs::path& folder, Index step) {
  std::error_code ignored;  // a file that stays behind costs space, not correctness
  fs::directory_iterator entry(folder, ignored);
  while (!ignored && entry != fs::directory_iterator()) {
    const std::optional<Index> other = step_of(entry->path().filename().string());
    std::error_code vanished;
    if (other && *other < step) fs::remove(entry->path(), vanished);
    entry.increment(ignored);
  }
}

/// Reads the history; no row may be after `steps_done`. `path` names the file in messages.
std::vector<HistoryRow> read_history(const TensorFile& moments, const fs::path& path,
                                     Index steps_done) {
  const auto& shape = moments.at("history").shape;
  const std::array expected = {shape.empty() ? Index{0} : shape.front(), kHistoryColumns};
  const std::vector<double> rows = moments.values<double>("history", expected);
  std::vector<HistoryRow> history;
  for (std::size_t at = 0; at < rows.size(); at += kHistoryColumns) {
    if (!(rows[at] >= 0.0 && rows[at] <= static_cast<double>(steps_done))) {
      throw BadInput(fmt::format("[{}] history: expected steps of 0 .. {}, got {}", path.string(),
                                 steps_done, rows[at]));
    }
    history.push_back({.step = static_cast<Index>(rows[at]),
                       .loss = rows[at + 1],
                       .accuracy = rows[at + 2],
                       .lr = rows[at + 3],
                       .gradient_norm = rows[at + 4]});
  }
  return history;
}

}  // namespace

fs::path optimiser_path(const fs::path& checkpoint, Index step) {
  return checkpoint.parent_path() / fmt::format("{}{}{}", kOptimiserPrefix, step, kOptimiserSuffix);
}

template <class T>
void save_checkpoint(const fs::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, const TrainLog& log) {
  const ParameterTable& table = model.parameters();
  const Index steps_done = optimiser.read().step;
  const std::string step = std::to_string(steps_done);

  TensorFile moments;
  moments.metadata()["step"] = step;
  add_slices(moments, table, optimiser.first_moment, "exp_avg.");
  add_slices(moments, table, optimiser.second_moment, "exp_avg_sq.");
  std::vector<double> rows;
  for (const HistoryRow& row : log.history) {
    rows.insert(rows.end(),
                {static_cast<double>(row.step), row.loss, row.accuracy, row.lr, row.gradient_norm});
  }
  moments.add("history", {static_cast<Index>(log.history.size()), kHistoryColumns}, rows.data());
  moments.add("train_seconds", {1}, &log.train_seconds);
  write_sealed(moments, optimiser_path(path, steps_done));

  TensorFile parameters;
  parameters.metadata() = {{"format", "pt"},
                           {"step", step},
                           {"config", told_config(config)},
                           {kIdentity, identity_text(config)}};
  if (log.stopped) parameters.metadata()[kStopped] = "true";
  add_slices(parameters, table, model.values(), "");
  write_sealed(parameters, path);
  remove_earlier_optimisers(path.parent_path(), steps_done);
}

template <class T>
void load_checkpoint(const fs::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, TrainLog& log) {
  const TensorFile parameters = read_sealed(path);
  if (parameters.text(kIdentity) != identity_text(config)) {
    throw BadInput(
        fmt::format("[{}] checkpoint: made by another config, expected this run's", path.string()));
  }
  const Index steps_done = parameters.integer("step");
  if (steps_done < 0 || steps_done > config.train.steps) {
    throw BadInput(fmt::format("[{}] metadata \"step\": expected 0 .. {}, got {}", path.string(),
                               config.train.steps, steps_done));
  }
  const ParameterTable& table = model.parameters();
  const Array<T> values = read_slices<T>(parameters, table, "");
  const fs::path moments_path = optimiser_path(path, steps_done);
  const TensorFile moments = read_sealed(moments_path);
  const Array<T> first_moment = read_slices<T>(moments, table, "exp_avg.");
  const Array<T> second_moment = read_slices<T>(moments, table, "exp_avg_sq.");
  std::vector<HistoryRow> rows = read_history(moments, moments_path, steps_done);
  const double seconds = moments.values<double>("train_seconds", std::array<Index, 1>{1})[0];

  copy_to(values, model.values());
  copy_to(first_moment, optimiser.first_moment);
  copy_to(second_moment, optimiser.second_moment);
  optimiser.write({.step = steps_done});
  log = {.history = std::move(rows),
         .train_seconds = seconds,
         .stopped = parameters.metadata().contains(kStopped)};
}

#define VLA_INSTANTIATE(T)                                                                  \
  template void save_checkpoint(const std::filesystem::path&, const RunConfig&, TinyLm<T>&, \
                                OptimiserState<T>&, const TrainLog&);                       \
  template void load_checkpoint(const std::filesystem::path&, const RunConfig&, TinyLm<T>&, \
                                OptimiserState<T>&, TrainLog&);
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
