// One sequence of each task, drawn into the caller's memory. Only integer draws, so that a GPU
// gives the same bits. Token numbering: V tokens 0 .. V-1; paper and copy layouts reserve V-1 for
// the separator. `targets` is kIgnoreTarget (passed as `ignore`) where there is no loss. Draws is
// Rng, or a type with the same below().
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace vla_bench {

/// One thread's share of an array's elements: first, first + step, ...
struct Share {
  std::int32_t first = 0;
  std::int32_t step = 1;
};

VLA_HOST_DEVICE inline void fill_counting(const Share& share, std::int32_t first, std::int32_t size,
                                          std::int32_t* items) {
  for (std::int32_t i = share.first; i < size; i += share.step) items[i] = first + i;
}

/// The first `count` items become a uniform draw without replacement from all of them, in uniform
/// order (partial Fisher-Yates shuffle). items: (size).
template <class Draws>
VLA_HOST_DEVICE void draw_distinct(Draws& draws, std::int32_t size, std::int32_t count,
                                   std::int32_t* items) {
  for (std::int32_t i = 0; i < count; ++i) {
    const auto j = i + static_cast<std::int32_t>(draws.below(static_cast<std::uint32_t>(size - i)));
    const std::int32_t chosen = items[j];
    items[j] = items[i];
    items[i] = chosen;
  }
}

template <class Draws>
VLA_HOST_DEVICE std::int32_t draw_token(Draws& draws, std::int32_t count) {
  return static_cast<std::int32_t>(draws.below(static_cast<std::uint32_t>(count)));
}

/// Uniformly random tokens without targets, to probe the untrained model. T draws.
template <class Draws>
VLA_HOST_DEVICE void random_row(Draws& draws, std::int32_t vocab, std::int32_t tokens,
                                std::int32_t ignore, std::int32_t* inputs, std::int32_t* targets) {
  for (std::int32_t t = 0; t < tokens; ++t) {
    inputs[t] = draw_token(draws, vocab);
    targets[t] = ignore;
  }
}

/// `t1 .. th SEP t1 .. th`, h = (tokens - 1) / 2: tokens from 0 .. V-2 with replacement. The target
/// of a position of the second half is its own token (arXiv:2605.11196, notebook 07).
/// h draws.
template <class Draws>
VLA_HOST_DEVICE void copy_row(Draws& draws, std::int32_t vocab, std::int32_t tokens,
                              std::int32_t ignore, std::int32_t* inputs, std::int32_t* targets) {
  const std::int32_t half = (tokens - 1) / 2;
  for (std::int32_t i = 0; i < half; ++i) {
    const std::int32_t token = draw_token(draws, vocab - 1);
    inputs[i] = token;
    inputs[half + 1 + i] = token;
    targets[i] = ignore;
    targets[half + 1 + i] = token;
  }
  inputs[half] = vocab - 1;
  targets[half] = ignore;
}

struct MqarRow {
  std::int32_t n_pairs;   // n
  std::int32_t distinct;  // distinct pairs, which the rest repeat: n except in a curriculum (paper)
  std::int32_t passes;    // p, times that the block of pairs is written
  std::int32_t rewrites;  // r, pairs written again with another value, at most n
  std::int32_t vocab;     // V
  std::int32_t tokens;    // T
  std::int32_t ignore;    // target value that the loss ignores
};

/// Tokens of the pairs and rewrites, which the rest of a row follows: 2 (p n + r).
VLA_HOST_DEVICE inline std::int32_t written_tokens(const MqarRow& row) {
  return 2 * (row.passes * row.n_pairs + row.rewrites);
}

/// Copies a row's first `length` tokens over and over, up to position `end`.
VLA_HOST_DEVICE inline void repeat_tokens(std::int32_t length, std::int32_t end,
                                          std::int32_t* inputs) {
  for (std::int32_t t = length; t < end; ++t) inputs[t] = inputs[t - length];
}

/// After the first block of pairs: writes the other passes, then r of the keys, drawn without
/// replacement, each with value(i), i counting from 0. With c < r distinct pairs, rewrite i >= c
/// repeats rewrite i mod c. Leaves the value that pair i has last in last[2 i + 1].
/// order: (n), scratch. min(r, c) draws, then those of value.
template <class Draws, class Value>
VLA_HOST_DEVICE void repeat_and_rewrite(Draws& draws, const MqarRow& row, const Value& value,
                                        std::int32_t* order, std::int32_t* inputs,
                                        std::int32_t* last) {
  const std::int32_t pairs_end = 2 * row.passes * row.n_pairs;
  repeat_tokens(2 * row.n_pairs, pairs_end, inputs);
  for (std::int32_t i = 0; i < row.distinct; ++i) last[2 * i + 1] = inputs[2 * i + 1];
  if (row.rewrites == 0) return;
  const std::int32_t rewritten = row.rewrites < row.distinct ? row.rewrites : row.distinct;
  fill_counting({}, 0, row.distinct, order);
  draw_distinct(draws, row.distinct, rewritten, order);
  for (std::int32_t i = 0; i < rewritten; ++i) {
    const std::int32_t pair = order[i];
    inputs[pairs_end + 2 * i] = inputs[2 * pair];
    last[2 * pair + 1] = inputs[pairs_end + 2 * i + 1] = value(i);
  }
  repeat_tokens(2 * rewritten, 2 * row.rewrites, inputs + pairs_end);
}

/// `k1 v1 .. kn vn`, p times, r rewrites, `SEP q1 .. qm`, m = T - 2 (p n + r) - 1: keys distinct
/// and values with replacement from 0 .. V-2, queries uniform among the keys with replacement
/// (arXiv:2605.11196, notebook 07: p = 1, r = 0); the target is the key's last value. With c
/// distinct pairs, pair i >= c repeats pair i mod c: the number of pairs to remember grows while T,
/// the separator's position and the number of queries stay. keys: (V - 1), scratch, holding 0,
/// 1, ... as fill_counting writes. At most T - 1 draws.
template <class Draws>
VLA_HOST_DEVICE void mqar_paper_row(Draws& draws, const MqarRow& row, std::int32_t* keys,
                                    std::int32_t* inputs, std::int32_t* targets) {
  draw_distinct(draws, row.vocab - 1, row.distinct, keys);
  for (std::int32_t i = 0; i < row.distinct; ++i) {
    inputs[2 * i] = keys[i];
    inputs[2 * i + 1] = draw_token(draws, row.vocab - 1);
  }
  repeat_tokens(2 * row.distinct, 2 * row.n_pairs, inputs);
  const auto value = [&](std::int32_t) { return draw_token(draws, row.vocab - 1); };
  repeat_and_rewrite(draws, row, value, keys, inputs, targets);
  const std::int32_t separator = written_tokens(row);
  inputs[separator] = row.vocab - 1;
  for (std::int32_t t = separator + 1; t < row.tokens; ++t) {
    const std::int32_t pair = draw_token(draws, row.distinct);
    inputs[t] = inputs[2 * pair];
    targets[t] = targets[2 * pair + 1];
  }
  for (std::int32_t t = 0; t <= separator; ++t) targets[t] = row.ignore;
}

/// A Fenwick tree over integer weights: tree[i - 1] sums the weights i - lowbit(i) .. i - 1.
/// Returns the index at which the running sum passes `at` and removes its weight.
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

/// Possible positions of queries in the zoology layout: slot g is position 2g after the written
/// tokens, with weight proportional to (g + 1)^(a - 1). Integers, so that every device draws the
/// same slots.
struct QuerySlots {
  std::int32_t count;            // T / 2 - (p n + r)
  const std::uint32_t* weights;  // (count), at least 1 each, sum below 2^32
  const std::uint32_t* tree;     // (count), Fenwick tree of the weights
  std::uint32_t total;           // sum of the weights
};

/// The pools that a zoology row is drawn from; start_zoology_row fills them for each row.
struct ZoologyPools {
  std::int32_t* keys;    // (V/2 - 1)
  std::int32_t* values;  // (V - V/2)
  std::uint32_t* tree;   // (slots.count)
};

/// Prepares the pools and the row before it is drawn; each thread does its share.
VLA_HOST_DEVICE inline void start_zoology_row(const Share& share, const MqarRow& row,
                                              const QuerySlots& slots, const ZoologyPools& pools,
                                              std::int32_t* inputs, std::int32_t* targets) {
  const std::int32_t half = row.vocab / 2;
  fill_counting(share, 1, half - 1, pools.keys);
  fill_counting(share, half, row.vocab - half, pools.values);
  for (std::int32_t g = share.first; g < slots.count; g += share.step)
    pools.tree[g] = slots.tree[g];
  for (std::int32_t t = share.first; t < row.tokens; t += share.step) {
    inputs[t] = -1;  // still free
    targets[t] = row.ignore;
  }
}

/// The layout of arXiv:2312.04927 (p = 1, r = 0): n pairs, p times, r rewrites, then each key once
/// as a query at an even offset whose gap follows a power law, drawn without replacement; the
/// target is the key's last value. Keys are distinct from 1 .. V/2 - 1 (0 is the filler), values,
/// those of rewrites included, distinct from V/2 .. V-1. Other positions stay free. zoology_draws
/// draws.
template <class Draws>
VLA_HOST_DEVICE void mqar_zoology_row(Draws& draws, const MqarRow& row, const QuerySlots& slots,
                                      const ZoologyPools& pools, std::int32_t* inputs,
                                      std::int32_t* targets) {
  const std::int32_t half = row.vocab / 2;
  draw_distinct(draws, half - 1, row.n_pairs, pools.keys);
  draw_distinct(draws, row.vocab - half, row.n_pairs + row.rewrites, pools.values);
  for (std::int32_t i = 0; i < row.n_pairs; ++i) {
    inputs[2 * i] = pools.keys[i];
    inputs[2 * i + 1] = pools.values[i];
  }
  const auto value = [&](std::int32_t i) { return pools.values[row.n_pairs + i]; };
  repeat_and_rewrite(draws, row, value, pools.keys, inputs, targets);
  const std::int32_t written = written_tokens(row);
  std::uint32_t left = slots.total;
  for (std::int32_t i = 0; i < row.n_pairs; ++i) {
    const std::int32_t slot =
        take_weighted(draws.below(left), slots.weights, slots.count, pools.tree);
    left -= slots.weights[slot];
    inputs[written + 2 * slot] = inputs[2 * i];
    targets[written + 2 * slot] = targets[2 * i + 1];
    targets[2 * i + 1] = row.ignore;
  }
}
VLA_HOST_DEVICE inline std::int32_t zoology_draws(const MqarRow& row) {
  return 3 * row.n_pairs + 2 * row.rewrites;
}

/// The tokens of a zoology row's free positions: uniform from first, ..., first + count - 1. With
/// one there is nothing random, but each position takes a draw all the same.
struct Filler {
  std::int32_t first = 0;
  std::int32_t count = 1;
};

/// Token 0, or random ones of all V, or of the values V/2 .. V-1.
inline Filler filler_of(std::int32_t vocab, bool is_random, bool of_values) {
  if (!is_random) return {};
  if (of_values) return {vocab / 2, vocab - vocab / 2};
  return {0, vocab};
}

/// Fills the free positions of a zoology row, one draw each in order.
template <class Draws>
VLA_HOST_DEVICE void fill_free_positions(Draws& draws, const MqarRow& row, const Filler& filler,
                                         std::int32_t* inputs) {
  for (std::int32_t t = written_tokens(row); t < row.tokens; ++t) {
    if (inputs[t] < 0) inputs[t] = filler.first + draw_token(draws, filler.count);
  }
}

}  // namespace vla_bench
