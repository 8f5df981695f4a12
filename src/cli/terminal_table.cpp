#include "cli/terminal_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "cli/column_order.h"
#include "cli/terminal_text.h"
#include "core/text.h"

namespace vla_bench::cli {
namespace {

constexpr std::string_view kGap = "  ";  // between columns
// Narrower texts are not readable.
constexpr std::size_t kNarrowestText = 16;
constexpr std::size_t kNarrowestHeadline = 20;
constexpr std::size_t kNarrowestTerminal = 20;
constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

struct Column {
  std::string name;
  std::vector<std::string> cells;  // one per row
  bool is_number = false;          // right-aligned, never wrapped
  std::size_t cell_width = 0;      // of the widest cell
  std::size_t width = 0;           // as shown

  std::size_t natural_width() const { return std::max(cell_width, count_characters(name)); }
};

/// Characters of the longest part of a name that is broken after each "_".
std::size_t narrowest_name(const std::string& name) {
  std::size_t longest = 0, begin = 0;
  while (begin < name.size()) {
    const std::size_t mark = name.find('_', begin);
    const std::size_t end = mark == std::string::npos ? name.size() : mark + 1;
    longest =
        std::max(longest, count_characters(std::string_view(name).substr(begin, end - begin)));
    begin = end;
  }
  return longest;
}

/// The least width of a shown column.
std::size_t narrowest(const Column& column, Telling telling) {
  if (telling == Telling::least) return std::max(column.cell_width, narrowest_name(column.name));
  const std::size_t text = telling == Telling::detail ? kNarrowestText : kNarrowestHeadline;
  const std::size_t cells =
      column.is_number ? column.cell_width : std::min(column.cell_width, text);
  return std::max(cells, narrowest_name(column.name));
}

bool is_number(const Value& value) {
  return std::holds_alternative<double>(value) || std::holds_alternative<std::int64_t>(value);
}

std::vector<Column> columns_of(const Table& table) {
  std::vector<Column> columns;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    Column column{.name = one_line(table.columns[i])};
    bool has_text = false;
    for (const auto& row : table.rows) {
      column.cells.push_back(one_line(readable_text(row[i])));
      column.cell_width = std::max(column.cell_width, count_characters(column.cells.back()));
      column.is_number = column.is_number || is_number(row[i]);
      has_text = has_text || std::holds_alternative<std::string>(row[i]);
    }
    column.is_number = column.is_number && !has_text;
    columns.push_back(std::move(column));
  }
  return columns;
}

bool is_constant(const Column& column) {
  return std::all_of(column.cells.begin(), column.cells.end(),
                     [&](const std::string& cell) { return cell == column.cells.front(); });
}

/// Removes columns with the same value in all rows, or equal to an earlier one, and returns the
/// sentence that has their values instead; a single row keeps all non-empty ones.
std::string take_out_constants(std::vector<Column>& columns) {
  const bool single = columns.front().cells.size() == 1;
  std::vector<Column> kept;
  std::vector<std::string> same, empty, copies;
  for (Column& column : columns) {
    const auto original = std::find_if(kept.begin(), kept.end(), [&](const Column& earlier) {
      return !column.is_number && earlier.cells == column.cells;
    });
    if (column.cell_width == 0) {
      empty.push_back(column.name);
    } else if (single) {
      kept.push_back(std::move(column));
    } else if (is_constant(column)) {
      same.push_back(fmt::format("{} {}", column.name, column.cells.front()));
    } else if (original != kept.end()) {
      copies.push_back(fmt::format("{} as {}", column.name, original->name));
    } else {
      kept.push_back(std::move(column));
    }
  }
  columns = std::move(kept);
  same.insert(same.end(), copies.begin(), copies.end());
  std::string text;
  if (!same.empty()) text = fmt::format("all rows: {}", fmt::join(same, ", "));
  if (!empty.empty()) {
    text += fmt::format("{}empty: {}", text.empty() ? "" : "; ", fmt::join(empty, ", "));
  }
  return text;
}

std::size_t natural_total(const std::vector<Column>& columns) {
  std::size_t sum = 0;
  for (const Column& column : columns) sum += column.natural_width() + kGap.size();
  return sum - kGap.size();
}

std::size_t total_width(const std::vector<Column>& columns) {
  std::size_t sum = 0;
  for (const Column& column : columns) sum += column.width + kGap.size();
  return sum - kGap.size();
}

/// Distributes the remaining width to the columns, the narrowest first, up to their cells' width.
void widen_to_cells(std::vector<Column>& columns, std::size_t width) {
  for (std::size_t room = width - total_width(columns); room > 0; --room) {
    Column* next = nullptr;
    for (Column& column : columns) {
      const bool wants = column.width < column.cell_width;
      if (wants && (next == nullptr || column.width < next->width)) next = &column;
    }
    if (next == nullptr) return;
    ++next->width;
  }
}

/// Puts names on one line where there is room for that.
void widen_to_names(std::vector<Column>& columns, std::size_t width) {
  std::size_t room = width - total_width(columns);
  for (Column& column : columns) {
    const std::size_t more =
        column.natural_width() - std::min(column.width, column.natural_width());
    if (more > room) continue;
    column.width += more;
    room -= more;
  }
}

/// Removes an end of an interval ("accuracy_low") whose other end does not fit, since it could be
/// mistaken for the value itself.
void drop_half_intervals(std::vector<Column>& columns) {
  const auto drop_without = [&](std::string_view end, std::string_view other) {
    for (Column& column : columns) {
      if (!column.name.ends_with(end)) continue;
      const std::string stem = column.name.substr(0, column.name.size() - end.size());
      const auto partner = std::find_if(columns.begin(), columns.end(), [&](const Column& one) {
        return one.name == stem + std::string(other);
      });
      if (partner != columns.end() && partner->width == 0) column.width = 0;
    }
  };
  drop_without("low", "high");
  drop_without("high", "low");
}

/// Keeps the columns that fit `width`, the most important first, and sets their widths. Returns the
/// names of the others.
std::vector<std::string> choose(std::vector<Column>& columns, std::size_t width) {
  std::vector<std::string> names;
  for (const Column& column : columns) names.push_back(column.name);
  std::size_t used = 0;
  for (const RankedColumn& ranked : most_telling_first(names)) {
    Column& column = columns[ranked.index];
    const std::size_t least = narrowest(column, ranked.telling);
    const std::size_t more = least + (used > 0 ? kGap.size() : 0);
    // The first one is shown for any width.
    if (used > 0 && used + more > width) continue;
    column.width = std::min(least, width);
    used += more;
  }
  drop_half_intervals(columns);
  std::vector<Column> kept;
  std::vector<std::string> left_out;
  for (Column& column : columns) {
    if (column.width == 0) {
      left_out.push_back(column.name);
    } else {
      kept.push_back(std::move(column));
    }
  }
  columns = std::move(kept);
  // Cells before names: a name in two lines costs one line, not one per row.
  widen_to_cells(columns, width);
  widen_to_names(columns, width);
  return left_out;
}

/// The lines of one row, in which each column may have several.
std::string row_lines(const std::vector<Column>& columns,
                      const std::vector<std::vector<std::string>>& texts) {
  std::size_t lines = 1;
  for (const auto& text : texts) lines = std::max(lines, text.size());
  std::string out;
  for (std::size_t line = 0; line < lines; ++line) {
    std::string whole;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string text = line < texts[i].size() ? texts[i][line] : "";
      const std::string padding(columns[i].width - count_characters(text), ' ');
      if (i > 0) whole += kGap;
      whole += columns[i].is_number ? padding + text : text + padding;
    }
    whole.erase(whole.find_last_not_of(' ') + 1);
    out += whole + "\n";
  }
  return out;
}

/// Names of fewer lines than the others are at the bottom, next to their column.
std::string header_lines(const std::vector<Column>& columns) {
  std::vector<std::vector<std::string>> names, rules;
  std::size_t lines = 1;
  for (const Column& column : columns) {
    names.push_back(wrap_text(column.name, column.width, kNoLimit));
    rules.push_back({std::string(column.width, '-')});
    lines = std::max(lines, names.back().size());
  }
  for (auto& name : names) name.insert(name.begin(), lines - name.size(), "");
  return row_lines(columns, names) + row_lines(columns, rules);
}

struct Body {
  std::string text;
  std::vector<std::string> cut;  // columns with a text that was cut
};

Body body_lines(const std::vector<Column>& columns, std::size_t most_lines) {
  Body body;
  std::vector<bool> is_cut(columns.size(), false);
  for (std::size_t row = 0; row < columns.front().cells.size(); ++row) {
    std::vector<std::vector<std::string>> texts;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const Column& column = columns[i];
      texts.push_back(wrap_text(column.cells[row], column.width, kNoLimit));
      if (texts.back().size() <= most_lines) continue;
      texts.back() = wrap_text(column.cells[row], column.width, most_lines);
      is_cut[i] = true;
    }
    body.text += row_lines(columns, texts);
  }
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (is_cut[i]) body.cut.push_back(columns[i].name);
  }
  return body;
}

/// One line per column.
std::string upright(const std::vector<Column>& columns, std::size_t width) {
  Column names, values;
  for (const Column& column : columns) {
    names.width = std::max(names.width, count_characters(column.name));
  }
  names.width = std::min(names.width, width / 2);
  values.width = width - std::min(width, names.width + kGap.size());
  std::string text;
  for (const Column& column : columns) {
    text += row_lines({names, values}, {wrap_text(column.name, names.width, kNoLimit),
                                        wrap_text(column.cells[0], values.width, kNoLimit)});
  }
  return text;
}

std::string footer(const std::vector<std::string>& left_out, const std::vector<std::string>& cut,
                   const std::string& whole) {
  std::vector<std::string> parts;
  if (!left_out.empty()) parts.push_back(fmt::format("left out: {}", fmt::join(left_out, ", ")));
  if (!cut.empty()) parts.push_back(fmt::format("cut: {}", fmt::join(cut, ", ")));
  if (parts.empty()) return "";
  if (!whole.empty()) parts.push_back("all columns: " + whole);
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

std::string to_terminal(const Table& table, const TerminalStyle& style) {
  const std::size_t width = std::max(style.width, kNarrowestTerminal);
  if (table.rows.empty() || table.columns.empty()) {
    return paragraph(fmt::format("no rows of {}", fmt::join(table.columns, ", ")), width);
  }
  std::vector<Column> columns = columns_of(table);
  const std::string constants = take_out_constants(columns);
  std::string text = constants.empty() ? "" : paragraph(constants, width);
  if (columns.empty()) return text + fmt::format("{} such rows\n", table.rows.size());

  std::vector<std::string> left_out;
  if (natural_total(columns) <= width) {
    for (Column& column : columns) column.width = column.natural_width();
  } else {
    if (table.rows.size() == 1) return text + upright(columns, width);
    left_out = choose(columns, width);
  }
  const Body body = body_lines(columns, style.most_lines);
  text += header_lines(columns) + body.text;
  const std::string below = footer(left_out, body.cut, style.whole);
  return below.empty() ? text : text + paragraph(below, width);
}

}  // namespace vla_bench::cli
