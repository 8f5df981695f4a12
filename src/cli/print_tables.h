// Prints tables on standard output: fitted to a terminal, or in a requested format.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// The tables called `names`, in the order of the tables; all when it is empty. Throws BadInput for
/// an unknown name.
std::vector<Table> select_tables(std::vector<Table> tables, const std::vector<std::string>& names);

/// A table for people on standard output: on a terminal in its width (see terminal_table.h), else
/// Markdown. `whole` says how to see what does not fit; on a terminal a text takes up to
/// `most_lines` lines.
std::string table_text(const Table& table, const std::string& whole, std::size_t most_lines = 3);

/// "markdown": table_text with headings; "csv": tables separated by empty lines; "json": one object
/// of arrays. In `whole` {} stands for the table's name:
/// "vla-bench report DIR --table {} --format csv".
void print_tables(const std::vector<Table>& tables, const std::string& format,
                  const std::string& whole);

/// The words of a command for a shell, quoted where needed.
std::string shell_words(const std::vector<std::string>& words);

}  // namespace vla_bench::cli
