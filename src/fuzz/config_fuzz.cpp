// Fuzzes configs: an accepted config is the same after its dump is read, and its cells can be made.
#include <string>

#include "config/read.h"
#include "fuzz/fuzz.h"

namespace vla_bench {
namespace {

/// Whether the config has few enough cells to make them quickly.
bool is_small(const RunConfig& config) {
  std::size_t cells = config.mixers.size() * config.seeds.size();
  for (const SweepAxis& axis : config.sweep) cells *= axis.values.size();
  return cells <= 200;
}

void check(std::string_view bytes) {
  RunConfig config;
  if (!fuzz::accepts([&] { config = parse_config(bytes, "input"); })) return;
  const std::string dump = dump_config(config);
  fuzz::require(dump_config(parse_config(dump, "dump")) == dump, "a config's dump is stable");
  if (!is_small(config)) return;
  fuzz::accepts([&] {  // a label may turn out too long
    for (const CellConfig& cell : expand_cells(config, Device::cpu)) {
      fuzz::require(cell.config.mixers.size() == 1 && cell.config.seeds.size() == 1,
                    "a cell has one mixer and one seed");
    }
  });
}

}  // namespace
}  // namespace vla_bench

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vla_bench::check(vla_bench::fuzz::text_of(data, size));
  return 0;
}
