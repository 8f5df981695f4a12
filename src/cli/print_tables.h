// Tables on standard output, in the format a user asked for.
#pragma once

#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// The tables that `names` asks for, in their own order; all when it is empty. Throws BadInput for
/// a name that is none.
std::vector<Table> select_tables(std::vector<Table> tables, const std::vector<std::string>& names);

/// "markdown": with headings; "csv": one after the other, an empty line between; "json": one object
/// of arrays.
void print_tables(const std::vector<Table>& tables, const std::string& format);

}  // namespace vla_bench::cli
