#include <cmath>
#include <nlohmann/json.hpp>

#include "core/text.h"
#include "report/table.h"

namespace vla_bench {
namespace {

struct JsonPrinter {
  nlohmann::ordered_json operator()(std::monostate) const { return nullptr; }
  nlohmann::ordered_json operator()(const std::string& text) const { return text; }
  nlohmann::ordered_json operator()(std::int64_t value) const { return value; }
  nlohmann::ordered_json operator()(double value) const {
    if (std::isfinite(value)) return value;
    return number_text(value);  // JSON has no literal for these
  }
};

}  // namespace

std::string to_json(const Table& table) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& row : table.rows) {
    nlohmann::ordered_json object = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      object[table.columns[i]] = std::visit(JsonPrinter(), row[i]);
    }
    rows.push_back(std::move(object));
  }
  // A label or reason may have bytes that are not UTF-8; the table is printed nevertheless.
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  return rows.dump(2, ' ', false, kReplace) + "\n";
}

}  // namespace vla_bench
