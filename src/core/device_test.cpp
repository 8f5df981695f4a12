#include "core/device.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "core/array.h"
#include "core/error.h"

namespace vla_bench {
namespace {

TEST(Device, ArraysAreZeroedAndAligned) {
  for (const Index size : {1, 15, 16, 17, 1000}) {
    const Array<float> array(Device::cpu, size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data()) % 64, 0u);
    EXPECT_EQ(array.size(), size);
    for (const float value : array) EXPECT_EQ(value, 0.0f);
  }
}

TEST(Device, ResizeKeepsEqualSizesAndZeroesNewMemory) {
  Array<double> array(Device::cpu, 3);
  array[1] = 5.0;
  array.resize(Device::cpu, 3);
  EXPECT_EQ(array[1], 5.0);
  array.resize(Device::cpu, 4);
  EXPECT_EQ(array[1], 0.0);
  array.resize(Device::cpu, 0);
  EXPECT_TRUE(array.empty());
}

TEST(Device, ResizeStaysInPlaceUpToTheLargestSize) {
  Array<double> array(Device::cpu, 8);
  const double* const place = array.data();
  for (const Index size : {3, 0, 8}) {
    array.resize(Device::cpu, size);
    EXPECT_EQ(array.data(), place);
    EXPECT_EQ(array.size(), size);
  }
  Array<double> moved = std::move(array);
  moved.resize(Device::cpu, 5);
  EXPECT_EQ(moved.data(), place);
  array.resize(Device::cpu, 2);
  EXPECT_NE(array.data(), place);
}

TEST(Device, NothingToAllocateAndNothingToCopyAreFine) {
  device_free(Device::cpu, device_allocate(Device::cpu, 0));
  device_copy(Device::cpu, nullptr, Device::cpu, nullptr, 0);
}

TEST(Device, CopiesHostMemory) {
  const std::array<int, 3> from = {1, 2, 3};
  std::array<int, 3> to = {};
  device_copy(Device::cpu, to.data(), Device::cpu, from.data(), sizeof(from));
  EXPECT_EQ(to, from);
}

TEST(Device, ImpossibleSizesNameTheSize) {
  for (const std::size_t bytes :
       {std::numeric_limits<std::size_t>::max(), static_cast<std::size_t>(PTRDIFF_MAX) - 1}) {
    try {
      device_free(Device::cpu, device_allocate(Device::cpu, bytes));
      FAIL() << "allocated " << bytes << " bytes";
    } catch (const RunError& error) {
      EXPECT_NE(std::string(error.what()).find(std::to_string(bytes)), std::string::npos)
          << error.what();
    }
  }
}

TEST(Device, GpusAreDescribedAndLibrariesNamed) {
  const CudaStatus status = cuda_status();
  const auto gpus = cuda_device_descriptions();
  EXPECT_EQ(gpus.size(), static_cast<std::size_t>(cuda_device_count()));
  EXPECT_EQ(gpus.empty(), !status.available);
  if (status.available) {
    EXPECT_NE(status.detail.find(gpus.front()), std::string::npos) << status.detail;
  }
  const auto versions = cuda_library_versions();
  ASSERT_EQ(versions.empty(), !status.built);
  if (status.built) {
    EXPECT_EQ(versions.front().first, "cuda_toolkit");
  }
  for (const auto& [name, version] : versions) {
    EXPECT_NE(version.find('.'), std::string::npos) << name << " " << version;
  }
}

TEST(Device, CudaIsRefusedWithItsReasonWhenItIsNotThere) {
  const CudaStatus status = cuda_status();
  if (status.available) GTEST_SKIP() << "a CUDA device answers: " << status.detail;
  EXPECT_FALSE(status.detail.empty());
  EXPECT_EQ(resolve_device(DeviceRequest::cpu), Device::cpu);
  EXPECT_EQ(resolve_device(DeviceRequest::automatic), Device::cpu);
  try {
    resolve_device(DeviceRequest::cuda);
    FAIL() << "cuda was accepted";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find(status.detail), std::string::npos) << error.what();
  }
  EXPECT_THROW(device_allocate(Device::cuda, 16), RunError);
  std::array<char, 4> bytes = {};
  EXPECT_THROW(device_copy(Device::cuda, bytes.data(), Device::cpu, bytes.data(), 4), RunError);
}

}  // namespace
}  // namespace vla_bench
