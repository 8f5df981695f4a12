#include "cli/print_tables.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "cli/output.h"
#include "cli/terminal_table.h"
#include "cli/terminal_text.h"
#include "core/error.h"

namespace vla_bench::cli {
namespace {

std::string with_name(std::string text, const std::string& name) {
  const std::size_t place = text.rfind("{}");
  return place == std::string::npos ? text : text.replace(place, 2, name);
}

bool needs_no_quotes(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         std::string_view("-_./,:=+@%").find(c) != std::string_view::npos;
}

std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

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

std::string table_text(const Table& table, const std::string& whole, std::size_t most_lines) {
  const auto width = terminal_width(STDOUT_FILENO);
  if (!width) return to_markdown(table);
  return to_terminal(table, {.width = *width, .whole = whole, .most_lines = most_lines});
}

void print_tables(const std::vector<Table>& tables, const std::string& format,
                  const std::string& whole) {
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
      const std::string text = table_text(tables[i], with_name(whole, tables[i].name));
      print(fmt::format("## {}\n\n{}\n", tables[i].name, text));
    }
  }
}

std::string shell_words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += ' ';
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), needs_no_quotes);
    text += plain ? word : quoted(word);
  }
  return text;
}

}  // namespace vla_bench::cli
