#include "experiments/whole_length.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>

#include "experiments/reference_range.h"
#include "experiments/worst_error.h"

namespace vla_bench {
namespace {

constexpr Index kMostSteps = Index{1} << 17;
constexpr Index kMostStateSteps = Index{1} << 29;  // tokens times d_h d_v
constexpr Index kFewestSteps = 64;
constexpr Index kMostKeptBytes = Index{1} << 31;

// Kernels order their sums differently from the memory, and either may have a small error by luck.
constexpr double kRoundingMargin = 32.0;

// Tokens that a tile of a kernel computes together: one that overflows may spoil those before it.
constexpr Index kLongestTile = 64;

/// An element of a (B, T, row) array that is beyond float32.
struct Place {
  Index batch = 0;
  Index token = 0;  // from 0
  Index column = 0;
};

/// The earliest such element, by token. Reads the array a block at a time, since it may exceed the
/// host's memory.
template <class T>
std::optional<Place> first_beyond_float32(const Array<T>& values, const HeadDims& dims,
                                          const std::atomic<bool>* stop) {
  constexpr Index kBlock = Index{1} << 22;  // elements
  if (values.empty()) return {};
  const Index row = values.size() / dims.rows();
  const Index batch_size = dims.tokens * row;
  std::vector<T> block(static_cast<std::size_t>(std::min(kBlock, batch_size)));
  std::optional<Place> earliest;
  Index end = batch_size;  // end of the part of a batch element that is still to be read
  for (Index batch = 0; batch < dims.batch; ++batch) {
    for (Index first = 0; first < end; first += kBlock) {
      if (stop != nullptr && stop->load()) return {};
      const Index count = std::min(kBlock, end - first);
      device_copy(Device::cpu, block.data(), values.device(),
                  values.data() + batch * batch_size + first,
                  static_cast<std::size_t>(count) * sizeof(T));
      const auto found = std::find_if_not(block.begin(), block.begin() + count, [](T value) {
        return std::abs(value) <= static_cast<T>(std::numeric_limits<float>::max());
      });
      if (found == block.begin() + count) continue;
      const Index at = first + (found - block.begin());
      earliest = Place{batch, at / row, at % row};
      end = at / row * row;  // others only if they are earlier
    }
  }
  return earliest;
}

template <class T>
Lane last_lane(const CoreBuffers<T>& buffers) {
  return {buffers.dims.batch - 1, buffers.dims.heads - 1};
}

template <class T>
std::vector<double> output_row(const CoreBuffers<T>& buffers, const Lane& lane, Index token) {
  const Index width = buffers.dims.value_channels();
  const HeadView<const T> view(buffers.o.data(), buffers.dims.heads * width, width);
  std::vector<T> row(static_cast<std::size_t>(width));
  device_copy(Device::cpu, row.data(), buffers.o.device(),
              view.at(lane.batch * buffers.dims.tokens + token - 1, lane.head),
              row.size() * sizeof(T));
  return {row.begin(), row.end()};
}

/// The outputs of the memory stepped in U at the tokens `rows`; fewer once stopped.
template <class U, class T>
std::vector<std::vector<double>> memory_rows(const MixerConfig& mixer,
                                             const CoreBuffers<T>& buffers, const Lane& lane,
                                             std::span<const Index> rows,
                                             const std::atomic<bool>* stop) {
  LaneMemory<U> memory(mixer, buffers.dims, lane.head);
  LaneTokens<T> tokens(buffers, lane);
  std::vector<std::vector<double>> outputs;
  for (Index t = 1; t <= rows.back(); ++t) {
    if (stop != nullptr && stop->load()) break;
    const bool wanted = rows[outputs.size()] == t;
    const std::vector<U>& out = memory.step(tokens.at(t - 1), wanted);
    if (wanted) outputs.emplace_back(out.begin(), out.end());
  }
  return outputs;
}

}  // namespace

Index compared_tokens(const MixerConfig& mixer, const HeadDims& dims) {
  if (LaneMemory<double>(mixer, dims).keeps_tokens()) {
    const Index kept = 2 * dims.d_h * static_cast<Index>(sizeof(double));  // bytes a token
    return std::min(dims.tokens, kMostKeptBytes / kept);
  }
  const Index most = kMostStateSteps / (dims.d_h * dims.value_channels());
  return std::min(dims.tokens, std::clamp(most, kFewestSteps, kMostSteps));
}

std::vector<Index> compared_rows(Index tokens) {
  std::vector<Index> rows;
  for (Index octave = 1; octave < tokens; octave *= 2) {
    rows.push_back(octave);
    const Index between = octave + octave / 2;
    if (between > octave && between < tokens) rows.push_back(between);
  }
  rows.push_back(tokens);
  return rows;
}

template <class T>
PassVerdict WholeLengthCheck<T>::finite(MixerCore<T>& core, LatencyPass pass,
                                        CoreBuffers<T>& buffers) const {
  const CoreInputs<T> inputs = buffers.inputs();
  const CoreGradients<T> gradients = buffers.gradients();
  const bool backward = pass == LatencyPass::backward;
  core.forward(context_, inputs, buffers.output(), backward ? &buffers.saved : nullptr);
  if (backward) core.backward(context_, inputs, gradients, buffers.saved);
  deliver_core(core, context_, inputs, buffers.output(), backward ? &gradients : nullptr);

  const HeadDims& dims = buffers.dims;
  const auto look_at = [&](const char* what, const Array<T>& values, Index head_width) {
    const auto place = first_beyond_float32(values, dims, stop_);
    if (!place) return PassVerdict{};
    const Lane lane{place->batch, place->column / head_width % dims.heads};
    return verdict_on(what, buffers, lane, place->token + 1);
  };
  PassVerdict verdict = look_at("o", buffers.o, dims.value_channels());
  if (!backward || verdict.status != CellStatus::ok) return verdict;
  verdict = look_at("dq, dk, dv", buffers.d_projections, dims.d_h);
  if (verdict.status != CellStatus::ok) return verdict;
  for (std::size_t i = 0; i < buffers.more.size(); ++i) {
    const std::string name = fmt::format("dmore[{}]", i);
    verdict = look_at(name.c_str(), buffers.more[i].gradients, buffers.more[i].width);
    if (verdict.status != CellStatus::ok) break;
  }
  return verdict;
}

template <class T>
PassVerdict WholeLengthCheck<T>::verdict_on(const char* what, const CoreBuffers<T>& buffers,
                                            const Lane& lane, Index token) const {
  // A gradient also depends on later tokens.
  const bool gradient = what[0] == 'd';
  const Index last = gradient ? buffers.dims.tokens : token + kLongestTile;
  const bool reference = std::is_same_v<T, double>;  // which cannot be wrong
  if (reference || beyond_float32(mixer_, buffers, lane, last, stop_).any()) {
    return {CellStatus::diverged,
            fmt::format("{} leaves the range of float32 at token {}", what, token)};
  }
  return {CellStatus::failed,
          fmt::format("[{}] {} is not finite at token {}, where float32 holds it", mixer_.name(),
                      what, token)};
}

template <class T>
PassVerdict WholeLengthCheck<T>::values(const CoreBuffers<T>& buffers) const {
  const Lane lane = last_lane(buffers);
  const HeadDims& dims = buffers.dims;
  const std::vector<Index> rows = compared_rows(compared_tokens(mixer_, dims));
  const auto expected = memory_rows<double>(mixer_, buffers, lane, rows, stop_);
  std::vector<std::vector<double>> rounded;  // the memory in float32, where it is needed
  double scale = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    // All of few channels may be small by chance, but not much smaller than those of the row
    // before.
    scale = std::max({largest(expected[i]), scale / 4, 1e-300});
    const double error = worst_error(output_row(buffers, lane, rows[i]), expected[i], scale);
    if (error <= allowed_) continue;
    if (rounded.empty()) rounded = memory_rows<float>(mixer_, buffers, lane, rows, stop_);
    if (rounded.size() < rows.size()) return {};  // stopped
    if (error <= kRoundingMargin * worst_error(rounded[i], expected[i], scale)) continue;
    if (const auto beyond = beyond_float32(mixer_, buffers, lane, rows[i], stop_); beyond.any()) {
      return {CellStatus::diverged,
              fmt::format("the state leaves the range of float32 at token {}", beyond.token())};
    }
    return {CellStatus::failed,
            fmt::format("[{}] o: relative error {:.3g} at token {} against the memory in float64, "
                        "over {:g}",
                        mixer_.name(), error, rows[i], allowed_)};
  }
  return {};
}

template class WholeLengthCheck<float>;
template class WholeLengthCheck<double>;

}  // namespace vla_bench
