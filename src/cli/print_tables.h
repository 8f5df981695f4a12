// Tables on standard output: fitted to a terminal, else in the format a user asked for.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// The tables that `names` asks for, in their own order; all when it is empty. Throws BadInput for
/// a name that is none.
std::vector<Table> select_tables(std::vector<Table> tables, const std::vector<std::string>& names);

/// A table as a person reads it on standard output: on a terminal as wide as that (see
/// terminal_table.h), elsewhere Markdown. `whole` says how to see what does not fit; a text takes
/// up to `most_lines` lines there.
std::string table_text(const Table& table, const std::string& whole, std::size_t most_lines = 3);

/// "markdown": table_text with headings; "csv": one after the other, an empty line between; "json":
/// one object of arrays. In `whole` {} stands for the table's name:
/// "vla-bench report DIR --table {} --format csv".
void print_tables(const std::vector<Table>& tables, const std::string& format,
                  const std::string& whole);

/// The words of a command as a shell takes them, quoted where needed.
std::string shell_words(const std::vector<std::string>& words);

}  // namespace vla_bench::cli
