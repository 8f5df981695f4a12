// Steps one lane (batch element and head) of a timing's buffers through the mixer's memory, to
// check outputs where a whole reference would take hours.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "experiments/core_buffers.h"
#include "mixers/registry.h"
#include "mixers/value_groups.h"

namespace vla_bench {

struct Lane {
  Index batch = 0;
  Index head = 0;
};

/// Views of one token's inputs.
struct LaneToken {
  std::span<const double> q, k, v;                  // (d); v (d_v)
  std::vector<std::span<const double>> more;        // (w) each
  std::span<const std::vector<double>> parameters;  // the core's, (H, ...) each
};

/// Reads the inputs of a lane from any device, a block of tokens at a time.
template <class T>
class LaneTokens {
 public:
  /// `buffers` must not move.
  LaneTokens(const CoreBuffers<T>& buffers, const Lane& lane) : buffers_(buffers), lane_(lane) {
    for (const auto& parameter : buffers.parameters) {
      const std::vector<T> values = to_host(parameter.values);
      parameters_.emplace_back(values.begin(), values.end());
    }
  }

  /// Returns token t, from 0, valid until the next call. Cheap in ascending order.
  LaneToken at(Index t) {
    if (t < first_ || t >= first_ + count_) read_block(t);
    const auto row = [&](std::span<const double> block) {
      const std::size_t width = block.size() / static_cast<std::size_t>(count_);
      return block.subspan(static_cast<std::size_t>(t - first_) * width, width);
    };
    LaneToken token{row(q_), row(k_), row(v_), {}, parameters_};
    for (const std::vector<double>& values : more_) token.more.push_back(row(values));
    return token;
  }

 private:
  static constexpr Index kBlock = 256;  // tokens

  void read_block(Index first) {
    first_ = first;
    count_ = std::min(kBlock, buffers_.dims.tokens - first);
    const CoreInputs<T> inputs = buffers_.inputs();
    read(inputs.q, buffers_.key_channels, q_);
    read(inputs.k, buffers_.key_channels, k_);
    read(inputs.v, buffers_.dims.value_channels(), v_);
    more_.resize(buffers_.more.size());
    for (std::size_t i = 0; i < more_.size(); ++i) {
      read(inputs.more[i], buffers_.more[i].width, more_[i]);
    }
  }

  void read(const HeadView<const T>& view, Index width, std::vector<double>& block) {
    if (width == 0) return;
    const Index row = lane_.batch * buffers_.dims.tokens + first_;
    // One copy of everything between the first and the last element, other heads included.
    raw_.resize(static_cast<std::size_t>((count_ - 1) * view.row_stride + width));
    device_copy(Device::cpu, raw_.data(), buffers_.projections.device(), view.at(row, lane_.head),
                raw_.size() * sizeof(T));
    block.resize(static_cast<std::size_t>(count_ * width));
    for (Index t = 0; t < count_; ++t) {
      std::copy_n(raw_.data() + t * view.row_stride, width, block.data() + t * width);
    }
  }

  const CoreBuffers<T>& buffers_;
  Lane lane_;
  Index first_ = 0, count_ = 0;  // the block
  std::vector<T> raw_;
  std::vector<double> q_, k_, v_;          // (count, d); v (count, d_v)
  std::vector<std::vector<double>> more_;  // (count, w) each
  std::vector<std::vector<double>> parameters_;
};

/// A mixer's memory in U, stepped token by token.
template <class U>
class LaneMemory {
 public:
  /// Of a head of these sizes.
  LaneMemory(const MixerConfig& mixer, const HeadDims& dims, Index head = 0)
      : d_(dims.d_h), out_(static_cast<std::size_t>(dims.value_channels())) {
    const auto core = make_mixer_core<U>(mixer, d_, Device::cpu, Implementation::production);
    memory_ = head_memory(*core, dims, head);
    const auto bytes = [&](Index tokens) {
      return core->state_bytes({.batch = 1, .tokens = tokens, .heads = 1, .d_h = d_});
    };
    keeps_tokens_ = bytes(2) > bytes(1);
  }

  /// Whether the memory keeps every token (softmax): reading takes time proportional to their
  /// number, and there is no state that could overflow.
  bool keeps_tokens() const { return keeps_tokens_; }

  /// Returns the output at the next token. A memory that keeps tokens computes it only if `wanted`.
  const std::vector<U>& step(const LaneToken& token, bool wanted = true) {
    assign(token.q, q_);
    assign(token.k, k_);
    assign(token.v, v_);
    if (keeps_tokens_ && !wanted) {
      // step() keeps raw keys, write() keys of unit length at length sqrt(d).
      for (U& value : k_) value /= std::sqrt(static_cast<U>(d_));
      memory_->write(k_.data(), v_.data());
      return out_;
    }
    TokenInputs<U> inputs{q_.data(), k_.data(), v_.data()};
    more_.resize(token.more.size());
    for (std::size_t i = 0; i < more_.size(); ++i) {
      assign(token.more[i], more_[i]);
      inputs.more[i] = more_[i].data();
    }
    parameters_.resize(token.parameters.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      assign(token.parameters[i], parameters_[i]);
      inputs.parameters[i] = parameters_[i].data();
    }
    memory_->step(inputs, out_.data());
    return out_;
  }

  const HeadMemory<U>& memory() const { return *memory_; }

 private:
  /// Inputs are rounded to binary32, so no U changes them.
  static void assign(std::span<const double> from, std::vector<U>& to) {
    to.resize(from.size());
    std::transform(from.begin(), from.end(), to.begin(),
                   [](double value) { return static_cast<U>(value); });
  }

  Index d_;
  bool keeps_tokens_ = false;
  std::unique_ptr<HeadMemory<U>> memory_;
  std::vector<U> q_, k_, v_, out_;
  std::vector<std::vector<U>> more_, parameters_;
};

}  // namespace vla_bench
