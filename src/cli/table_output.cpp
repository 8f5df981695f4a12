#include "cli/table_output.h"

#include <fmt/format.h>

#include "cli/output.h"
#include "core/files.h"

namespace vla_bench::cli {

void print_tables(const std::vector<Table>& tables, const std::string& format) {
  if (format == "json") {
    std::string members;
    for (const Table& table : tables) {
      members +=
          fmt::format("{}\"{}\": {}", members.empty() ? "" : ",\n", table.name, to_json(table));
    }
    print(fmt::format("{{\n{}\n}}\n", members));
    return;
  }
  for (std::size_t i = 0; i < tables.size(); ++i) {
    if (format == "csv") {
      if (i > 0) print("\n");
      print(to_csv(tables[i]));
    } else {
      print(fmt::format("## {}\n\n{}\n", tables[i].name, to_markdown(tables[i])));
    }
  }
}

void write_tables(const std::vector<Table>& tables, const std::filesystem::path& out, bool json) {
  for (const Table& table : tables) {
    write_file_atomically(out / (table.name + ".csv"), to_csv(table));
    write_file_atomically(out / (table.name + ".md"), to_markdown(table));
    if (json) write_file_atomically(out / (table.name + ".json"), to_json(table));
    log_info(fmt::format("{}: {} rows", (out / (table.name + ".csv")).string(), table.rows.size()));
  }
}

}  // namespace vla_bench::cli
