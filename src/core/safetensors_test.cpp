#include "core/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>

#include "core/error.h"
#include "testing/source_dir.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

using testing::TemporaryFolder;

/// A file of this header and `data_bytes` zeros; `claimed_length`, if given, is its length field.
std::string file_bytes(std::string_view header, std::size_t data_bytes,
                       std::optional<std::uint64_t> claimed_length = {}) {
  const std::uint64_t length = claimed_length.value_or(header.size());
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + std::string(header) + std::string(data_bytes, '\0');
}

/// The message of the refusal of `bytes`; "" when the file is accepted.
std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "hostile.safetensors";
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    TensorFile::read(path);
  } catch (const BadInput& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("hostile.safetensors"), std::string::npos) << message;
    return message;
  }
  return "";
}

std::string tensor(std::string_view name, std::string_view dtype, std::string_view shape,
                   std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape,
                     offsets);
}

TEST(Safetensors, RefusesWhatHasNoEnd) {
  try {
    TensorFile::read("/dev/zero");
    FAIL() << "expected a refusal";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find("[/dev/zero] header"), std::string::npos)
        << error.what();
  }
}

TEST(Safetensors, ReadsNoMoreThanTheHeaderSays) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "sparse.safetensors";
  std::ofstream(path, std::ios::binary)
      << file_bytes("{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 4);
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
  EXPECT_THROW(TensorFile::read(path), BadInput);
}

TEST(Safetensors, RoundTripsEveryDtypeShapeAndMetadata) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "file.safetensors";
  const std::array<double, 6> doubles = {1.5, -0.0, 1e300, 0x1p-1074, -7.0, 0.1};
  const std::array<float, 2> floats = {0.1f, -3.0f};
  const std::array<std::int64_t, 1> longs = {-(1LL << 62)};
  const std::array<std::int32_t, 2> ints = {-100, 7};
  const std::array<std::uint8_t, 3> bytes = {0, 128, 255};
  TensorFile file;
  file.metadata()["kind"] = "vla \"quoted\" \xCE\xBB";
  file.add<std::uint8_t>("odd bytes", {3}, bytes.data());
  file.add<double>("blocks.0.W", {2, 3}, doubles.data());
  file.add<float>("f", {2, 1}, floats.data());
  file.add<std::int64_t>("scalar", {}, longs.data());
  file.add<std::int32_t>("i", {2}, ints.data());
  file.add<float>("empty", {0, 4}, nullptr);
  file.write(path);

  const TensorFile read = TensorFile::read(path);
  EXPECT_EQ(read.metadata(), file.metadata());
  // Data order; the empty tensor starts where the file ends.
  EXPECT_EQ(read.names(), file.names());
  const std::array<Index, 2> shape = {2, 3};
  const std::vector<double> values = read.values<double>("blocks.0.W", shape);
  EXPECT_EQ(std::memcmp(values.data(), doubles.data(), sizeof(doubles)), 0);
  EXPECT_EQ(read.values<float>("f"), std::vector<float>(floats.begin(), floats.end()));
  EXPECT_EQ(read.values<double>("f")[0], static_cast<double>(0.1f));
  EXPECT_EQ(read.values<float>("blocks.0.W")[5], 0.1f);
  EXPECT_EQ(read.values<std::int64_t>("scalar")[0], longs[0]);
  EXPECT_EQ(read.values<std::int32_t>("i"), std::vector<std::int32_t>(ints.begin(), ints.end()));
  EXPECT_EQ(read.values<std::uint8_t>("odd bytes")[2], 255);
  EXPECT_TRUE(read.values<float>("empty").empty());
  EXPECT_EQ(read.serialise(), file.serialise());
}

TEST(Safetensors, AddReplaces) {
  TensorFile file;
  const double first = 1.0;
  const float second = 2.0f;
  file.add<double>("x", {1}, &first);
  file.add<float>("x", {}, &second);
  EXPECT_EQ(file.names().size(), 1u);
  EXPECT_EQ(file.values<double>("x"), std::vector<double>{2.0});
}

TEST(Safetensors, ReadsTheGoldenFiles) {
  const std::filesystem::path golden = testing::golden_dir();
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden)) {
    if (entry.path().extension() != ".safetensors") continue;
    const TensorFile file = TensorFile::read(entry.path());
    EXPECT_FALSE(file.names().empty());
    EXPECT_FALSE(file.metadata().empty());
    ++files;
  }
  if (files == 0) GTEST_SKIP() << "no golden files in " << golden;
}

TEST(Safetensors, MismatchesNameBothSides) {
  TensorFile file;
  const std::array<float, 8> zeros = {};
  file.add<float>("W", {2, 4}, zeros.data());
  const auto message = [&](auto&& body) -> std::string {
    try {
      body();
    } catch (const BadInput& error) {
      return error.what();
    }
    return "";
  };
  const std::array<Index, 2> shape = {2, 3};
  EXPECT_EQ(message([&] { file.values<double>("W", shape); }),
            "[memory] W: expected (2, 3) F64, got (2, 4) F32");
  EXPECT_EQ(message([&] { file.values<std::int64_t>("W"); }),
            "[memory] W: expected I64, got (2, 4) F32");
  EXPECT_EQ(message([&] { file.at("V"); }), "[memory] V: no such tensor");
  EXPECT_TRUE(file.contains("W"));
  EXPECT_FALSE(file.contains("V"));
}

TEST(Safetensors, MetadataNumbers) {
  TensorFile file;
  file.metadata() = {{"n", "-12"}, {"x", "1e-4"}, {"word", "12 apples"}, {"nan", "nan"}};
  EXPECT_EQ(file.integer("n"), -12);
  EXPECT_EQ(file.number("x"), 1e-4);
  EXPECT_EQ(file.number("n"), -12.0);
  EXPECT_THROW(file.integer("x"), BadInput);
  EXPECT_THROW(file.integer("word"), BadInput);
  EXPECT_THROW(file.number("word"), BadInput);
  EXPECT_THROW(file.number("nan"), BadInput);
  EXPECT_THROW(file.text("absent"), BadInput);
}

TEST(Safetensors, AcceptsTheSmallestFileAndPadding) {
  EXPECT_EQ(refusal(file_bytes("{}", 0)), "");
  EXPECT_EQ(refusal(file_bytes("{\"__metadata__\":{}}   ", 0)), "");
  // Data in another order than the header's names, with an empty tensor in between.
  EXPECT_EQ(refusal(file_bytes("{" + tensor("b", "F32", "[1]", "[4,8]") + "," +
                                   tensor("none", "F64", "[0]", "[4,4]") + "," +
                                   tensor("a", "I32", "[1]", "[0,4]") + "}",
                               8)),
            "");
}

struct Hostile {
  const char* name;
  std::string bytes;
  const char* expected;  // part of the message
};

std::vector<Hostile> hostile_files() {
  const auto one = [](std::string_view dtype, std::string_view shape, std::string_view offsets,
                      std::size_t data_bytes) {
    return file_bytes("{" + tensor("x", dtype, shape, offsets) + "}", data_bytes);
  };
  const auto two = [](std::string_view first, std::string_view second, std::size_t data_bytes) {
    return file_bytes(
        "{" + tensor("a", "U8", "[4]", first) + "," + tensor("b", "U8", "[4]", second) + "}",
        data_bytes);
  };
  const std::string valid = one("F64", "[2]", "[0,16]", 16);
  return {
      {"empty file", "", "0 bytes are too few"},
      {"half a length", "\1\0\0", "too few"},
      {"length past the file", file_bytes("{}", 0, 3), "header length"},
      {"length of 2^64 - 1", file_bytes("{}", 0, ~0ull), "header length"},
      {"length of 2^63", file_bytes("{}", 64, 1ull << 63), "header length"},
      {"truncated data", valid.substr(0, valid.size() - 1), "outside the 15 bytes"},
      {"truncated header", valid.substr(0, 30), "header length"},
      {"empty header", file_bytes("", 8), "not valid JSON"},
      {"not JSON", file_bytes("{\"x\":", 0), "not valid JSON"},
      {"padding with NUL", file_bytes(std::string("{}") + std::string(6, '\0'), 0),
       "header: NUL at byte 2"},
      {"text after a NUL", file_bytes(std::string("{}\0 {", 5), 0), "header: NUL at byte 2"},
      {"text after the header", file_bytes("{}}", 0), "not valid JSON"},
      {"invalid UTF-8", file_bytes("{\"\xFF\":{}}", 0), "not valid JSON"},
      {"an array", file_bytes("[]", 0), "expected an object"},
      {"deep JSON", file_bytes(std::string(1'000'000, '['), 0), "expected an object"},
      {"deep JSON in a tensor", file_bytes("{\"x\":" + std::string(1'000'000, '['), 0),
       "x: expected an object"},
      {"deep JSON in a shape", file_bytes("{\"x\":{\"shape\":" + std::string(1'000'000, '['), 0),
       "x: shape: expected"},
      {"tensor twice",
       file_bytes(
           "{" + tensor("x", "U8", "[1]", "[0,1]") + "," + tensor("x", "U8", "[1]", "[1,2]") + "}",
           2),
       "\"x\" occurs twice"},
      {"metadata twice", file_bytes(R"({"__metadata__":{},"__metadata__":{}})", 0), "occurs twice"},
      {"metadata key twice", file_bytes(R"({"__metadata__":{"a":"1","a":"2"}})", 0),
       "\"a\" occurs twice"},
      {"dtype twice", file_bytes(R"({"x":{"dtype":"U8","dtype":"U8"}})", 0), "occurs twice"},
      {"number in metadata", file_bytes(R"({"__metadata__":{"a":1}})", 0), "map of strings"},
      {"object in metadata", file_bytes(R"({"__metadata__":{"a":{}}})", 0), "map of strings"},
      {"metadata is a string", file_bytes(R"({"__metadata__":"a"})", 0), "map of strings"},
      {"unknown key", file_bytes(R"({"x":{"dtpye":"U8"}})", 0), "unknown key \"dtpye\""},
      {"missing offsets", file_bytes(R"({"x":{"dtype":"U8","shape":[0]}})", 0),
       "expected dtype, shape and data_offsets"},
      {"tensor is a number", file_bytes(R"({"x":1})", 0), "x: expected an object"},
      {"tensor is null", file_bytes(R"({"x":null})", 0), "x: expected an object"},
      {"unknown dtype", one("F16", "[1]", "[0,2]", 2), "got F16"},
      {"dtype is a number", file_bytes(R"({"x":{"dtype":1}})", 0), "dtype: expected a string"},
      {"negative size", one("U8", "[-1]", "[0,1]", 1), "shape: expected an array of sizes, got -1"},
      {"fractional size", one("U8", "[1.5]", "[0,1]", 1), "got 1.5"},
      {"size of 2^63", one("U8", "[9223372036854775808]", "[0,1]", 1), "shape: expected"},
      {"size past 2^64", one("U8", "[99999999999999999999]", "[0,1]", 1), "shape: expected"},
      {"string in a shape", one("U8", "[\"1\"]", "[0,1]", 1), "shape: expected"},
      {"product overflows to 0", one("U8", "[4294967296,4294967296]", "[0,0]", 0),
       "too many elements"},
      {"bytes overflow to 0", one("F64", "[2305843009213693952]", "[0,0]", 0), "too many elements"},
      {"one offset", one("U8", "[1]", "[0]", 1), "expected 2 numbers, got 1"},
      {"three offsets", one("U8", "[1]", "[0,1,1]", 1), "a third offset"},
      {"negative offset", one("U8", "[1]", "[-1,0]", 1), "data_offsets: expected"},
      {"offsets past the data", one("U8", "[2]", "[0,2]", 1), "outside the 1 bytes"},
      {"offsets past 2^63", one("U8", "[1]", "[18446744073709551614,18446744073709551615]", 1),
       "outside"},
      {"offsets backwards", one("U8", "[1]", "[1,0]", 1), "outside"},
      {"more bytes than the shape", one("F32", "[1]", "[0,8]", 8), "expected 4 bytes for (1) F32"},
      {"fewer bytes than the shape", one("F32", "[3]", "[0,8]", 8), "expected 12 bytes"},
      {"overlap", two("[0,4]", "[2,6]", 6), "not overlap"},
      {"shared data", two("[0,4]", "[0,4]", 4), "not overlap"},
      {"gap", two("[0,4]", "[5,9]", 9), "leave no gap"},
      {"late start", two("[4,8]", "[8,12]", 12), "leave no gap"},
      {"bytes nobody owns", two("[0,4]", "[4,8]", 9), "more than the 8 bytes of data"},
  };
}

TEST(Safetensors, HostileFilesAreRefusedWithTheirReason) {
  for (const Hostile& file : hostile_files()) {
    const std::string message = refusal(file.bytes);
    EXPECT_NE(message.find(file.expected), std::string::npos)
        << file.name << ": expected \"" << file.expected << "\" in \"" << message << "\"";
  }
}

TEST(Safetensors, HeadersOverTheLimitOfTheFormatAreRefused) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "huge";
  std::ofstream(path, std::ios::binary) << file_bytes("{}", 0, 100'000'001);
  std::filesystem::resize_file(path, 8 + 100'000'001);  // sparse
  try {
    TensorFile::read(path);
    FAIL() << "accepted";
  } catch (const BadInput& error) {
    EXPECT_NE(std::string(error.what()).find("the format's limit"), std::string::npos)
        << error.what();
  }
}

// Every single-byte change of a small file is either accepted or refused, never a crash.
TEST(Safetensors, MutatedFilesNeverCrash) {
  const std::string valid = file_bytes("{" + tensor("x", "F32", "[2,1]", "[0,8]") + "}", 8);
  const TemporaryFolder folder;
  const auto path = folder.path() / "mutated";
  for (std::size_t i = 0; i < 30; ++i) {
    for (const char change : {'\x01', '\x10', '\x7f'}) {
      std::string mutated = valid;
      mutated[i] = static_cast<char>(mutated[i] ^ change);
      std::ofstream(path, std::ios::binary) << mutated;
      try {
        TensorFile::read(path);
      } catch (const BadInput&) {
      }
    }
  }
}

}  // namespace
}  // namespace vla_bench
