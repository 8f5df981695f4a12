// Tables to standard output and to files, as report and claims give them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/table.h"

namespace vla_bench::cli {

/// `format` is markdown (with headings), csv (an empty line between tables) or json (one object of
/// arrays).
void print_tables(const std::vector<Table>& tables, const std::string& format);

/// A CSV and a Markdown file each, with `json` a JSON file too.
void write_tables(const std::vector<Table>& tables, const std::filesystem::path& out, bool json);

}  // namespace vla_bench::cli
