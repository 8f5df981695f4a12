// The configuration of a run: plain structs with the paper's protocol as defaults. Each struct's
// `visit` is the only declaration of its keys: JSON reading, the resolved dump, the JSON Schema and
// error messages all come from it (config/reader.h, dump.h, set_key.h, schema.cpp).
//
// Supported members: bool, Index, double, std::string, enums of enums.h, nested structs,
// std::optional and std::vector of those; a mixer's options, which config/reader.h reads by name.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/enums.h"
#include "config/field.h"
#include "core/array.h"
#include "mixers/list.h"

namespace vla_bench {

/// One mixer and its variant. In JSON: a name ("vla"), or an object with the mixer's own keys and
/// those of all mixers.
struct MixerConfig {
  MixerOptions options = VlaOptions{};  // its type identifies the mixer
  std::string label{};                  // empty: mixer_label's default
  std::optional<bool> output_norm{};
  OutputNorm output_norm_kind = OutputNorm::layer;

  std::string_view name() const { return mixer_name(options); }
  template <class O>
  bool is() const {
    return std::holds_alternative<O>(options);
  }
  /// The options of a mixer that is one of this type.
  template <class O>
  const O& get() const {
    return std::get<O>(options);
  }
  template <class O>
  O& get() {
    return std::get<O>(options);
  }
  /// Null when the mixer is of another type.
  template <class O>
  const O* get_if() const {
    return std::get_if<O>(&options);
  }

  template <class V>
  void visit(V& v) {
    visit_shared(v);
    std::visit([&](auto& own) { own.visit(v); }, options);
  }
  /// The keys that all mixers have.
  template <class V>
  void visit_shared(V& v) {
    v.field("mixer", options, {.help = "sequence mixer"});
    v.field("label", label,
            {.help = "name in tables and figures; empty: the mixer's name and what differs from "
                     "its defaults",
             .changes_result = false});
    v.field("output_norm", output_norm,
            {.help = "norm before the output projection; null: the mixer's published form "
                     "(vla and standard deltanet have it)"});
    v.field("output_norm_kind", output_norm_kind,
            {.help = "that norm: LayerNorm over all channels, or RMSNorm over each head with one "
                     "weight for all heads",
             .named_at_default = false});
  }
};

/// One of each mixer, at its defaults, in the order of the list.
inline const std::vector<MixerConfig>& every_mixer() {
  static const auto mixers = [] {
    std::vector<MixerConfig> all;
    Mixers::for_each([&]<class Options>() { all.push_back({.options = Options{}}); });
    return all;
  }();
  return mixers;
}

struct ModelConfig {
  static constexpr Index kGatedConvTaps = 3;  // of LayerKind::gated_conv

  Index n_heads = 4;
  Index d_h = 32;
  std::optional<Index> d_v{};
  Index n_layers = 2;
  Index d_ff = 256;
  Index vocab_size = 128;
  Index max_seq_len = 4096;
  bool positions = true;
  std::vector<LayerKind> layers{};
  Index short_conv = 0;
  Index short_conv_qkv = 0;
  bool bias = true;
  double init_std = 0.02;
  bool scaled_residual_init = false;

  Index d_model() const { return n_heads * d_h; }
  Index value_channels() const { return d_v.value_or(d_h); }
  LayerKind layer(Index i) const {
    return layers.empty() ? LayerKind::mixer : layers[static_cast<std::size_t>(i)];
  }
  /// How many layers are the mixer, and the last of them.
  Index mixer_layers() const {
    Index count = 0;
    for (Index i = 0; i < n_layers; ++i) count += layer(i) == LayerKind::mixer ? 1 : 0;
    return count;
  }
  Index last_mixer_layer() const {
    Index last = n_layers - 1;
    while (last > 0 && layer(last) != LayerKind::mixer) --last;
    return last;
  }

  template <class V>
  void visit(V& v) {
    v.field("n_heads", n_heads, {.help = "heads; d_model = n_heads * d_h", .min = 1, .max = 1024});
    v.field("d_h", d_h, {.help = "channels per head", .min = 1, .max = 1024});
    v.field("d_v", d_v,
            {.help = "channels of a head's value and output, a multiple of d_h, the channels of "
                     "its query and key; null: d_h. The output projection maps n_heads * d_v to "
                     "d_model. For linear, deltanet with variant standard, retention, mamba2, gla, "
                     "gated_deltanet, kda and preconditioned_gated_deltanet",
             .min = 1,
             .max = 4096,
             .named_at_default = false});
    v.field("n_layers", n_layers, {.help = "pre-norm blocks", .min = 1, .max = 256});
    v.field("d_ff", d_ff,
            {.help = "hidden channels of the MLP; 0: the identity in its place, h += norm2(h)",
             .min = 0,
             .max = 1 << 20});
    v.field("vocab_size", vocab_size,
            {.help = "tokens, separator included", .min = 4, .max = 1 << 24});
    v.field("max_seq_len", max_seq_len, {.help = "learned positions", .min = 1, .max = 1 << 24});
    v.field("positions", positions,
            {.help = "learned position embedding", .named_at_default = false});
    v.field("layers", layers,
            {.help = "kind of each layer: the mixer, or a gated convolution u + conv3(u) o (W u + "
                     "b); empty: every layer is the mixer",
             .named_at_default = false,
             .may_be_empty = true});
    v.field("short_conv", short_conv,
            {.help = "taps of a causal depthwise convolution before the mixer; 0 = none",
             .min = 0,
             .max = 64});
    v.field("short_conv_qkv", short_conv_qkv,
            {.help = "taps of causal depthwise convolutions on q, k and v each, the one on v with "
                     "a SiLU; softmax has none; 0 = none",
             .min = 0,
             .max = 64,
             .named_at_default = false});
    v.field("bias", bias,
            {.help = "biases of the mixer's projections: q, k, v, gates and output",
             .named_at_default = false});
    v.field("init_std", init_std, {.help = "standard deviation of initial weights", .min = 0});
    v.field("scaled_residual_init", scaled_residual_init,
            {.help = "initial weights of output projections and of the MLP's second map divided "
                     "by sqrt(2 n_layers)",
             .named_at_default = false});
  }
};

/// Rows of one size, for some of the training steps of each cycle.
struct TrainSegment {
  Index n_pairs = 0;
  Index seq_len = 0;
  Index steps = 0;

  template <class V>
  void visit(V& v) {
    v.field("n_pairs", n_pairs,
            {.help = "key-value pairs per sequence", .min = 1, .max = 1 << 20, .required = true});
    v.field("seq_len", seq_len,
            {.help = "tokens per sequence", .min = 1, .max = 1 << 30, .required = true});
    v.field("steps", steps,
            {.help = "training steps in a cycle", .min = 1, .max = 1LL << 31, .required = true});
  }
};

/// Rows of one size, which the evaluation measures as a slice of their own.
struct EvalSegment {
  Index n_pairs = 0;
  Index seq_len = 0;

  template <class V>
  void visit(V& v) {
    v.field("n_pairs", n_pairs,
            {.help = "key-value pairs per sequence", .min = 1, .max = 1 << 20, .required = true});
    v.field("seq_len", seq_len,
            {.help = "tokens per sequence", .min = 1, .max = 1 << 30, .required = true});
  }
};

struct TaskConfig {
  TaskLayout layout = TaskLayout::paper;
  Index n_pairs = 24;
  Index passes = 1;
  Index rewrites = 0;
  std::optional<Index> seq_len;
  std::vector<TrainSegment> train_segments;
  SegmentOrder segment_order = SegmentOrder::in_order;
  std::vector<EvalSegment> eval_segments;
  Index curriculum = 0;
  double power_a = 0.01;
  bool random_filler = true;
  bool filler_values = false;

  /// mqar: tokens of the pairs and rewrites, before the separator or the queries.
  Index written_tokens() const { return 2 * (passes * n_pairs + rewrites); }

  template <class V>
  void visit(V& v) {
    v.field("layout", layout,
            {.help = "paper: pairs, separator, queries; zoology: arXiv:2312.04927"});
    v.field("n_pairs", n_pairs, {.help = "key-value pairs per sequence", .min = 1, .max = 1 << 20});
    v.field("passes", passes,
            {.help = "mqar: times that the block of pairs is written before the queries",
             .min = 1,
             .max = 256,
             .named_at_default = false});
    v.field("rewrites", rewrites,
            {.help = "mqar: keys written again after the pairs, drawn without replacement, each "
                     "with a new value, which is then the one asked for; at most n_pairs",
             .min = 0,
             .max = 1 << 20,
             .named_at_default = false});
    v.field("seq_len", seq_len,
            {.help = "tokens per sequence; null: 2 (passes n_pairs + rewrites) for the pairs and "
                     "n_pairs + 1 (paper) or 2 n_pairs (zoology) more, 64 (copy), 1000 "
                     "(state_norm, jacobian), 1024 (latency); copy uses the "
                     "odd 2 floor((seq_len - 1) / 2) + 1",
             .min = 1,
             .max = 1 << 30});
    v.field("train_segments", train_segments,
            {.help = "mqar: sizes of training sequences in place of n_pairs and seq_len, each for "
                     "its number of steps; they repeat in cycles until train.steps",
             .named_at_default = false,
             .may_be_empty = true});
    v.field("segment_order", segment_order,
            {.help = "a cycle's steps: segment by segment, or shuffled anew in each cycle",
             .named_at_default = false});
    v.field("eval_segments", eval_segments,
            {.help = "mqar: sizes of evaluated sequences in place of n_pairs and seq_len; each is "
                     "a slice with rows of its own in the tables, beside the mean of slices",
             .named_at_default = false,
             .may_be_empty = true});
    v.field("curriculum", curriculum,
            {.help = "mqar, paper layout: training steps over which the distinct pairs of a "
                     "sequence grow from 1 to n_pairs, the other pairs repeating them; 0 = n_pairs "
                     "from the start",
             .min = 0,
             .max = 1LL << 31});
    v.field("power_a", power_a, {.help = "zoology: exponent of the query gaps", .min = 1e-6});
    v.field("random_filler", random_filler,
            {.help = "zoology: fill unused positions with random tokens, else with 0"});
    v.field("filler_values", filler_values,
            {.help = "zoology: random fillers come from the upper half of the vocabulary, the "
                     "values: in a long sequence they would else show its keys again",
             .named_at_default = false});
  }
};

struct TrainConfig {
  Index steps = 3000;
  Index batch = 64;
  double lr = 3e-4;
  Index warmup = 300;
  Index lr_every = 1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double adam_eps = 1e-8;
  double weight_decay = 0.01;
  double clip_norm = 1.0;
  double stop_accuracy = 0.0;
  Index stop_every = 500;
  Index log_every = 50;
  Index checkpoint_every = 500;

  template <class V>
  void visit(V& v) {
    v.field("steps", steps, {.help = "optimiser steps", .min = 1, .max = 1LL << 31});
    v.field("batch", batch, {.help = "sequences per step", .min = 1, .max = 1 << 20});
    v.field("lr", lr, {.help = "peak learning rate", .min = 0});
    v.field("warmup", warmup, {.help = "steps of linear warm-up; cosine to 0 after", .min = 0});
    v.field("lr_every", lr_every,
            {.help = "steps for which the cosine's learning rate stays; arXiv:2312.04927 has an "
                     "epoch",
             .min = 1,
             .max = 1LL << 31,
             .named_at_default = false});
    v.field("beta1", beta1, {.help = "AdamW", .min = 0, .max = 0.999999999});
    v.field("beta2", beta2, {.help = "AdamW", .min = 0, .max = 0.999999999});
    v.field("adam_eps", adam_eps, {.help = "AdamW", .min = 0});
    v.field("weight_decay", weight_decay, {.help = "AdamW, on all parameters", .min = 0});
    v.field("clip_norm", clip_norm,
            {.help = "global gradient norm is clipped to this; 0 = no clipping", .min = 0});
    v.field("stop_accuracy", stop_accuracy,
            {.help = "training stops at this accuracy, the mean of eval_segments; 0 = never. "
                     "Tested on eval.batches batches a slice of a random stream of their own",
             .min = 0,
             .max = 1,
             .named_at_default = false});
    v.field("stop_every", stop_every,
            {.help = "steps between these tests",
             .min = 1,
             .max = 1LL << 31,
             .named_at_default = false});
    v.field(
        "log_every", log_every,
        {.help = "steps between rows of the learning curve", .min = 1, .changes_result = false});
    v.field("checkpoint_every", checkpoint_every,
            {.help = "steps between checkpoints, from which a run resumes; 0 = only the last",
             .min = 0,
             .changes_result = false});
  }
};

struct EvalConfig {
  Index batches = 20;
  Index batch = 32;
  Index probe_sequences = 0;
  Index hold_penalty_after = 0;

  template <class V>
  void visit(V& v) {
    v.field("batches", batches,
            {.help = "fresh batches of the final evaluation", .min = 1, .max = 1LL << 31});
    v.field("batch", batch, {.help = "sequences per batch", .min = 1, .max = 1 << 20});
    v.field("probe_sequences", probe_sequences,
            {.help = "mqar: sequences of each slice on which the trained model's memory is probed "
                     "with random values under its own keys (column probe_accuracy); 0: none",
             .min = 0,
             .max = 1 << 20,
             .named_at_default = false});
    v.field("hold_penalty_after", hold_penalty_after,
            {.help = "vla: the final evaluation holds A as it is after this many tokens of a "
                     "sequence, so that later writes take their direction from it; 0: never",
             .min = 0,
             .max = 1LL << 31,
             .named_at_default = false});
  }
};

/// state_norm and jacobian.
struct ProbeConfig {
  ProbeSource source = ProbeSource::model;

  template <class V>
  void visit(V& v) {
    v.field("source", source,
            {.help = "keys and values from the untrained model's last layer (random tokens), or "
                     "from a standard Gaussian stream"});
  }
};

struct RecallConfig {
  Index trials = 20;
  Index codebook = 128;
  RecallKeys keys = RecallKeys::feature;
  Index stream = 0;

  template <class V>
  void visit(V& v) {
    v.field("trials", trials,
            {.help = "independent draws of keys, codebook and ids", .min = 1, .max = 1 << 20});
    v.field("codebook", codebook,
            {.help = "unit value vectors that a read is decoded to", .min = 2, .max = 1 << 24});
    v.field("keys", keys,
            {.help = "unit keys through the feature map, or Gaussian unit keys used directly"});
    v.field("stream", stream,
            {.help = "other random pairs that are written before the n_pairs; 0: none",
             .min = 0,
             .max = 1 << 24,
             .named_at_default = false});
  }
};

struct LatencyConfig {
  Index batch = 4;
  std::vector<LatencyPass> passes = {LatencyPass::forward, LatencyPass::backward};
  std::vector<Implementation> implementations = {Implementation::production};
  Index warmup = 2;
  Index min_repeats = 5;
  Index max_repeats = 200;
  double relative_error = 0.02;
  double max_seconds = 2.0;

  template <class V>
  void visit(V& v) {
    v.field("batch", batch, {.help = "sequences", .min = 1, .max = 1 << 20});
    v.field("passes", passes, {.help = "forward, and backward without a forward"});
    v.field("implementations", implementations,
            {.help = "production kernels; a state token by token (recurrent) or on a GPU in chunks "
                     "of tokens (chunked); vla by a call a token (sequential); softmax on a GPU as "
                     "separate products (unfused) or by cuDNN (cudnn); the double reference "
                     "(reference)"});
    v.field("warmup", warmup, {.help = "untimed calls", .min = 0});
    v.field("min_repeats", min_repeats, {.help = "timed calls at least", .min = 1});
    v.field("max_repeats", max_repeats, {.help = "timed calls at most", .min = 1});
    v.field(
        "relative_error", relative_error,
        {.help = "stop when the median's 95% interval is this narrow, as a fraction", .min = 0});
    v.field("max_seconds", max_seconds, {.help = "stop a timing after this long", .min = 0});
  }
};

/// One swept key: `key` is dotted ("task.n_pairs"), values are JSON texts in the order given. Keys
/// that move together are joined by commas, and each value is a list.
struct SweepAxis {
  std::string key;
  std::vector<std::string> values;
};

struct RunConfig {
  ExperimentKind experiment{};  // the first of the list
  std::string name;             // empty: the experiment's name
  std::vector<MixerConfig> mixers = {{.options = SoftmaxOptions{}},
                                     {.options = LinearOptions{}},
                                     {.options = DeltaNetOptions{}},
                                     {.options = VlaOptions{}}};
  ModelConfig model;
  TaskConfig task;
  TrainConfig train;
  EvalConfig eval;
  ProbeConfig probe;
  RecallConfig recall;
  LatencyConfig latency;
  std::vector<Index> seeds = {42};
  std::vector<SweepAxis> sweep;  // first key varies slowest
  DeviceRequest device = DeviceRequest::automatic;
  Precision precision = Precision::float32;
  Index threads = 0;

  template <class V>
  void visit(V& v) {
    v.field("experiment", experiment, {.help = "the question to answer"});
    v.field("name", name, {.help = "folder under results/runs; empty: the experiment's name"});
    v.field("mixers", mixers, {.help = "mixers to compare: names, or objects naming a variant"});
    v.field("model", model, {.help = "TinyLM"});
    v.field("task", task, {.help = "synthetic data"});
    v.field("train", train, {.help = "AdamW training (mqar, copy)"});
    v.field("eval", eval, {.help = "final evaluation (mqar, copy)"});
    v.field("probe", probe, {.help = "state_norm and jacobian"});
    v.field("recall", recall, {.help = "training-free recall probe"});
    v.field("latency", latency, {.help = "timing of the mixers without a model"});
    v.field("seeds", seeds, {.help = "one cell per seed", .min = 0});
    v.sweep("sweep", sweep,
            {.help = "dotted key to a list of values; cartesian product, first key slowest, then "
                     "mixers, then seeds fastest; \"key,key\" moves keys together through a list "
                     "of lists"});
    v.field("device", device, {.help = "auto takes a GPU when there is one"});
    v.field("precision", precision,
            {.help = "arithmetic of matrix products and softmax on a GPU; the CPU has only "
                     "float32"});
    v.field("threads", threads,
            {.help = "CPU threads; 0: OMP_NUM_THREADS, or as many as the process may use",
             .min = 0,
             .max = 4096});
  }
};

}  // namespace vla_bench
