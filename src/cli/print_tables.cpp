#include "cli/print_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cli/output.h"
#include "core/error.h"

namespace vla_bench::cli {

std::vector<Table> select_tables(std::vector<Table> tables, const std::vector<std::string>& names) {
  if (names.empty()) return tables;
  std::vector<Table> selected;
  for (const std::string& name : names) {
    const auto named = [&](const Table& table) { return table.name == name; };
    const auto found = std::find_if(tables.begin(), tables.end(), named);
    if (found == tables.end()) {
      std::string known;
      for (const Table& table : tables) known += (known.empty() ? "" : ", ") + table.name;
      throw BadInput(fmt::format("--table: no table \"{}\" here; there are {}", name, known));
    }
    selected.push_back(*found);
  }
  return selected;
}

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

}  // namespace vla_bench::cli
