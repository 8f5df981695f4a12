#include "experiments/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "core/rng.h"
#include "experiments/list.h"
#include "experiments/record.h"
#include "mixers/parameters.h"
#include "mixers/registry.h"
#include "mixers/value_groups.h"
#include "model/tiny_lm.h"

namespace vla_bench {
namespace {

// Stepping a memory that keeps every key is O(T^2): still a few seconds at this T.
constexpr Index kLongestGrowingMemory = 8192;

// Tokens between checks of the stop flag: a fraction of a second at any d_h.
constexpr Index kTokensPerStopCheck = 256;

/// Copies (B, T, H, width) from the memory of `device`.
std::vector<double> copy_tokens(Device device, const HeadView<const float>& view,
                                const HeadDims& dims, Index width) {
  // One copy of everything between the first and the last element, other projections included.
  const Index span =
      (dims.rows() - 1) * view.row_stride + (dims.heads - 1) * view.head_stride + width;
  std::vector<float> memory(static_cast<std::size_t>(span));
  device_copy(Device::cpu, memory.data(), device, view.data, memory.size() * sizeof(float));
  const HeadView<const float> host(memory.data(), view.row_stride, view.head_stride);

  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(dims.rows() * dims.heads * width));
  for (Index row = 0; row < dims.rows(); ++row) {
    for (Index head = 0; head < dims.heads; ++head) {
      const float* source = host.at(row, head);
      values.insert(values.end(), source, source + width);
    }
  }
  return values;
}

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](double value) { return std::isfinite(value); });
}

void draw(Rng& rng, Index width, std::vector<double>& out) {
  out.resize(static_cast<std::size_t>(width));
  for (double& value : out) value = rng.normal();
}

// Special values of the first token after which a head's state is not finite.
constexpr Index kInterrupted = 0;
constexpr Index kNever = std::numeric_limits<Index>::max();

/// The measurements of each head at each recorded token.
class HeadValues {
 public:
  HeadValues(Index heads, std::size_t rows, std::size_t columns)
      : rows_(rows), columns_(columns), values_(static_cast<std::size_t>(heads) * rows * columns) {}

  std::span<double> at(Index head, std::size_t row) {
    return {&values_[(static_cast<std::size_t>(head) * rows_ + row) * columns_], columns_};
  }
  /// Means over heads, added in their order.
  double mean(std::size_t row, std::size_t column) const {
    double sum = 0.0;
    for (std::size_t i = row * columns_ + column; i < values_.size(); i += rows_ * columns_) {
      sum += values_[i];
    }
    return sum / static_cast<double>(values_.size() / (rows_ * columns_));
  }

 private:
  std::size_t rows_, columns_;
  std::vector<double> values_;  // (H, rows, columns)
};

}  // namespace

TokenInputs<double> ProbeToken::view() const {
  TokenInputs<double> view{q.data(), k.data(), v.data()};
  for (std::size_t i = 0; i < more.size(); ++i) view.more[i] = more[i].data();
  for (std::size_t i = 0; i < parameters.size(); ++i) view.parameters[i] = parameters[i].data();
  return view;
}

std::vector<Index> recorded_tokens(Index tokens) {
  constexpr int kPerDecade = 16;
  constexpr Index kDenseUpTo = 1000;
  constexpr Index kDenseStep = 10;
  std::vector<Index> recorded = {tokens};
  for (int i = 0;; ++i) {
    const auto t = static_cast<Index>(std::llround(std::pow(10.0, i / double{kPerDecade})));
    if (t > tokens) break;
    recorded.push_back(t);
  }
  for (Index t = kDenseStep; t <= std::min(tokens, kDenseUpTo); t += kDenseStep) {
    recorded.push_back(t);
  }
  std::sort(recorded.begin(), recorded.end());
  recorded.erase(std::unique(recorded.begin(), recorded.end()), recorded.end());
  return recorded;
}

LayerTokens::LayerTokens(const MixerConfig& mixer, const CoreInputs<float>& inputs, Device device)
    : heads_(inputs.dims.heads) {
  const auto copy = [&](const HeadView<const float>& view, Index width) {
    return Projected{.width = width, .values = copy_tokens(device, view, inputs.dims, width)};
  };
  const Index d_h = inputs.dims.d_h;
  const MixerLayout layout = mixer_layout(mixer, d_h);
  q_ = copy(inputs.q, layout.key_channels(d_h));
  k_ = copy(inputs.k, layout.key_channels(d_h));
  v_ = copy(inputs.v, inputs.dims.value_channels());
  for (const Projection& projection : layout.more) {
    more_.push_back(copy(inputs.more[more_.size()], projection.width));
  }
  for (const CoreParameter& parameter : layout.parameters) {
    std::vector<float> values(static_cast<std::size_t>(core_parameter_size(parameter, heads_)));
    device_copy(Device::cpu, values.data(), device, inputs.parameters[parameters_.size()],
                values.size() * sizeof(float));
    parameters_.emplace_back(values.begin(), values.end());
  }
}

void LayerTokens::read(Index row, Index head, ProbeToken& out) const {
  const auto assign = [&](const Projected& from, std::vector<double>& to) {
    const auto first = from.values.begin() + (row * heads_ + head) * from.width;
    to.assign(first, first + from.width);
  };
  assign(q_, out.q);
  assign(k_, out.k);
  assign(v_, out.v);
  out.more.resize(more_.size());
  for (std::size_t i = 0; i < more_.size(); ++i) assign(more_[i], out.more[i]);
  out.parameters = parameters_;
}

ProbeInputs::ProbeInputs(const RunConfig& config, const Context& context)
    : source_(config.probe.source),
      seed_(static_cast<std::uint64_t>(config.seeds.front())),
      value_channels_(config.model.value_channels()) {
  const MixerConfig& mixer = config.mixers.front();
  const MixerLayout layout = mixer_layout(mixer, config.model.d_h);
  key_channels_ = layout.key_channels(config.model.d_h);
  for (const Projection& projection : layout.more) widths_.push_back(projection.width);
  if (source_ == ProbeSource::gaussian) {
    parameters_ = initial_core_parameters(layout, config.model.n_heads, seed_);
    return;
  }
  TinyLm<float> model(config.model, mixer, context);
  model.initialise(seed_);
  Batch batch;
  make_batch(config, RngStream::probe_tokens, 0, 1, batch);
  const CoreInputs<float> inputs = model.core_inputs(batch, config.model.last_mixer_layer());
  tokens_ = LayerTokens(mixer, inputs, context.device);
}

void ProbeInputs::read(Index t, Index head, ProbeToken& out) const {
  if (source_ == ProbeSource::model) return tokens_.read(t - 1, head, out);
  Rng rng(seed_, RngStream::gaussian, static_cast<std::uint32_t>(t - 1),
          static_cast<std::uint32_t>(head));
  draw(rng, key_channels_, out.q);
  draw(rng, key_channels_, out.k);
  draw(rng, value_channels_, out.v);
  out.more.resize(widths_.size());
  for (std::size_t i = 0; i < widths_.size(); ++i) draw(rng, widths_[i], out.more[i]);
  out.parameters = parameters_;
}

CellResult run_probe(const CellConfig& cell, const CellEnvironment& environment,
                     const MixerCore<double>& core, std::span<const Column> measured,
                     const ProbeObserver& observer) {
  const RunConfig& config = cell.config;
  const ProbeInputs inputs(config, environment.context);
  const std::vector<Index> recorded = recorded_tokens(sequence_length(config));
  HeadValues values(config.model.n_heads, recorded.size(), measured.size());
  std::vector<Index> ends(static_cast<std::size_t>(config.model.n_heads), kNever);
  parallel_items(environment.context.threads, config.model.n_heads, [&](Index head) {
    const auto memory = head_memory(core, head_dims(config.model, 1, 1), head);
    ProbeToken token;
    std::vector<double> out(static_cast<std::size_t>(config.model.value_channels()));
    std::size_t row = 0;
    for (Index t = 1; t <= recorded.back(); ++t) {
      if (t % kTokensPerStopCheck == 0 && environment.stop && environment.stop->load()) {
        ends[static_cast<std::size_t>(head)] = kInterrupted;
        return;
      }
      inputs.read(t, head, token);
      memory->step(token.view(), out.data());
      const std::span<double> here =
          recorded[row] == t ? values.at(head, row++) : std::span<double>();
      if (!all_finite(out) || !observer(head, *memory, here)) {
        ends[static_cast<std::size_t>(head)] = t;
        return;
      }
    }
  });
  const Index end = *std::min_element(ends.begin(), ends.end());
  if (end == kInterrupted) {
    return unmeasured(cell, environment, CellStatus::interrupted, "stopped");
  }
  CellResult result;
  result.table = Table(table_of(config.experiment));
  if (end != kNever) {
    result.status = CellStatus::diverged;
    result.reason = fmt::format("state is not finite at t = {}", end);
  }
  for (std::size_t row = 0; row < recorded.size() && recorded[row] < end; ++row) {
    Record record(table_of(config.experiment), config, environment.context.device);
    record.set(Columns::t, recorded[row]);
    for (std::size_t i = 0; i < measured.size(); ++i) {
      const double mean = values.mean(row, i);
      if (!std::isnan(mean)) record.set(measured[i], mean);
    }
    result.table.add(record.values());
  }
  return result;
}

Support probe_support(const RunConfig& config, Device device) {
  const MixerConfig& mixer = config.mixers.front();
  const Index d_h = config.model.d_h;
  // Memories are stepped on the CPU; a model runs on the cell's device.
  const Device needed = config.probe.source == ProbeSource::model ? device : Device::cpu;
  for (const Device where : {Device::cpu, needed}) {
    const Support support = mixer_support(mixer, d_h, where, Implementation::production);
    if (!support.ok) return support;
  }

  const auto core = make_mixer_core<double>(mixer, d_h, Device::cpu, Implementation::production);
  const Index tokens = sequence_length(config);
  const HeadDims one_token{.batch = 1, .tokens = 1, .heads = 1, .d_h = d_h};
  HeadDims all_tokens = one_token;
  all_tokens.tokens = tokens;
  const bool grows = core->state_bytes(all_tokens) > core->state_bytes(one_token);
  if (grows && tokens > kLongestGrowingMemory) {
    return {.ok = false,
            .reason = fmt::format("memory of {} grows with the sequence: probed up to {} tokens, "
                                  "not {}",
                                  mixer.name(), kLongestGrowingMemory, tokens)};
  }
  return {};
}

}  // namespace vla_bench
