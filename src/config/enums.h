// The enums of the config and the names of their values.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "core/device_kinds.h"

namespace vla_bench {

enum class ExperimentKind : std::size_t {};  // position in Experiments (experiments/list.h)
enum class DeltaNetVariant { paper, standard };
enum class FeatureMap { elu1, identity, relu, silu };
enum class Penalty { learned, key, frozen };
enum class WriteDirection { unit, raw };
enum class Residual { key, write };
enum class Normaliser { zq, none };
enum class OutputNorm { layer, rms_head };
enum class LayerKind { mixer, gated_conv };
enum class TaskLayout { paper, zoology };
enum class SegmentOrder { in_order, shuffled };
enum class RowKind { paper, zoology, copy, random };  // no key: follows from experiment and layout
enum class ProbeSource { model, gaussian };
enum class RecallKeys { feature, gaussian };
enum class LatencyPass { forward, backward };
enum class Implementation { production, recurrent, chunked, sequential, unfused, cudnn, reference };

/// Spelling table of an enum: `enum_names<E>` is an array of (value, name). That of ExperimentKind
/// is in experiments/list.h.
template <class E>
inline constexpr auto enum_names = nullptr;

template <>
inline constexpr std::array enum_names<DeltaNetVariant> = {
    std::pair{DeltaNetVariant::paper, std::string_view("paper")},
    std::pair{DeltaNetVariant::standard, std::string_view("standard")}};
template <>
inline constexpr std::array enum_names<FeatureMap> = {
    std::pair{FeatureMap::elu1, std::string_view("elu1")},
    std::pair{FeatureMap::identity, std::string_view("identity")},
    std::pair{FeatureMap::relu, std::string_view("relu")},
    std::pair{FeatureMap::silu, std::string_view("silu")}};
template <>
inline constexpr std::array enum_names<Penalty> = {
    std::pair{Penalty::learned, std::string_view("learned")},
    std::pair{Penalty::key, std::string_view("key")},
    std::pair{Penalty::frozen, std::string_view("frozen")}};
template <>
inline constexpr std::array enum_names<WriteDirection> = {
    std::pair{WriteDirection::unit, std::string_view("unit")},
    std::pair{WriteDirection::raw, std::string_view("raw")}};
template <>
inline constexpr std::array enum_names<Residual> = {
    std::pair{Residual::key, std::string_view("key")},
    std::pair{Residual::write, std::string_view("write")}};
template <>
inline constexpr std::array enum_names<Normaliser> = {
    std::pair{Normaliser::zq, std::string_view("zq")},
    std::pair{Normaliser::none, std::string_view("none")}};
template <>
inline constexpr std::array enum_names<OutputNorm> = {
    std::pair{OutputNorm::layer, std::string_view("layer")},
    std::pair{OutputNorm::rms_head, std::string_view("rms_head")}};
template <>
inline constexpr std::array enum_names<LayerKind> = {
    std::pair{LayerKind::mixer, std::string_view("mixer")},
    std::pair{LayerKind::gated_conv, std::string_view("gated_conv")}};
template <>
inline constexpr std::array enum_names<TaskLayout> = {
    std::pair{TaskLayout::paper, std::string_view("paper")},
    std::pair{TaskLayout::zoology, std::string_view("zoology")}};
template <>
inline constexpr std::array enum_names<SegmentOrder> = {
    std::pair{SegmentOrder::in_order, std::string_view("in_order")},
    std::pair{SegmentOrder::shuffled, std::string_view("shuffled")}};
template <>
inline constexpr std::array enum_names<ProbeSource> = {
    std::pair{ProbeSource::model, std::string_view("model")},
    std::pair{ProbeSource::gaussian, std::string_view("gaussian")}};
template <>
inline constexpr std::array enum_names<RecallKeys> = {
    std::pair{RecallKeys::feature, std::string_view("feature")},
    std::pair{RecallKeys::gaussian, std::string_view("gaussian")}};
template <>
inline constexpr std::array enum_names<LatencyPass> = {
    std::pair{LatencyPass::forward, std::string_view("forward")},
    std::pair{LatencyPass::backward, std::string_view("backward")}};
template <>
inline constexpr std::array enum_names<Implementation> = {
    std::pair{Implementation::production, std::string_view("production")},
    std::pair{Implementation::recurrent, std::string_view("recurrent")},
    std::pair{Implementation::chunked, std::string_view("chunked")},
    std::pair{Implementation::sequential, std::string_view("sequential")},
    std::pair{Implementation::unfused, std::string_view("unfused")},
    std::pair{Implementation::cudnn, std::string_view("cudnn")},
    std::pair{Implementation::reference, std::string_view("reference")}};
template <>
inline constexpr std::array enum_names<DeviceRequest> = {
    std::pair{DeviceRequest::automatic, std::string_view("auto")},
    std::pair{DeviceRequest::cpu, std::string_view("cpu")},
    std::pair{DeviceRequest::cuda, std::string_view("cuda")}};
template <>
inline constexpr std::array enum_names<Precision> = {
    std::pair{Precision::float32, std::string_view("float32")},
    std::pair{Precision::tf32, std::string_view("tf32")},
    std::pair{Precision::bf16, std::string_view("bf16")}};

template <class E>
constexpr std::string_view enum_name(E value) {
  for (const auto& [candidate, name] : enum_names<E>) {
    if (candidate == value) return name;
  }
  return "?";
}

}  // namespace vla_bench
