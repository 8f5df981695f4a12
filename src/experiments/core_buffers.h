// All arrays that a mixer's core reads and writes, filled with random inputs, for timings and their
// verification.
#pragma once

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/rng.h"
#include "mixers/mixer.h"
#include "mixers/parameters.h"

namespace vla_bench {

template <class T>
struct CoreBuffers {
  /// A projection beyond q, k and v.
  struct More {
    Index width = 0;             // w
    Array<T> values, gradients;  // (B, T, H, w)
  };

  HeadDims dims;
  Index key_channels;  // of a head's q and k
  Array<T>
      projections;  // (B, T, ...): q, k (H, key_channels), v (H, d_v) side by side, as in a layer
  Array<T> o;       // (B, T, H, d_v)
  Array<T> d_o;     // (B, T, H, d_v)
  Array<T> d_projections;  // as projections
  std::vector<More> more;
  std::vector<More> parameters;  // the core's, (H, ...) each; a width is its size
  Array<T> saved;                // the core's

  /// All projections and the upstream gradient are standard normal draws of `seed`, parameters have
  /// initial values, rounded to binary32 for every T, so that float and double code see the same
  /// inputs.
  CoreBuffers(const MixerConfig& mixer, const HeadDims& head_dims, const Context& context,
              std::uint64_t seed)
      : dims(head_dims), key_channels(mixer_layout(mixer, dims.d_h).key_channels(dims.d_h)) {
    enum Substream : std::uint32_t { kProjections = 0, kMore = 1, kUpstream = 2, kFurther = 3 };
    fill(context, seed, kProjections, row_width(), projections);
    for (const Projection& projection : mixer_layout(mixer, dims.d_h).more) {
      const auto index = static_cast<std::uint32_t>(more.size());
      More& added = more.emplace_back();
      added.width = projection.width;
      const std::uint32_t substream = index == 0 ? kMore : kFurther + index - 1;
      fill(context, seed, substream, dims.heads * added.width, added.values);
    }
    fill(context, seed, kUpstream, width(), d_o);
    const MixerLayout layout = mixer_layout(mixer, dims.d_h);
    for (const auto& drawn : initial_core_parameters(layout, dims.heads, seed)) {
      More& added = parameters.emplace_back();
      added.width = static_cast<Index>(drawn.size());
      const std::vector<T> values(drawn.begin(), drawn.end());
      added.values.resize(context.device, added.width);
      device_copy(context.device, added.values.data(), Device::cpu, values.data(),
                  static_cast<std::size_t>(added.values.bytes()));
    }
    make_outputs();
  }

  /// The inputs of `other`, rotated to begin with token `first`: different numbers at different
  /// addresses, without the cost of drawing them.
  CoreBuffers(const CoreBuffers& other, Index first)
      : dims(other.dims), key_channels(other.key_channels) {
    rotate(other.projections, first, projections);
    for (const More& from : other.more) {
      More& added = more.emplace_back();
      added.width = from.width;
      rotate(from.values, first, added.values);
    }
    for (const More& from : other.parameters) {
      More& added = parameters.emplace_back();
      added.width = from.width;
      added.values.resize(from.values.device(), from.width);
      device_copy(added.values.device(), added.values.data(), from.values.device(),
                  from.values.data(), static_cast<std::size_t>(from.values.bytes()));
    }
    rotate(other.d_o, first, d_o);
    make_outputs();
  }

  /// Without `saved`.
  Index bytes() const {
    Index one_way = projections.bytes() + d_o.bytes();
    for (const More& projection : more) one_way += projection.values.bytes();
    return 2 * one_way;
  }

  CoreInputs<T> inputs() const {
    CoreInputs<T> inputs{.dims = dims,
                         .q = projection<const T>(projections.data(), 0),
                         .k = projection<const T>(projections.data(), 1),
                         .v = projection<const T>(projections.data(), 2)};
    for (std::size_t i = 0; i < more.size(); ++i) {
      inputs.more[i] = {more[i].values.data(), dims.heads * more[i].width, more[i].width};
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      inputs.parameters[i] = parameters[i].values.data();
    }
    return inputs;
  }
  HeadView<T> output() { return {o.data(), width(), dims.value_channels()}; }
  CoreGradients<T> gradients() {
    CoreGradients<T> gradients{.o = output(),
                               .d_o = HeadView<const T>(d_o.data(), width(), dims.value_channels()),
                               .dq = projection<T>(d_projections.data(), 0),
                               .dk = projection<T>(d_projections.data(), 1),
                               .dv = projection<T>(d_projections.data(), 2)};
    for (std::size_t i = 0; i < more.size(); ++i) {
      gradients.dmore[i] = {more[i].gradients.data(), dims.heads * more[i].width, more[i].width};
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      gradients.dparameters[i] = parameters[i].gradients.data();
    }
    return gradients;
  }

 private:
  Index width() const { return dims.heads * dims.value_channels(); }
  Index key_width() const { return dims.heads * key_channels; }
  Index row_width() const { return 2 * key_width() + width(); }

  /// 0: q, 1: k, 2: v.
  template <class U>
  HeadView<U> projection(U* data, Index which) const {
    return {data + which * key_width(), row_width(),
            which == 2 ? dims.value_channels() : key_channels};
  }

  void make_outputs() {
    o.resize(d_o.device(), d_o.size());
    d_projections.resize(projections.device(), projections.size());
    for (auto* both : {&more, &parameters}) {
      for (More& input : *both) {
        input.gradients.resize(input.values.device(), input.values.size());
      }
    }
  }

  void rotate(const Array<T>& from, Index first_row, Array<T>& to) const {
    if (from.empty()) return;
    to.resize(from.device(), from.size());
    const Index head = from.size() / dims.rows() * (first_row % dims.rows());
    const auto copy = [&](Index at, Index start, Index count) {
      device_copy(to.device(), to.data() + at, from.device(), from.data() + start,
                  static_cast<std::size_t>(count) * sizeof(T));
    };
    copy(0, head, from.size() - head);
    copy(from.size() - head, 0, head);
  }

  void fill(const Context& context, std::uint64_t seed, std::uint32_t substream, Index columns,
            Array<T>& values) const {
    Array<T> host(Device::cpu, dims.rows() * columns);
    parallel_items(context.threads, columns > 0 ? dims.rows() : 0, [&](Index row) {
      Rng rng(seed, RngStream::benchmark, static_cast<std::uint32_t>(row), substream);
      for (Index i = 0; i < columns; ++i) {
        host[row * columns + i] = static_cast<T>(static_cast<float>(rng.normal()));
      }
    });
    if (context.device == Device::cpu || host.empty()) {
      values = std::move(host);
      return;
    }
    values.resize(context.device, host.size());
    device_copy(context.device, values.data(), Device::cpu, host.data(),
                static_cast<std::size_t>(host.bytes()));
  }
};

/// The number of sets of buffers that together exceed twice the L2 cache, so that a pass finds
/// nothing there from its last call on the same set: at least 2, at most 512 and `most_calls`, and
/// at most a quarter of the free memory unless a single set is larger. A pass reads or writes
/// `touched_bytes` of a set; `set_bytes` are allocated.
inline Index buffer_sets(Index l2_bytes, Index free_bytes, Index touched_bytes, Index set_bytes,
                         Index most_calls) {
  const Index most = std::clamp<Index>(most_calls, 2, 512);
  const Index wanted =
      std::clamp<Index>(2 * l2_bytes / std::max<Index>(touched_bytes, 1) + 1, 2, most);
  const Index fitting = free_bytes / 4 / std::max<Index>(set_bytes, 1);
  return std::max<Index>(std::min(wanted, fitting), 1);
}

/// A copy on the host.
template <class T>
std::vector<T> to_host(const Array<T>& values) {
  std::vector<T> host(static_cast<std::size_t>(values.size()));
  if (!host.empty()) {
    device_copy(Device::cpu, host.data(), values.device(), values.data(),
                static_cast<std::size_t>(values.bytes()));
  }
  return host;
}

}  // namespace vla_bench
