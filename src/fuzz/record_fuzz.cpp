// Fuzzes a record's line, as given and with its checksum recomputed, since the checksum refuses
// nearly every change. An accepted record's line must be stable.
#include <string>

#include "fuzz/fuzz.h"
#include "fuzz/sealing.h"
#include "report/record.h"

namespace vla_bench {
namespace {

void check(std::string_view line) {
  fuzz::accepts([&] { read_head(line, "input"); });
  fuzz::accepts([&] { read_history(line, "input"); });
  fuzz::accepts([&] { read_record(line, "input"); });
  CellRecord record;
  if (!fuzz::accepts([&] { record = read_record(line, "input", ReadHistory::yes); })) return;
  const std::string sealed = seal(record);
  fuzz::require(seal(read_record(sealed, "sealed", ReadHistory::yes)) == sealed,
                "a record's line is stable");
  fuzz::require(comparable_rows(read_record(sealed, "sealed")) == comparable_rows(record),
                "a record's rows survive");
  SharedParts shared;
  for (int time = 0; time < 2; ++time) {
    fuzz::require(seal(read_record(line, "input", ReadHistory::yes, &shared)) == sealed,
                  "what records share changes nothing");
  }
}

}  // namespace
}  // namespace vla_bench

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view line = vla_bench::fuzz::text_of(data, size);
  vla_bench::check(line);
  vla_bench::check(vla_bench::fuzz::sealed_anew(line));
  return 0;
}
