#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "config/read.h"
#include "core/error.h"
#include "core/safetensors.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

constexpr Index kHistoryColumns = 5;

/// What decides the numbers of a run: where and how wide it ran does not.
std::string identity(RunConfig config) {
  config.name.clear();
  config.device = DeviceRequest::automatic;
  config.threads = 0;
  return dump_config(config);
}

/// Adds every parameter's slice of a flat buffer as "<prefix><name>".
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
void read_slices(const TensorFile& file, const ParameterTable& table, const std::string& prefix,
                 Array<T>& flat) {
  Array<T> host(Device::cpu, table.size());
  for (const Parameter& parameter : table.all()) {
    const std::vector<T> values = file.values<T>(prefix + parameter.name, parameter.shape);
    std::copy(values.begin(), values.end(), host.data() + parameter.offset);
  }
  device_copy(flat.device(), flat.data(), Device::cpu, host.data(),
              static_cast<std::size_t>(host.bytes()));
}

void remove_other_optimisers(const fs::path& kept) {
  std::error_code ignored;  // a file that stays behind costs space, not correctness
  for (const auto& entry : fs::directory_iterator(kept.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("optimizer.") && name.ends_with(".safetensors") &&
        entry.path().filename() != kept.filename()) {
      fs::remove(entry.path(), ignored);
    }
  }
}

}  // namespace

fs::path optimiser_path(const fs::path& checkpoint, Index step) {
  return checkpoint.parent_path() / fmt::format("optimizer.{}.safetensors", step);
}

template <class T>
void save_checkpoint(const fs::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, const std::vector<HistoryRow>& history,
                     double train_seconds) {
  const ParameterTable& table = model.parameters();
  const Index steps_done = optimiser.read().step;
  const std::string step = std::to_string(steps_done);

  TensorFile moments;
  moments.metadata()["step"] = step;
  add_slices(moments, table, optimiser.first_moment, "exp_avg.");
  add_slices(moments, table, optimiser.second_moment, "exp_avg_sq.");
  std::vector<double> rows;
  for (const HistoryRow& row : history) {
    rows.insert(rows.end(),
                {static_cast<double>(row.step), row.loss, row.accuracy, row.lr, row.gradient_norm});
  }
  moments.add("history", {static_cast<Index>(history.size()), kHistoryColumns}, rows.data());
  moments.add("train_seconds", {1}, &train_seconds);
  const fs::path moments_path = optimiser_path(path, steps_done);
  moments.write(moments_path);

  TensorFile parameters;
  parameters.metadata() = {{"format", "pt"}, {"step", step}, {"config", identity(config)}};
  add_slices(parameters, table, model.values(), "");
  parameters.write(path);
  remove_other_optimisers(moments_path);
}

template <class T>
void load_checkpoint(const fs::path& path, const RunConfig& config, TinyLm<T>& model,
                     OptimiserState<T>& optimiser, std::vector<HistoryRow>& history,
                     double& train_seconds) {
  const TensorFile parameters = TensorFile::read(path);
  if (parameters.text("config") != identity(config)) {
    throw BadInput(fmt::format(
        "[{}] checkpoint: made by another config, expected this run's (remove it or use --force)",
        path.string()));
  }
  const ParameterTable& table = model.parameters();
  read_slices(parameters, table, "", model.values());
  const Index steps_done = parameters.integer("step");
  optimiser.write({.step = steps_done});

  const TensorFile moments = TensorFile::read(optimiser_path(path, steps_done));
  read_slices(moments, table, "exp_avg.", optimiser.first_moment);
  read_slices(moments, table, "exp_avg_sq.", optimiser.second_moment);
  const std::vector<double> rows = moments.values<double>("history");
  history.clear();
  for (std::size_t at = 0; at + kHistoryColumns <= rows.size(); at += kHistoryColumns) {
    history.push_back({.step = static_cast<Index>(rows[at]),
                       .loss = rows[at + 1],
                       .accuracy = rows[at + 2],
                       .lr = rows[at + 3],
                       .gradient_norm = rows[at + 4]});
  }
  train_seconds = moments.values<double>("train_seconds", std::array<Index, 1>{1})[0];
}

#define VLA_INSTANTIATE(T)                                                                   \
  template void save_checkpoint(const std::filesystem::path&, const RunConfig&, TinyLm<T>&,  \
                                OptimiserState<T>&, const std::vector<HistoryRow>&, double); \
  template void load_checkpoint(const std::filesystem::path&, const RunConfig&, TinyLm<T>&,  \
                                OptimiserState<T>&, std::vector<HistoryRow>&, double&);
VLA_INSTANTIATE(float)
VLA_INSTANTIATE(double)
#undef VLA_INSTANTIATE

}  // namespace vla_bench
