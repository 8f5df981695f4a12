// One sequence of each task, drawn into memory the caller owns. Integer draws alone, so that a GPU
// thread a row gives the same bits. Token numbering: V tokens 0 .. V-1; paper and copy layouts
// keep V-1 for the separator. `targets` is kIgnoreTarget (passed as `ignore`) where no loss is
// taken.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace vla_bench {

/// The first `count` elements of `pool` become a uniform draw without replacement from
/// first .. first + size - 1, in uniform order (partial Fisher-Yates shuffle).
/// pool: (size), scratch.
VLA_HOST_DEVICE inline void draw_distinct(Rng& rng, std::int32_t first, std::int32_t size,
                                          std::int32_t count, std::int32_t* pool) {
  for (std::int32_t i = 0; i < size; ++i) pool[i] = first + i;
  for (std::int32_t i = 0; i < count; ++i) {
    const auto j = i + static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(size - i)));
    const std::int32_t chosen = pool[j];
    pool[j] = pool[i];
    pool[i] = chosen;
  }
}

VLA_HOST_DEVICE inline std::int32_t draw_token(Rng& rng, std::int32_t count) {
  return static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(count)));
}

/// Uniformly random tokens without targets: what the untrained model is probed with.
VLA_HOST_DEVICE inline void random_row(Rng rng, std::int32_t vocab, std::int32_t tokens,
                                       std::int32_t ignore, std::int32_t* inputs,
                                       std::int32_t* targets) {
  for (std::int32_t t = 0; t < tokens; ++t) {
    inputs[t] = draw_token(rng, vocab);
    targets[t] = ignore;
  }
}

/// `t1 .. th SEP t1 .. th`, h = (tokens - 1) / 2: tokens from 0 .. V-2 with replacement. The target
/// of a position of the second half is the token that stands there (arXiv:2605.11196, notebook 07).
VLA_HOST_DEVICE inline void copy_row(Rng rng, std::int32_t vocab, std::int32_t tokens,
                                     std::int32_t ignore, std::int32_t* inputs,
                                     std::int32_t* targets) {
  const std::int32_t half = (tokens - 1) / 2;
  for (std::int32_t i = 0; i < half; ++i) {
    const std::int32_t token = draw_token(rng, vocab - 1);
    inputs[i] = token;
    inputs[half + 1 + i] = token;
    targets[i] = ignore;
    targets[half + 1 + i] = token;
  }
  inputs[half] = vocab - 1;
  targets[half] = ignore;
}

struct MqarRow {
  std::int32_t n_pairs;  // n
  std::int32_t vocab;    // V
  std::int32_t tokens;   // T
  std::int32_t ignore;   // target value that the loss ignores
};

/// `k1 v1 .. kn vn SEP q1 .. qm`, m = T - 2n - 1: keys distinct and values with replacement from
/// 0 .. V-2, queries uniform among the keys with replacement (arXiv:2605.11196, notebook 07).
/// pool: (V - 1), scratch.
VLA_HOST_DEVICE inline void mqar_paper_row(Rng rng, const MqarRow& row, std::int32_t* pool,
                                           std::int32_t* inputs, std::int32_t* targets) {
  const std::int32_t pairs_end = 2 * row.n_pairs;
  draw_distinct(rng, 0, row.vocab - 1, row.n_pairs, pool);
  for (std::int32_t i = 0; i < row.n_pairs; ++i) {
    inputs[2 * i] = pool[i];
    inputs[2 * i + 1] = draw_token(rng, row.vocab - 1);
  }
  inputs[pairs_end] = row.vocab - 1;
  for (std::int32_t t = 0; t <= pairs_end; ++t) targets[t] = row.ignore;
  for (std::int32_t t = pairs_end + 1; t < row.tokens; ++t) {
    const std::int32_t pair = draw_token(rng, row.n_pairs);
    inputs[t] = inputs[2 * pair];
    targets[t] = inputs[2 * pair + 1];
  }
}

/// A Fenwick tree over integer weights: tree[i - 1] sums the weights i - lowbit(i) .. i - 1.
/// Returns the index at which the running sum passes `at` and takes its weight out.
/// tree, weights: (count).
VLA_HOST_DEVICE inline std::int32_t take_weighted(std::uint32_t at, const std::uint32_t* weights,
                                                  std::int32_t count, std::uint32_t* tree) {
  std::int32_t step = 1;
  while (step <= count / 2) step *= 2;
  std::int32_t index = 0;
  for (; step > 0; step /= 2) {
    if (index + step <= count && tree[index + step - 1] <= at) {
      index += step;
      at -= tree[index - 1];
    }
  }
  for (std::int32_t i = index + 1; i <= count; i += i & -i) tree[i - 1] -= weights[index];
  return index;
}

/// Where the queries of the zoology layout may stand: slot g is position 2n + 2g, with weight
/// proportional to (g + 1)^(a - 1). Integers, so that every device draws the same slots.
struct QuerySlots {
  std::int32_t count;            // (T - 2n) / 2
  const std::uint32_t* weights;  // (count), at least 1 each, sum below 2^32
  const std::uint32_t* tree;     // (count), Fenwick tree of the weights
  std::uint32_t total;           // sum of the weights
};

/// The layout of arXiv:2312.04927: n pairs, then each key once as a query at an even offset whose
/// gap follows a power law, drawn without replacement. Keys are distinct from 1 .. V/2 - 1 (0 is
/// the filler), values distinct from V/2 .. V-1; other positions hold random tokens, or 0. pool: (V
/// - V/2), scratch; tree: (slots.count), scratch.
VLA_HOST_DEVICE inline void mqar_zoology_row(Rng rng, const MqarRow& row, const QuerySlots& slots,
                                             bool random_filler, std::int32_t* pool,
                                             std::uint32_t* tree, std::int32_t* inputs,
                                             std::int32_t* targets) {
  const std::int32_t half = row.vocab / 2;
  const std::int32_t pairs_end = 2 * row.n_pairs;
  draw_distinct(rng, 1, half - 1, row.n_pairs, pool);
  for (std::int32_t i = 0; i < row.n_pairs; ++i) inputs[2 * i] = pool[i];
  draw_distinct(rng, half, row.vocab - half, row.n_pairs, pool);
  for (std::int32_t i = 0; i < row.n_pairs; ++i) inputs[2 * i + 1] = pool[i];
  for (std::int32_t t = pairs_end; t < row.tokens; ++t) inputs[t] = -1;  // still free
  for (std::int32_t t = 0; t < row.tokens; ++t) targets[t] = row.ignore;

  for (std::int32_t g = 0; g < slots.count; ++g) tree[g] = slots.tree[g];
  std::uint32_t left = slots.total;
  for (std::int32_t i = 0; i < row.n_pairs; ++i) {
    const std::int32_t slot = take_weighted(rng.below(left), slots.weights, slots.count, tree);
    left -= slots.weights[slot];
    inputs[pairs_end + 2 * slot] = inputs[2 * i];
    targets[pairs_end + 2 * slot] = inputs[2 * i + 1];
  }
  for (std::int32_t t = pairs_end; t < row.tokens; ++t) {
    if (inputs[t] < 0) inputs[t] = random_filler ? draw_token(rng, row.vocab) : 0;
  }
}

}  // namespace vla_bench
