// Cells of a config, what it is refused for, and values of its tables.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "experiments/experiment.h"

namespace vla_bench::testing {

/// The first cell of a config, which should have one mixer and one seed.
inline CellConfig cell_of(std::string_view json) {
  return expand_cells(parse_config(json, "test"), Device::cpu).front();
}

/// The message of the BadInput that the config gives, or "" when it is accepted.
inline std::string refusal(std::string_view json, const std::vector<std::string>& overrides = {}) {
  try {
    parse_config(json, "x.json", overrides);
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

/// The refusal contains `expected`.
#define EXPECT_REFUSED(expected, ...)                                       \
  {                                                                         \
    const std::string message = ::vla_bench::testing::refusal(__VA_ARGS__); \
    EXPECT_NE(message.find(expected), std::string::npos)                    \
        << "message: " << message << "\nexpected: " << (expected);          \
  }

inline CellEnvironment on_threads(int threads) {
  return {.context = {Device::cpu, threads}, .checkpoint = {}, .progress = {}, .stop = nullptr};
}

inline double number(const Table& table, std::size_t row, std::string_view column) {
  return std::get<double>(table.rows.at(row).at(table.column(column)));
}

inline bool is_empty(const Table& table, std::size_t row, std::string_view column) {
  return std::holds_alternative<std::monostate>(table.rows.at(row).at(table.column(column)));
}

inline std::string text(const Table& table, std::size_t row, std::string_view column) {
  return std::get<std::string>(table.rows.at(row).at(table.column(column)));
}

}  // namespace vla_bench::testing
