// Fuzzes packs, as given and with the checksum of every line recomputed: the note, the positions of
// lines, and how their cells ended. record_fuzz.cpp reads the records themselves.
#include <algorithm>
#include <memory>
#include <sstream>
#include <string>

#include "fuzz/fuzz.h"
#include "fuzz/sealing.h"
#include "runs/cell_folder.h"
#include "runs/pack.h"

namespace vla_bench {
namespace {

std::string with_lines_sealed_anew(std::string_view bytes) {
  std::string sealed;
  while (!bytes.empty()) {
    const std::string_view line = bytes.substr(0, bytes.find('\n'));
    sealed += fuzz::sealed_anew(line) + "\n";
    bytes.remove_prefix(std::min(bytes.size(), line.size() + 1));
  }
  return sealed;
}

void check(const std::string& bytes) {
  fuzz::accepts([&] {
    PackReader reader(std::make_unique<std::istringstream>(bytes), "input.jsonl");
    while (const auto line = reader.next()) {
      fuzz::require(bytes.compare(line->offset, line->text.size(), line->text) == 0,
                    "a line stands where the reader says");
      fuzz::accepts([&] { head_with_reason(line->text, "input.jsonl"); });
    }
  });
}

}  // namespace
}  // namespace vla_bench

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(vla_bench::fuzz::text_of(data, size));
  vla_bench::check(bytes);
  vla_bench::check(vla_bench::with_lines_sealed_anew(bytes));
  return 0;
}
