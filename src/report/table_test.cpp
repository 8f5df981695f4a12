#include "report/table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/error.h"
#include "experiments/list.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

using testing::TemporaryFolder;

const Schema kSchema{"sample", {"label", "count", "value"}};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Table read_text(const std::string& text) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "sample.csv";
  std::ofstream(path, std::ios::binary) << text;
  return read_csv(path, kSchema);
}

std::string refusal(const std::string& text) {
  try {
    read_text(text);
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

std::string header_line(const Schema& schema) {
  const std::string csv = to_csv(Table(schema));
  return csv.substr(0, csv.find('\n'));
}

// The documented columns. Scripts and committed reference tables depend on them.
TEST(Table, SchemasHaveTheDocumentedColumns) {
  EXPECT_EQ(header_line(Training::table()),
            "experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,seed,steps,"
            "learning_rate,queries,accuracy,loss,train_seconds,state_bytes,conv_state_bytes,"
            "device,precision,status,reason");
  EXPECT_EQ(header_line(Recall::table()),
            "label,mixer,d_h,n_pairs,seed,trials,accuracy,low,high,precision,status,reason");
  EXPECT_EQ(header_line(StateNorm::table()), "label,mixer,seed,t,s_norm,a_norm,precision");
  EXPECT_EQ(header_line(Jacobian::table()),
            "label,seed,t,sigma_max,sigma_closed_form,cosine,product_norm,precision");
  EXPECT_EQ(
      header_line(Latency::table()),
      "label,mixer,implementation,device,batch,n_heads,d_h,seq_len,pass,median_s,p10_s,"
      "p90_s,repeats,relative_error,state_bytes,activation_bytes,precision,flop,flop_per_s,bytes,"
      "bytes_per_s,sgemm_flop_per_s,copy_bytes_per_s,status,reason");
  EXPECT_EQ(header_line(history_schema()), "step,loss,accuracy,learning_rate,gradient_norm");
  EXPECT_EQ(find_schema("recall"), &Recall::table());
  EXPECT_EQ(find_schema("recal"), nullptr);
}

TEST(Table, RowsMustHaveTheWidthAndColumnsAName) {
  Table table(kSchema);
  EXPECT_THROW(table.add({std::string("x")}), std::logic_error);
  EXPECT_EQ(table.column("value"), 2u);
  EXPECT_THROW(table.column("absent"), BadInput);
}

TEST(Table, CsvSpellsAndQuotes) {
  Table table(kSchema);
  table.add({std::string("VLA, frozen \"A\""), std::int64_t{-3}, 0.1});
  table.add({std::string("two\nlines"), Value(), kInfinity});
  table.add({std::string("1e3"), std::int64_t{0}, -kInfinity});
  table.add({Value(), std::int64_t{1}, -std::numeric_limits<double>::quiet_NaN()});
  table.add({std::string("x"), std::int64_t{1}, 1e-300});
  EXPECT_EQ(to_csv(table),
            "label,count,value\n"
            "\"VLA, frozen \"\"A\"\"\",-3,0.1\n"
            "\"two\nlines\",,inf\n"
            "\"1e3\",0,-inf\n"
            ",1,nan\n"
            "x,1,1e-300\n");
}

TEST(Table, CsvRoundTrips) {
  Table table(kSchema);
  for (const double value :
       {0.1, 1.0 / 3.0, 1e-300, 0x1p-1074, 1.7976931348623157e308, -2.5, kInfinity, -kInfinity}) {
    table.add({std::string("number"), std::numeric_limits<std::int64_t>::min(), value});
  }
  for (const char* text : {"plain", " spaces ", "a,b", "\"", "\"\"", "x\r\ny", "12", "-0.5", "nan",
                           "inf", "1e5", "e", "-", "\xCE\xBB", "infinity", "0x10"}) {
    table.add({std::string(text), Value(), 0.25});
  }
  const Table read = read_text(to_csv(table));
  EXPECT_EQ(read.name, "sample");
  EXPECT_EQ(read.columns, table.columns);
  ASSERT_EQ(read.rows.size(), table.rows.size());
  for (std::size_t i = 0; i < table.rows.size(); ++i) EXPECT_EQ(read.rows[i], table.rows[i]) << i;
  EXPECT_EQ(to_csv(read), to_csv(table));
}

TEST(Table, CsvReaderTellsNumbersFromText) {
  const Table table = read_text("label,count,value\r\n7,\"7\",nan\r\n-0,9223372036854775808,2.\n");
  ASSERT_EQ(table.rows.size(), 2u);
  EXPECT_EQ(table.rows[0][0], Value(std::int64_t{7}));
  EXPECT_EQ(table.rows[0][1], Value(std::string("7")));
  EXPECT_TRUE(std::isnan(std::get<double>(table.rows[0][2])));
  EXPECT_TRUE(std::signbit(std::get<double>(table.rows[1][0])));
  EXPECT_EQ(table.rows[1][1], Value(0x1p63));
  EXPECT_EQ(table.rows[1][2], Value(2.0));
}

TEST(Table, CsvReaderAcceptsAMissingLastLineEndAndNoRows) {
  EXPECT_EQ(read_text("label,count,value").rows.size(), 0u);
  EXPECT_EQ(read_text("label,count,value\na,b,c").rows.size(), 1u);
  EXPECT_EQ(read_text("label,count,value\na,b,\n").rows[0][2], Value());
  EXPECT_EQ(read_text("label,count,value\na,b,").rows[0][2], Value());
}

TEST(Table, CsvReaderNamesFileLineAndColumn) {
  const auto expect = [](const std::string& text, std::initializer_list<const char*> parts) {
    const std::string message = refusal(text);
    for (const char* part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << text << " -> " << message;
    }
  };
  expect("", {"sample.csv", "line 1, column 1", "\"label\""});
  expect("label,count\n", {"line 1, column 3", "\"value\""});
  expect("label,cuont,value\n", {"line 1, column 2", "\"cuont\""});
  expect("label,count,value,more\n", {"line 1", "expected 3 columns, got 4"});
  expect("label,count,value\n1,2,3\n1,2\n", {"line 3", "expected 3 columns, got 2"});
  expect("label,count,value\n1,2,3,4\n", {"line 2", "got 4"});
  expect("label,count,value\n\"a\nb\",2,3\n1\n", {"line 4", "got 1"});
  expect("label,count,value\nx,\"2,3\n", {"line 2, column 2", "never closed"});
  expect("label,count,value\n\"x\"y,2,3\n", {"line 2, column 1", "after a quoted field"});
  expect("label,count,value\nx,a\"b,3\n", {"line 2, column 2", "quote inside"});
}

TEST(Table, MarkdownIsAlignedAndEscaped) {
  Table table(kSchema);
  table.add({std::string("a|b"), std::int64_t{1048576}, 1.0 / 3.0});
  table.add({std::string("\xCE\xBB"), Value(), 1e-9});
  EXPECT_EQ(to_markdown(table),
            "| label |   count |  value |\n"
            "| ----- | ------: | -----: |\n"
            "| a\\|b  | 1048576 | 0.3333 |\n"
            "| \xCE\xBB     |         |  1e-09 |\n");
}

TEST(Table, JsonHasNullsAndSpellsNonFinite) {
  Table table(kSchema);
  table.add({std::string("a\"b"), Value(), kInfinity});
  table.add({std::string("\xFF not UTF-8"), std::int64_t{2}, 0.1});
  const auto json = nlohmann::ordered_json::parse(to_json(table));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["label"], "a\"b");
  EXPECT_TRUE(json[0]["count"].is_null());
  EXPECT_EQ(json[0]["value"], "inf");
  EXPECT_EQ(json[1]["count"], 2);
  EXPECT_EQ(json[1]["value"], 0.1);
  EXPECT_EQ(json[1].items().begin().key(), "label") << "columns keep their order";
}

}  // namespace
}  // namespace vla_bench
