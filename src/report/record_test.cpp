#include "report/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "config/identity.h"
#include "config/read.h"
#include "core/error.h"
#include "experiments/list.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

CellRecord example() {
  CellConfig cell = expand_cells(
      parse_config(R"({"mixers": ["vla"], "task": {"n_pairs": 8}})", "x"), Device::cpu)[0];
  CellRecord record{.config = cell.config, .hash = cell.hash};
  record.outcome = {.status = "diverged", .reason = "a \"history\": {,\xFF", .seconds = 1.25};
  record.provenance = Provenance({{"version", "0.1.0"}, {"threads", "2"}});
  Table table(Training::table());
  std::vector<Value> row(table.columns.size());
  row[table.column("label")] = std::string("nan");
  row[table.column("n_pairs")] = std::int64_t{8};
  row[table.column("accuracy")] = 0.1;
  row[table.column("loss")] = std::numeric_limits<double>::quiet_NaN();
  row[table.column("train_seconds")] = -std::numeric_limits<double>::infinity();
  row[table.column("short_conv")] = -0.0;
  table.add(row);
  record.tables = {table};
  record.history = Table(history_schema());
  record.history.add({std::int64_t{50}, 2.5, 0.25, 1e-3, 1.0});
  return record;
}

std::string refused_record(const std::string& line) {
  try {
    read_record(line, "there");
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

TEST(Record, ComesBackAsItWasSealed) {
  const CellRecord record = example();
  const std::string line = seal(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const CellRecord again = read_record(line, "there", ReadHistory::yes);
  EXPECT_EQ(again.hash, record.hash);
  EXPECT_EQ(dump_config(again.config), dump_config(record.config));
  EXPECT_EQ(again.outcome.status, "diverged");
  EXPECT_EQ(again.outcome.reason, "a \"history\": {,\xEF\xBF\xBD");
  EXPECT_EQ(again.outcome.seconds, 1.25);
  EXPECT_EQ(again.provenance, record.provenance);
  EXPECT_EQ(again.provenance.fact("threads"), "2");
  EXPECT_EQ(to_csv(again.tables.at(0)), to_csv(record.tables.at(0)));
  EXPECT_EQ(again.tables[0].rows[0][1], Value(std::string("nan")));
  EXPECT_TRUE(std::signbit(
      std::get<double>(again.tables[0].rows[0][again.tables[0].column("short_conv")])));
  EXPECT_EQ(to_csv(again.history), to_csv(record.history));
}

// Records of one sweep are read with what they share parsed once.
TEST(Record, SharedPartsChangeNothing) {
  SharedParts shared;
  for (const int seed : {42, 7, 42, 1000}) {
    CellRecord record = example();
    record.config.seeds = {seed};
    record.hash = cell_hash(record.config);
    const std::string line = seal(record);
    const CellRecord again = read_record(line, "there", ReadHistory::yes, &shared);
    EXPECT_EQ(seal(again), line);
    EXPECT_EQ(again.group, group_hash(record.config));
  }
  CellRecord other = example();
  other.config.train.lr = 0.5;  // a hash of another group
  EXPECT_THROW(read_record(seal(other), "there", ReadHistory::no, &shared), BadInput);
}

TEST(Record, LeavesTheCurveUnreadUntilAsked) {
  const CellRecord record = read_record(seal(example()), "there");
  EXPECT_TRUE(record.has_history);
  EXPECT_TRUE(record.history.rows.empty());
  CellRecord without = example();
  without.history.rows.clear();
  EXPECT_FALSE(read_record(seal(without), "there", ReadHistory::yes).has_history);
}

TEST(Record, LossesAreThoseOfTheCurve) {
  CellRecord record = example();
  record.history = Table(history_schema());
  const double losses[] = {4.852030263919617, 0.0, 3.0, 1.25e-300, 1e21};
  for (std::int64_t step = 1; const double loss : losses) {
    record.history.add({step * 50, loss, 0.5, 1e-3, 2.5});
    ++step;
  }
  const auto expect_losses = [&](std::size_t columns) {
    const Table read = read_record(seal(record), "there", ReadHistory::losses).history;
    EXPECT_EQ(read.columns.size(), columns);
    ASSERT_EQ(read.rows.size(), record.history.rows.size());
    for (std::size_t i = 0; i < read.rows.size(); ++i) {
      EXPECT_EQ(read.rows[i][read.column("step")], record.history.rows[i][0]);
      EXPECT_EQ(number(read.rows[i][read.column("loss")]), number(record.history.rows[i][1]));
    }
  };
  expect_losses(2);
  record.history.add({std::int64_t{300}, std::numeric_limits<double>::infinity(), 0.5, 1e-3, 2.5});
  expect_losses(history_schema().columns.size());  // the whole curve
}

TEST(Record, HeadSaysHowTheCellEnded) {
  const RecordHead head = read_head(seal(example()), "there");
  EXPECT_EQ(head.hash, example().hash);
  EXPECT_EQ(head.outcome.status, "diverged");
  EXPECT_EQ(head.outcome.seconds, 1.25);
}

// Case 5: any change of the bytes invalidates the record.
TEST(Record, RefusesEveryCutAndEveryEdit) {
  const std::string line = seal(example());
  for (std::size_t size = 0; size < line.size(); ++size) {
    ASSERT_NE(refused_record(line.substr(0, size)), "") << size;
    ASSERT_THROW(read_head(line.substr(0, size), "there"), BadInput) << size;
  }
  for (std::size_t at = 0; at < line.size(); ++at) {
    std::string edited = line;
    edited[at] = edited[at] == '1' ? '2' : '1';
    ASSERT_NE(refused_record(edited), "") << at;
  }
  EXPECT_EQ(refused_record(line.substr(0, 400) + "}"),
            "[there] record: its checksum is another: cut or edited");
  EXPECT_NE(refused_record(line + "}"), "");
  EXPECT_EQ(refused_record(line + "\n"), "");
}

TEST(Record, RefusesWhatIsSealedButNoCell) {
  EXPECT_NE(refused_record(seal_line("{}")), "");
  EXPECT_NE(refused_record(seal_line(R"({"record":2})")).find("version"), std::string::npos);
  CellRecord other = example();
  other.hash = std::string(16, '0');
  EXPECT_NE(refused_record(seal(other)).find("hash"), std::string::npos);
  CellRecord two = example();
  two.config.seeds = {1, 2};
  EXPECT_NE(refused_record(seal(two)), "");
}

/// The example's line with `from` replaced, and a right checksum.
std::string sealed_with(const std::string& from, const std::string& to) {
  std::string body = "{" + std::string(open_line(seal(example()), "there"));
  const std::size_t at = body.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return seal_line(body.replace(at, from.size(), to));
}

TEST(Record, LineIsStable) {
  for (const double seconds : {1.25, 0.0, -0.0}) {
    CellRecord record = example();
    record.outcome.seconds = seconds;
    const std::string line = seal(record);
    EXPECT_EQ(seal(read_record(line, "there", ReadHistory::yes)), line) << line;
  }
}

TEST(Record, RefusesValuesThatItsLineCannotHold) {
  EXPECT_NE(refused_record(sealed_with("\"diverged\"", R"("o\"k")")).find("expected ok, skipped"),
            std::string::npos);
  EXPECT_NE(refused_record(sealed_with("\"threads\"", std::string("\0", 1))).find("NUL at byte"),
            std::string::npos);
}

// A real number with an integer value is written without a point, for any size.
TEST(Record, LargeWholeNumbersComeBack) {
  for (const double number : {14630687713468252160.0, -14630687713468252160.0, 1e300}) {
    CellRecord record = example();
    record.tables[0].rows[0][record.tables[0].column("loss")] = number;
    const CellRecord again = read_record(seal(record), "there");
    EXPECT_EQ(again.tables[0].rows[0][again.tables[0].column("loss")], Value(number));
  }
}

TEST(Record, BoundsDepthAndKeys) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  EXPECT_NE(refused_record(sealed_with("\"0.1.0\"", deep)).find("nested deeper than 32"),
            std::string::npos);
  std::string keys;
  for (int i = 0; i < 100'000; ++i) keys += "\"" + std::to_string(i) + "\":0,";
  EXPECT_NE(refused_record(sealed_with("\"threads\":", keys + "\"threads\":"))
                .find("more than 1000 keys"),
            std::string::npos);
  // Brackets and colons inside a text are not structure.
  EXPECT_EQ(refused_record(sealed_with(
                "\"0.1.0\"", "\"\\\"" + std::string(2000, '[') + std::string(2000, ':') + "\"")),
            "");
}

TEST(Record, ComparesRowsWithoutTimesAndLabels) {
  CellRecord a = example();
  CellRecord b = example();
  const std::size_t label = a.tables[0].column("label");
  b.tables[0].rows[0][label] = std::string("mine");
  b.tables[0].rows[0][a.tables[0].column("train_seconds")] = 3.0;
  EXPECT_EQ(comparable_rows(a), comparable_rows(b));
  b.tables[0].rows[0][a.tables[0].column("accuracy")] = 0.2;
  EXPECT_NE(comparable_rows(a), comparable_rows(b));
}

}  // namespace
}  // namespace vla_bench
