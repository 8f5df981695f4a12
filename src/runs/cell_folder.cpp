#include "runs/cell_folder.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <system_error>

#include "config/dump.h"
#include "config/json.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

std::string now_utc() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace

void CellFolder::begin(const RunConfig& config) const {
  remove_leftovers(path);
  const Json document = {{"begun", now_utc()}, {"config", resolved_json(config)}};
  write_file_atomically(begun(),
                        document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void CellFolder::discard() const {
  std::error_code ignored;  // another process may have removed them
  fs::remove(record(), ignored);
  fs::remove(checkpoint(), ignored);
}

void CellFolder::seal(const CellRecord& record_) const {
  write_file_atomically(record(), vla_bench::seal(record_) + "\n");
  tidy();
}

void CellFolder::tidy() const {
  std::error_code ignored;
  fs::remove(begun(), ignored);
}

RecordHead head_with_reason(std::string_view line, const std::string& place) {
  RecordHead head = read_head(line, place);
  if (head.outcome.status == "failed") {
    head.outcome.reason = read_record(line, place).outcome.reason;
  }
  return head;
}

std::optional<SealedCell> look_up(const CellFolder& folder) {
  std::error_code ignored;
  if (!fs::exists(folder.record(), ignored)) return std::nullopt;
  SealedCell cell;
  try {
    const std::string place = folder.record().string();
    const std::string line = read_file(folder.record(), kLongestRecord);
    cell.head = head_with_reason(line, place);
    const std::string hash = folder.path.filename().string();
    if (cell.head.hash != hash) {
      cell.damage = fmt::format("[{}] record: of another cell, {}", place, cell.head.hash);
    }
  } catch (const BadInput& error) {
    // Removed by another process that runs the cell again (--force).
    if (!fs::exists(folder.record(), ignored)) return std::nullopt;
    cell.damage = error.what();
  }
  return cell;
}

RunConfig read_begun(const CellFolder& folder) {
  const std::string place = folder.begun().string();
  const Json document = parse_json(read_file(folder.begun(), kLongestRecord), place);
  if (!document.is_object() || !document.contains("config")) {
    throw BadInput(fmt::format("{}: expected an object with a \"config\"", place));
  }
  return read_resolved(document.at("config"), Place{place, "/config"});
}

}  // namespace vla_bench
