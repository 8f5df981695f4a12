// Every array a mixer's core reads and writes, filled with random inputs: what timings and their
// verification run on.
#pragma once

#include <vector>

#include "core/rng.h"
#include "experiments/parallel.h"
#include "mixers/mixer.h"

namespace vla_bench {

template <class T>
struct CoreBuffers {
  HeadDims dims;
  Index aux_width = 0;     // w
  Array<T> projections;    // (B, T, 3, H, d): q, k, v side by side, as a layer lays them out
  Array<T> aux;            // (B, T, H, w)
  Array<T> o;              // (B, T, H, d)
  Array<T> d_o;            // (B, T, H, d)
  Array<T> d_projections;  // (B, T, 3, H, d)
  Array<T> d_aux;          // (B, T, H, w)
  Array<T> saved;          // the core's

  /// q, k, v, aux and the upstream gradient are standard normal draws of `seed`, rounded to
  /// binary32 in every T: float and double code see the same inputs.
  CoreBuffers(const MixerConfig& mixer, const HeadDims& head_dims, const Context& context,
              std::uint64_t seed)
      : dims(head_dims) {
    const MixerTraits traits = mixer_traits(mixer);
    if (traits.aux_source != AuxSource::none) aux_width = traits.aux_per_head ? 1 : dims.d_h;
    enum Lane : std::uint32_t { kProjections = 0, kAux = 1, kUpstream = 2 };
    fill(context, seed, kProjections, 3 * width(), projections);
    fill(context, seed, kAux, dims.heads * aux_width, aux);
    fill(context, seed, kUpstream, width(), d_o);
    o.resize(context.device, d_o.size());
    d_projections.resize(context.device, projections.size());
    d_aux.resize(context.device, aux.size());
  }

  CoreInputs<T> inputs() const {
    return {.dims = dims,
            .q = projection<const T>(projections.data(), 0),
            .k = projection<const T>(projections.data(), 1),
            .v = projection<const T>(projections.data(), 2),
            .aux = aux_view<const T>(aux.data())};
  }
  HeadView<T> output() { return {o.data(), width(), dims.d_h}; }
  CoreGradients<T> gradients() {
    return {.o = output(),
            .d_o = HeadView<const T>(d_o.data(), width(), dims.d_h),
            .dq = projection<T>(d_projections.data(), 0),
            .dk = projection<T>(d_projections.data(), 1),
            .dv = projection<T>(d_projections.data(), 2),
            .daux = aux_view<T>(d_aux.data())};
  }

 private:
  Index width() const { return dims.heads * dims.d_h; }

  template <class U>
  HeadView<U> projection(U* data, Index which) const {
    return {data + which * width(), 3 * width(), dims.d_h};
  }
  template <class U>
  HeadView<U> aux_view(U* data) const {
    if (aux_width == 0) return {};
    return {data, dims.heads * aux_width, aux_width};
  }

  void fill(const Context& context, std::uint64_t seed, std::uint32_t lane, Index columns,
            Array<T>& values) const {
    Array<T> host(Device::cpu, dims.rows() * columns);
    parallel_items(context, columns > 0 ? dims.rows() : 0, [&](Index row) {
      Rng rng(seed, RngStream::benchmark, static_cast<std::uint32_t>(row), lane);
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
