#include "claims/expected.h"

#include <algorithm>
#include <map>
#include <system_error>

#include "config/reader.h"
#include "core/error.h"
#include "core/files.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFileName = "expected.json";
constexpr const char* kLossTable = "accuracy_summary";

Value read_one(const Json& json, const Place& place) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_number_integer()) return json.get<std::int64_t>();
  if (json.is_number()) return json.get<double>();
  place.fail(fmt::format("expected a string or a number, got {}", excerpt(json)));
}

void require_text(const std::string& text, const char* key, const Place& place) {
  if (text.empty()) place.at(key).fail("expected a text, got nothing");
}

template <class T>
void require_elements(const std::vector<T>& list, const char* key, const Place& place) {
  if (list.empty()) place.at(key).fail("expected a list of at least one element, got nothing");
}

void check(const Selection& selection, const Place& place) {
  require_text(selection.table, "table", place);
  require_text(selection.column, "column", place);
  if (find_schema(selection.table) != nullptr) {
    place.at("table").fail(
        fmt::format("expected a summary, got {}, which has one row per measurement",
                    excerpt(Json(selection.table))));
  }
}

void check(Criterion& criterion, const Place& place) {
  criterion.place = place.origin + ": " + place.pointer;
  require_text(criterion.what, "what", place);
  require_text(criterion.why, "why", place);
  check(criterion.of, place);
  if (criterion.over) check(*criterion.over, place.at("over"));
  const auto has_loss = [](const Selection& of) { return of.table == kLossTable; };
  if (criterion.about == Subject::memory && !has_loss(criterion.of) &&
      !(criterion.over && has_loss(*criterion.over))) {
    place.at("about").fail(fmt::format(
        "expected one of its tables to be {}, whose loss tells whether a model has learned",
        kLossTable));
  }
  if (criterion.accept.empty() == !criterion.equals) {
    place.fail("expected either \"accept\" or \"equals\"");
  }
  if (criterion.equals) {
    if (criterion.over || criterion.of.statistic != Reduction::row) {
      place.at("equals").fail("a text has neither \"over\" nor a statistic");
    }
    return;
  }
  const auto& accept = criterion.accept;
  const bool two = accept.size() == 2 && (accept[0] || accept[1]);
  if (!two || (accept[0] && accept[1] && *accept[0] > *accept[1])) {
    place.at("accept").fail("expected [low, high] with low <= high, one of which may be null");
  }
}

void check(std::vector<Criterion>& criteria, const Place& place) {
  require_elements(criteria, "criteria", place);
  for (std::size_t i = 0; i < criteria.size(); ++i) check(criteria[i], place.at("criteria").at(i));
}

void check(Claim& claim, const Place& place) {
  require_text(claim.id, "id", place);
  require_text(claim.title, "title", place);
  require_text(claim.question, "question", place);
  require_text(claim.command, "command", place);
  require_text(claim.published.value, "value", place.at("published"));
  require_text(claim.published.source, "source", place.at("published"));
  require_elements(claim.configs, "configs", place);
  for (std::size_t i = 0; i < claim.configs.size(); ++i) {
    std::error_code ignored;
    if (fs::is_regular_file(claim.folder / claim.configs[i], ignored)) continue;
    place.at("configs").at(i).fail(fmt::format("no such file: {}", claim.configs[i]));
  }
  check(claim.criteria, place);
  if (claim.condition) {
    require_text(claim.condition->text, "text", place.at("condition"));
    check(claim.condition->criteria, place.at("condition"));
  }
}

Claim read_claim(const Json& json, const Place& place, const fs::path& folder) {
  Claim claim;
  claim.folder = folder;
  read_value(json, claim, {}, place);
  check(claim, place);
  return claim;
}

std::vector<fs::path> find_files(const fs::path& folder) {
  std::error_code code;
  std::vector<fs::path> files;
  fs::directory_iterator entry(folder, code);
  while (!code && entry != fs::directory_iterator()) {
    std::error_code ignored;
    const fs::path file = entry->path() / kFileName;
    if (fs::is_regular_file(file, ignored)) files.push_back(file);
    entry.increment(code);
  }
  if (code) throw BadInput(fmt::format("{}: cannot list: {}", folder.string(), code.message()));
  if (files.empty()) {
    throw BadInput(
        fmt::format("{}: expected folders with {}, found none", folder.string(), kFileName));
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

void read_value(const Json& json, Filter& out, const FieldInfo&, const Place& place) {
  if (!json.is_object()) {
    place.fail(fmt::format("expected an object of column to value, got {}", excerpt(json)));
  }
  for (const auto& [column, wanted] : json.items()) {
    const Place at = place.at(column);
    std::vector<Value> values;
    if (wanted.is_array()) {
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        values.push_back(read_one(wanted[i], at.at(i)));
      }
      if (values.empty()) at.fail("expected at least one value");
    } else {
      values.push_back(read_one(wanted, at));
    }
    out.columns.emplace_back(column, std::move(values));
  }
}

std::vector<Claim> parse_claims(std::string_view json, const fs::path& file) {
  const Place place{file.string(), ""};
  const Json document = parse_json(json, place.origin);
  const fs::path folder = file.parent_path();
  if (!document.is_array()) return {read_claim(document, place, folder)};
  std::vector<Claim> claims;
  for (std::size_t i = 0; i < document.size(); ++i) {
    claims.push_back(read_claim(document[i], place.at(i), folder));
  }
  return claims;
}

std::vector<Claim> read_claims(const fs::path& folder) {
  std::vector<Claim> claims;
  std::map<std::string, fs::path> taken;
  for (const fs::path& file : find_files(folder)) {
    for (Claim& claim : parse_claims(read_file(file, kMaxJsonBytes), file)) {
      const auto [entry, fresh] = taken.emplace(claim.id, file);
      if (!fresh) {
        throw BadInput(fmt::format("{}: /id: \"{}\" is taken by {}", file.string(), claim.id,
                                   entry->second.string()));
      }
      claims.push_back(std::move(claim));
    }
  }
  return claims;
}

}  // namespace vla_bench
