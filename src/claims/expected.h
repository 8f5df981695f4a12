// experiments/*/expected.json: the published figure, the number of a table that decides, and the
// bounds for it to count as reproduced. Strict like configs: an unknown key or an invalid value is
// BadInput naming file, JSON pointer and what was expected.
//
//   {"id": "C1", "title": ..., "question": ...,
//    "published": {"value": "109 times lower at T = 1,000", "source": "abstract"},
//    "configs": ["config.json"], "command": "vla-bench run ...",
//    "criteria": [{"what": ..., "table": "state_norm_summary", "column": "s_norm_mean",
//                  "where": {"label": "linear"}, "over": {..., "where": {"label": "vla"}},
//                  "accept": [98, 120], "why": ...}],
//    "condition": {"text": ..., "criteria": [...]}}
//
// A file has one claim or a list of them. Numbers come from the summary tables of `report`, where
// all averaging is done: a criterion selects a row, or the extreme of several.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "report/table.h"

namespace vla_bench {

/// How the matching rows of a selection give one number.
enum class Reduction { row, min, max };
template <>
inline constexpr std::array enum_names<Reduction> = {
    std::pair{Reduction::row, std::string_view("row")},
    std::pair{Reduction::min, std::string_view("min")},
    std::pair{Reduction::max, std::string_view("max")}};

/// The subject of a criterion, where it changes the rules. memory: seeds that have not learned to
/// guess among the values shown leave it undecided. divergence: diverged cells do not count against
/// it.
enum class Subject { memory, divergence };
template <>
inline constexpr std::array enum_names<Subject> = {
    std::pair{Subject::memory, std::string_view("memory")},
    std::pair{Subject::divergence, std::string_view("divergence")}};

/// Maps a column to its accepted values. In JSON one value or a list.
struct Filter {
  std::vector<std::pair<std::string, std::vector<Value>>> columns;
};

/// One number of the summary tables that `vla-bench report` makes.
struct Selection {
  std::string table, column;
  Filter where;
  Reduction statistic = Reduction::row;

  template <class V>
  void visit(V& v) {
    v.field("table", table, {.help = "a summary of vla-bench report"});
    v.field("column", column, {.help = "its column"});
    v.field("where", where, {.help = "column to a value or a list of values; all must hold"});
    v.field("statistic", statistic, {.help = "of the rows: the only one, or min or max"});
  }
};

struct Criterion {
  std::string what;
  Selection of;
  std::optional<Selection> over;              // the number is `of` divided by `over`
  std::vector<std::optional<double>> accept;  // low, high, both included; null: unbounded
  std::optional<std::string> equals;          // for a text column, instead of accept
  std::string why;
  std::optional<Subject> about{};
  std::string place{};  // of this criterion, for messages

  template <class V>
  void visit(V& v) {
    v.field("what", what, {.help = "the number in words"});
    of.visit(v);
    v.field("over", over, {.help = "divide by this one"});
    v.field("accept", accept, {.help = "[low, high], both included; null is unbounded"});
    v.field("equals", equals, {.help = "the text that a text column must hold"});
    v.field("why", why, {.help = "why these bounds"});
    v.field("about", about, {.help = "memory or divergence, where it is about one of them"});
  }
};

struct Published {
  std::string value, source;

  template <class V>
  void visit(V& v) {
    v.field("value", value, {.help = "the published figure"});
    v.field("source", source, {.help = "where it stands"});
  }
};

/// The condition under which a claim holds that does not hold as stated.
struct Condition {
  std::string text;
  std::vector<Criterion> criteria;

  template <class V>
  void visit(V& v) {
    v.field("text", text, {.help = "the condition in words"});
    v.field("criteria", criteria, {.help = "all met: it holds under the condition"});
  }
};

struct Claim {
  std::string id, title, question;
  Published published;
  std::vector<std::string> configs;  // paths relative to the file's folder
  std::string command;
  std::vector<Criterion> criteria;  // the first is the headline
  std::optional<Condition> condition;
  std::filesystem::path folder;  // of the file

  template <class V>
  void visit(V& v) {
    v.field("id", id, {.help = "C1"});
    v.field("title", title, {.help = "the claim in a line"});
    v.field("question", question, {.help = "what is asked"});
    v.field("published", published, {.help = "what was published"});
    v.field("configs", configs, {.help = "whose cells decide"});
    v.field("command", command, {.help = "runs them"});
    v.field("criteria", criteria, {.help = "what is measured; the first is the headline"});
    v.field("condition", condition, {.help = "under which it holds when not as stated"});
  }
};

/// Reads the claims of one file; `json` is its text.
std::vector<Claim> parse_claims(std::string_view json, const std::filesystem::path& file);

/// Reads the claims of all <folder>/*/expected.json, in the order of the paths. Throws BadInput
/// when there are none, or an id occurs twice.
std::vector<Claim> read_claims(const std::filesystem::path& folder);

}  // namespace vla_bench
