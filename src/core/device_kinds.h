// Devices and their arithmetic by name (device.h).
#pragma once

namespace vla_bench {

enum class Device { cpu, cuda };

/// What a config or flag asks for; `automatic` ("auto") takes a GPU when there is one.
enum class DeviceRequest { automatic, cpu, cuda };

/// Arithmetic of matrix products and of softmax attention on a GPU: plain float32, or tensor cores
/// on operands rounded to TF32 (10 bits of mantissa) or bfloat16 (7), summed in float32. Storage is
/// float32 in all three. The CPU has only float32.
enum class Precision { float32, tf32, bf16 };

}  // namespace vla_bench
