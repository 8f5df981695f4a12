// Every config of the project end to end at tiny size: it runs, and each table of the run and of a
// report has the documented columns and can be read. The experiments' criteria name existing
// tables, columns and cells.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "claims/expected.h"
#include "config/read.h"
#include "report/table.h"
#include "testing/run_files.h"
#include "testing/source_dir.h"
#include "testing/subprocess.h"

namespace vla_bench {
namespace {

using testing::first_line;
using testing::Outcome;
using testing::run_program;
using testing::slurp;
using testing::source_dir;
using testing::TemporaryFolder;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

using Arguments = std::vector<std::string>;

// The documented columns, letter by letter.
const std::map<std::string, std::string> kColumns = {
    {"accuracy",
     "experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,seed,steps,"
     "learning_rate,queries,accuracy,loss,train_seconds,state_bytes,conv_state_bytes,"
     "device,precision,status,reason"},
    {"recall", "label,mixer,d_h,n_pairs,seed,trials,accuracy,low,high,precision,status,reason"},
    {"state_norm", "label,mixer,seed,t,s_norm,a_norm,precision"},
    {"jacobian", "label,seed,t,sigma_max,sigma_closed_form,cosine,product_norm,precision"},
    {"latency",
     "label,mixer,implementation,device,batch,n_heads,d_h,seq_len,pass,median_s,p10_s,"
     "p90_s,repeats,relative_error,state_bytes,activation_bytes,precision,flop,flop_per_s,"
     "bytes,bytes_per_s,sgemm_flop_per_s,copy_bytes_per_s,status,reason"}};

// The documented columns of the tables that a report makes from them.
const std::map<std::string, std::string> kDerivedColumns = {
    {"accuracy_summary",
     "line,experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,steps,"
     "learning_rate,device,precision,setting,cells,not_ok,accuracy_mean,accuracy_sd,"
     "accuracy_low,accuracy_high,loss_mean,loss_sd,loss_low,loss_high,loss_median,"
     "left_plateau,plateau_step_median,plateau_step_min,plateau_step_max,"
     "train_seconds_mean,train_seconds_sd,train_seconds_low,train_seconds_high,state_bytes,"
     "conv_state_bytes,note,config"},
    {"history",
     "experiment,label,mixer,n_pairs,d_h,seq_len,precision,seed,config,step,loss,accuracy,"
     "learning_rate,gradient_norm"},
    {"history_curve",
     "line,experiment,label,mixer,n_pairs,d_h,n_heads,seq_len,layout,short_conv,steps,"
     "learning_rate,device,precision,setting,step,cells,not_ok,accuracy_mean,accuracy_sd,"
     "accuracy_low,accuracy_high,loss_mean,loss_sd,loss_low,loss_high,note,config"},
    {"recall_summary",
     "line,label,mixer,d_h,n_pairs,trials,precision,setting,cells,not_ok,accuracy_mean,"
     "accuracy_sd,accuracy_low,accuracy_high,interval_over,note,config"},
    {"state_norm_summary",
     "line,label,mixer,precision,source,n_heads,d_h,t,setting,cells,not_ok,s_norm_mean,"
     "s_norm_sd,s_norm_low,s_norm_high,a_norm_mean,a_norm_sd,a_norm_low,a_norm_high,"
     "linear_over_label,note,config"},
    {"state_norm_curve",
     "line,label,mixer,precision,source,n_heads,d_h,t,setting,cells,not_ok,s_norm_mean,"
     "s_norm_sd,s_norm_low,s_norm_high,a_norm_mean,a_norm_sd,a_norm_low,a_norm_high,note,"
     "config"},
    {"jacobian_summary",
     "line,label,precision,source,n_heads,d_h,t,setting,cells,not_ok,sigma_max_mean,"
     "sigma_max_sd,sigma_max_low,sigma_max_high,sigma_max_max,closed_form_gap,cosine_mean,"
     "cosine_sd,cosine_low,cosine_high,product_norm_mean,product_norm_sd,product_norm_low,"
     "product_norm_high,note,config"},
    {"jacobian_curve",
     "line,label,precision,source,n_heads,d_h,t,setting,cells,not_ok,sigma_max_mean,"
     "sigma_max_sd,sigma_max_low,sigma_max_high,cosine_mean,cosine_sd,cosine_low,"
     "cosine_high,product_norm_mean,product_norm_sd,product_norm_low,product_norm_high,"
     "note,config"},
    {"latency_summary",
     "line,label,mixer,implementation,precision,device,processor,threads,batch,n_heads,"
     "d_h,pass,seq_len,setting,cells,not_ok,median_s,p10_s,p90_s,repeats,relative_error,"
     "state_bytes,activation_bytes,flop,flop_per_s,bytes,bytes_per_s,sgemm_flop_per_s,"
     "copy_bytes_per_s,note,config"},
    {"latency_fit",
     "line,label,mixer,implementation,precision,device,processor,threads,batch,n_heads,"
     "d_h,pass,cells,not_ok,first_seq_len,last_seq_len,points,exponent,exponent_low,"
     "exponent_high,scale_s,note"},
    {"latency_crossover",
     "line,label,mixer,implementation,precision,device,processor,threads,batch,n_heads,"
     "d_h,pass,baseline,baseline_implementation,baseline_precision,cells,not_ok,seq_len,"
     "seq_len_low,seq_len_high,basis,note"}};

/// The tables that a report of this raw table consists of.
std::vector<std::string> report_of(const std::string& table) {
  if (table == "accuracy") return {"accuracy", "accuracy_summary", "history", "history_curve"};
  if (table == "latency") {
    return {"latency", "latency_crossover", "latency_fit", "latency_summary"};
  }
  if (table == "recall") return {"recall", "recall_summary"};
  return {table, table + "_curve", table + "_summary"};
}

std::string table_of(const std::string& experiment) {
  return experiment == "mqar" || experiment == "copy" ? "accuracy" : experiment;
}

Arguments settings(const std::vector<std::string>& values) {
  Arguments arguments;
  for (const std::string& value : values) {
    arguments.push_back("--set");
    arguments.push_back(value);
  }
  return arguments;
}

/// The config's sweep with two values per axis, without sequences that take seconds.
std::string short_sweep(const Json& config) {
  constexpr int kLongest = 600;
  Json sweep = config.value("sweep", Json::object());
  for (auto& [key, axis] : sweep.items()) {
    if (axis.size() > 2) axis.erase(axis.begin() + 2, axis.end());
    if (key != "task.seq_len") continue;
    for (std::size_t i = 0; i < axis.size(); ++i) {
      if (axis[i] > kLongest) axis[i] = 64 * (i + 1);
    }
  }
  return sweep.dump();
}

/// Whether an axis of one or several keys sweeps the key.
bool sweeps(const Json& config, const std::string& key) {
  const Json sweep = config.value("sweep", Json::object());
  return std::any_of(sweep.items().begin(), sweep.items().end(), [&](const auto& axis) {
    return ("," + axis.key() + ",").find("," + key + ",") != std::string::npos;
  });
}

/// Flags with which any config of the project runs quickly.
Arguments tiny(const Json& config) {
  std::vector<std::string> values = {
      "sweep=" + short_sweep(config),  // first, since the others remove their keys from it
      "model.n_heads=2",
      "train.steps=3",
      "train.warmup=1",
      "train.batch=2",
      "train.log_every=1",
      "eval.batches=1",
      "eval.batch=2",
      "recall.trials=2",
      "recall.codebook=8",
      "latency.batch=1",
      "latency.warmup=0",
      "latency.min_repeats=1",
      "latency.max_repeats=2",
      "threads=1"};
  const Json model = config.value("model", Json::object());
  if (!model.contains("layers")) values.push_back("model.n_layers=1");
  if (model.value("d_ff", 1) > 0) values.push_back("model.d_ff=8");
  const std::string experiment = config.value("experiment", "mqar");
  if (!sweeps(config, "model.d_h")) values.push_back("model.d_h=4");
  // A sweep of rewrites needs as many pairs.
  const bool sized = sweeps(config, "task.n_pairs") || sweeps(config, "task.rewrites");
  if (!sized && experiment == "mqar") values.push_back("task.n_pairs=2");
  const Json task = config.value("task", Json::object());
  if (task.value("curriculum", 0) > 0) values.push_back("task.curriculum=2");
  const auto has = [&](const char* segments) {
    return !task.value(segments, Json::array()).empty();
  };
  if (has("train_segments")) {
    values.push_back(R"(task.train_segments=[{"n_pairs": 1, "seq_len": 8, "steps": 1},
                                             {"n_pairs": 2, "seq_len": 12, "steps": 1}])");
  }
  if (has("eval_segments")) {
    values.push_back(R"(task.eval_segments=[{"n_pairs": 1, "seq_len": 8},
                                            {"n_pairs": 2, "seq_len": 16}])");
  }
  if (sweeps(config, "task.curriculum")) values.push_back("task.curriculum=2");
  if (experiment == "state_norm" || experiment == "jacobian") values.push_back("task.seq_len=30");
  if (config.value("seeds", Json::array()).size() > 2) values.push_back("seeds=[1,2]");
  return settings(values);
}

/// The columns of a table of trainings with task.eval_segments.
std::string with_slices(std::string columns, const std::string& table) {
  const char* before = table == "accuracy"           ? ",layout,"
                       : table == "accuracy_summary" ? ",setting,"
                                                     : "";
  if (*before != '\0') columns.insert(columns.find(before), ",slice");
  return columns;
}

/// The same with eval.probe_sequences.
std::string with_probes(std::string columns, const std::string& table) {
  if (table == "accuracy") columns.insert(columns.find(",loss,"), ",probe_accuracy");
  if (table == "accuracy_summary") {
    columns.insert(columns.find(",note,"),
                   ",probe_accuracy_mean,probe_accuracy_sd,probe_accuracy_low,probe_accuracy_high");
  }
  return columns;
}

/// The columns that the tables of a config's cells have.
std::string columns_with(const Json& config, std::string columns, const std::string& table) {
  const Json task = config.value("task", Json::object());
  const Json eval = config.value("eval", Json::object());
  if (!task.value("eval_segments", Json::array()).empty()) columns = with_slices(columns, table);
  if (eval.value("probe_sequences", 0) > 0) columns = with_probes(columns, table);
  return columns;
}

/// Reads a CSV table by its documented columns; checks that its Markdown has as many rows.
Table read_report_table(const fs::path& folder, const std::string& name, const Json& config) {
  // A row of a cell is followed by its group.
  std::string columns =
      kColumns.contains(name)
          ? kColumns.at(name) + (name == "accuracy" ? ",plateau_step,config" : ",config")
          : kDerivedColumns.at(name);
  columns = columns_with(config, columns, name);
  Schema schema{.name = name, .columns = {}};
  for (std::size_t begin = 0; begin <= columns.size();) {
    const std::size_t end = std::min(columns.find(',', begin), columns.size());
    schema.columns.push_back(std::string_view(columns).substr(begin, end - begin));
    begin = end + 1;
  }
  const Table table = read_csv(folder / (name + ".csv"), schema);
  EXPECT_EQ(to_csv(table), slurp(folder / (name + ".csv"))) << name;
  const std::string markdown = slurp(folder / (name + ".md"));
  EXPECT_EQ(std::count(markdown.begin(), markdown.end(), '\n'),
            static_cast<std::ptrdiff_t>(table.rows.size() + 2))
      << name;
  return table;
}

class EveryConfig : public ::testing::TestWithParam<std::string> {};

/// Paths of all configs, from the root of the source tree.
std::vector<std::string> config_paths() {
  std::vector<std::string> paths;
  for (const char* folder : {"configs", "experiments"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source_dir() / folder)) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(".json") || name == "schema.json" || name == "expected.json") continue;
      paths.push_back(fs::relative(entry.path(), source_dir()).string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(0, info.param.size() - std::string(".json").size());
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

bool has_softmax(const Json& config) {
  const Json mixers = config.value("mixers", Json::array({"softmax"}));
  return std::find(mixers.begin(), mixers.end(), Json("softmax")) != mixers.end();
}

/// Whether a latency config names one of these implementations.
bool times(const Json& config, std::initializer_list<const char*> any) {
  const Json named =
      config.value("/latency/implementations"_json_pointer, Json::array({"production"}));
  return std::any_of(any.begin(), any.end(), [&](const char* name) {
    return std::find(named.begin(), named.end(), Json(name)) != named.end();
  });
}

/// Summaries that are empty on a CPU: without its softmax there is nothing to cross, and without
/// any implementation of its own nothing to fit.
bool is_empty(const Json& config, std::string_view table) {
  if (table == "latency_crossover") return !has_softmax(config) || !times(config, {"production"});
  if (table == "latency_fit") return !times(config, {"production", "recurrent", "sequential"});
  return false;
}

TEST_P(EveryConfig, RunsAtTinySizeAndItsTablesParse) {
  const TemporaryFolder folder;
  const std::string out = (folder.path() / "runs").string();
  const std::string path = (source_dir() / GetParam()).string();
  const Json config = Json::parse(slurp(path), nullptr, true, true);
  const std::string table = table_of(config.value("experiment", "mqar"));

  // Includes those for a GPU: cells that the CPU does not support are skipped.
  Arguments arguments = {"run",      path,  "--out", out,
                         "--device", "cpu", "--set", "precision=float32"};
  for (const std::string& argument : tiny(config)) arguments.push_back(argument);
  const Outcome run = run_program(arguments);
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.out.find("## " + table), std::string::npos) << run.out;
  const auto cells = testing::sealed_cells(out);
  ASSERT_FALSE(cells.empty());
  for (const auto& [path_of_cell, record] : cells) {
    const Table& rows = record.tables.at(0);
    EXPECT_EQ(first_line(to_csv(rows)), columns_with(config, kColumns.at(table), table));
    EXPECT_FALSE(rows.rows.empty()) << path_of_cell;
    EXPECT_FALSE(record.provenance.empty());
    if (table != "accuracy") continue;
    EXPECT_FALSE(record.history.rows.empty());
    EXPECT_TRUE(fs::exists(path_of_cell / "checkpoint.safetensors"));
    EXPECT_EQ(std::get<std::string>(rows.rows[0][rows.column("status")]), "ok");
  }

  const fs::path gathered = folder.path() / "report";
  const Outcome report = run_program({"report", out, "--out", gathered.string()});
  ASSERT_EQ(report.exit_code, 0) << report.err;
  EXPECT_GE(Json::parse(slurp(gathered / "provenance.json")).size(), 1u);
  std::vector<std::string> written;
  for (const auto& entry : fs::directory_iterator(gathered)) {
    if (entry.path().extension() == ".csv") written.push_back(entry.path().stem().string());
  }
  std::sort(written.begin(), written.end());
  EXPECT_EQ(written, report_of(table));
  for (const std::string& name : written) {
    const Table rows = read_report_table(gathered, name, config);
    EXPECT_EQ(rows.rows.empty(), is_empty(config, name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Configs, EveryConfig, ::testing::ValuesIn(config_paths()), test_name);

// The scripts' tests read these: a column that a script spells otherwise than the program fails
// there.
TEST(TestTables, HaveTheColumnsOfAReport) {
  std::size_t found = 0;
  for (const auto& [table, columns] : kDerivedColumns) {
    const fs::path path = source_dir() / "src/testing/tables" / (table + ".csv");
    if (!fs::exists(path)) continue;
    ++found;
    EXPECT_EQ(first_line(slurp(path)), columns) << path;
  }
  EXPECT_EQ(found, 10U);
}

std::vector<std::string> documented_columns(const std::string& table, bool sliced) {
  std::vector<std::string> columns;
  const std::string& all = kDerivedColumns.at(table);
  std::istringstream stream(sliced ? with_slices(all, table) : all);
  std::string text;
  while (std::getline(stream, text, ',')) columns.push_back(text);
  return columns;
}

/// The values of the cells of a claim's configs in the columns that a config determines.
std::map<std::string, std::set<std::string>> cell_values(const Claim& claim) {
  std::map<std::string, std::set<std::string>> values;
  for (const std::string& name : claim.configs) {
    for (const CellConfig& cell : expand_cells(read_config(claim.folder / name, {}), Device::cpu)) {
      const RunConfig& config = cell.config;
      const auto add = [&](const char* column, const auto& value) {
        values[column].insert(fmt::format("{}", value));
      };
      add("label", mixer_label(config.mixers.front()));
      add("n_pairs", config.task.n_pairs);
      add("d_h", config.model.d_h);
      add("n_heads", config.model.n_heads);
      add("short_conv", config.model.short_conv);
      add("steps", config.train.steps);
      add("learning_rate", config.train.lr);
      add("seq_len", sequence_length(config));
      if (!has_slices(config)) continue;
      add("slice", kMeanSlice);
      for (const Slice& slice : eval_slices(config)) add("slice", slice.name);
    }
  }
  return values;
}

void expect_known(const Claim& claim, const Selection& selection) {
  ASSERT_TRUE(kDerivedColumns.contains(selection.table)) << selection.table;
  const auto known = cell_values(claim);
  const std::vector<std::string> columns =
      documented_columns(selection.table, known.contains("slice"));
  const auto has = [&](const std::string& column) {
    return std::find(columns.begin(), columns.end(), column) != columns.end();
  };
  EXPECT_TRUE(has(selection.column)) << claim.id << ": " << selection.column;
  for (const auto& [column, wanted] : selection.where.columns) {
    EXPECT_TRUE(has(column)) << claim.id << ": " << column;
    if (!known.contains(column)) continue;
    for (const Value& value : wanted) {
      const std::string text = std::visit(
          [](const auto& held) -> std::string {
            if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>) {
              return "";
            } else {
              return fmt::format("{}", held);
            }
          },
          value);
      EXPECT_TRUE(known.at(column).contains(text))
          << claim.id << ": no cell with " << column << " " << text;
    }
  }
}

TEST(ExpectedOfExperiments, NamesColumnsAndCellsThatThereAre) {
  const std::vector<Claim> claims = read_claims(source_dir() / "experiments");
  EXPECT_GE(claims.size(), 11U);
  for (const Claim& claim : claims) {
    std::vector<Criterion> criteria = claim.criteria;
    if (claim.condition) {
      criteria.insert(criteria.end(), claim.condition->criteria.begin(),
                      claim.condition->criteria.end());
    }
    for (const Criterion& criterion : criteria) {
      expect_known(claim, criterion.of);
      if (criterion.over) expect_known(claim, *criterion.over);
    }
  }
}

TEST(ExperimentFolders, HaveAReadmeOfAtMostFortyLines) {
  for (const Claim& claim : read_claims(source_dir() / "experiments")) {
    const std::string text = slurp(claim.folder / "README.md");
    EXPECT_FALSE(text.empty()) << claim.folder;
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 40) << claim.folder;
  }
}

}  // namespace
}  // namespace vla_bench
