// Fuzzes safetensors files: an accepted file is the same after it is written, and every tensor can
// be read as a type.
#include <string>

#include "core/safetensors.h"
#include "fuzz/fuzz.h"

namespace vla_bench {
namespace {

template <class T>
void take(const TensorFile& file, const TensorEntry& entry) {
  fuzz::accepts([&] {
    fuzz::require(file.values<T>(entry.name).size() == static_cast<std::size_t>(entry.size()),
                  "a tensor has as many values as its shape says");
  });
}

void check(std::string_view bytes) {
  TensorFile file;
  if (!fuzz::accepts([&] { file = TensorFile::parse(bytes, "input"); })) return;
  for (const std::string& name : file.names()) {
    const TensorEntry& entry = file.at(name);
    take<double>(file, entry);
    take<std::int64_t>(file, entry);
    take<std::int32_t>(file, entry);
    take<std::uint8_t>(file, entry);
  }
  for (const auto& entry : file.metadata()) {
    fuzz::accepts([&] { file.integer(entry.first); });
    fuzz::accepts([&] { file.number(entry.first); });
  }
  const std::string written = file.serialise();
  const TensorFile again = TensorFile::parse(written, "written");
  fuzz::require(again.serialise() == written, "a file's bytes are stable");
  fuzz::require(again.names() == file.names() && again.metadata() == file.metadata(),
                "names and metadata survive");
}

}  // namespace
}  // namespace vla_bench

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vla_bench::check(vla_bench::fuzz::text_of(data, size));
  return 0;
}
