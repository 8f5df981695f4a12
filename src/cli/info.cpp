// vla-bench info and schema: the program's build, the machine, and what a config can say.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "config/read.h"
#include "core/device.h"
#include "core/error.h"
#include "core/threads.h"
#include "report/provenance.h"
#include "report/table.h"

namespace vla_bench::cli {
namespace {

// All of a value is shown: there is no other column to leave room for.
constexpr std::size_t kMostValueLines = 1000;

int info(bool json) {
  const ThreadChoice threads = choose_threads(0);
  if (!threads.warning.empty()) log_warning(threads.warning);
  auto facts = provenance(threads.threads);
  const auto after = std::find_if(facts.begin(), facts.end(),
                                  [](const auto& fact) { return fact.first == "threads"; });
  facts.insert(after + 1, {"threads_from", threads.decided_by});
  const CudaStatus cuda = cuda_status();
  const std::vector<std::string> gpus = cuda_device_descriptions();
  if (json) {
    nlohmann::ordered_json document;
    for (const auto& [key, value] : facts) document[key] = value;
    document["devices"] = {
        {{"device", "cpu"}, {"available", true}, {"detail", ""}},
        {{"device", "cuda"}, {"available", cuda.available}, {"detail", cuda.detail}}};
    document["gpus"] = gpus;
    print(document.dump(2) + "\n");
    return kExitDone;
  }
  Table table;
  table.columns = {"fact", "value"};
  for (const auto& [key, value] : facts) {
    if (key != "cuda") table.add({key, value});  // listed with the devices below
  }
  table.add({std::string("device cpu"), std::string("available")});
  table.add({std::string("device cuda"),
             cuda.available ? "available: " + cuda.detail
                            : "not available: " + cuda.detail + "; runs go to the cpu"});
  for (std::size_t i = 0; i < gpus.size(); ++i) table.add({"gpu " + std::to_string(i), gpus[i]});
  print(table_text(table, "", kMostValueLines));
  return kExitDone;
}

}  // namespace

void add_info(CommandLine& command_line) {
  const auto json = std::make_shared<bool>(false);
  Subcommand command =
      command_line.add("info", "Print version, build, processor, devices and library versions",
                       "Example: vla-bench info --json", [json] { return info(*json); });
  command.flag("--json", *json, "As one JSON object");
}

void add_schema(CommandLine& command_line) {
  command_line.add("schema",
                   "Print the JSON Schema of a config: every key, its default, range and meaning",
                   "Example: vla-bench schema > configs/schema.json", [] {
                     print(config_schema());
                     return kExitDone;
                   });
}

}  // namespace vla_bench::cli
