// vla-bench verify: checks that this build computes the same as the published model code.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/output.h"
#include "cli/print_tables.h"
#include "core/error.h"
#include "core/text.h"
#include "golden/golden.h"
#include "report/table.h"

namespace vla_bench::cli {
namespace {

struct VerifyOptions {
  std::vector<std::string> files;
  std::string dtype = "float64";
  std::string device = "auto";
  std::optional<double> tolerance;
  Index threads = 0;
  bool all_tensors = false;
};

struct Verification {
  Table table;
  Index failures = 0;
};

void add_rows(const GoldenFile& golden, const std::string& cores, double tolerance,
              const std::vector<TensorError>& errors, Verification& verification) {
  for (const TensorError& error : errors) {
    const bool passed = error.error <= tolerance;  // false for NaN
    verification.table.add({golden.origin, cores, tensor_kind(error.tensor), error.tensor,
                            error.error, tolerance, std::string(passed ? "ok" : "over")});
    if (passed) continue;
    ++verification.failures;
    log_error(
        fmt::format("[{}] {} ({}): relative error {:.3g} over {:.3g} at index {}: got {}, "
                    "expected {}",
                    golden.origin, error.tensor, cores, without_nan_sign(error.error), tolerance,
                    error.index, without_nan_sign(error.got), without_nan_sign(error.expected)));
  }
}

int verify(const VerifyOptions& options) {
  const bool is_double = options.dtype == "float64";
  const double tolerance =
      options.tolerance.value_or(is_double ? kGoldenTolerance64 : kGoldenTolerance32);
  if (!(tolerance >= 0.0)) throw BadInput("--tolerance: expected a number of at least 0");
  const Context context = make_context(options.device, options.threads);
  const Context on_cpu{.device = Device::cpu, .threads = context.threads};

  Verification verification;
  verification.table.name = "verify";
  verification.table.columns = {"file",           "cores",     "kind",  "worst_tensor",
                                "relative_error", "tolerance", "status"};
  for (const std::string& path : options.files) {
    const GoldenFile golden = read_golden(path);
    const auto check = [&](const std::string& cores, const std::vector<TensorError>& errors) {
      add_rows(golden, cores, tolerance, options.all_tensors ? errors : worst_of_each_kind(errors),
               verification);
    };
    if (is_double) {
      check("production", verify_golden<double>(golden, context, Implementation::production));
      check("reference", verify_golden<double>(golden, on_cpu, Implementation::reference));
    } else {
      check("production", verify_golden<float>(golden, context, Implementation::production));
    }
  }
  print(table_text(verification.table, ""));
  return verification.failures == 0 ? kExitDone : kExitFailedRun;
}

}  // namespace

void add_verify(CommandLine& command_line) {
  const auto options = std::make_shared<VerifyOptions>();
  Subcommand command = command_line.add(
      "verify", "Recompute golden files and print the worst relative error of every tensor kind",
      "The relative error of a tensor is max|a - b| / max|b|; for grad.* the denominator is at\n"
      "least 1e-3 of the file's largest gradient, for final.* at least 0.01. float64 checks the\n"
      "production cores in double precision and the reference cores.\n"
      "Exit code 1 when an error is over the tolerance.\n"
      "Example: vla-bench verify src/testing/golden/*.safetensors --dtype float32",
      [options] { return verify(*options); });
  command.positional(options->files, {"FILE", "Golden files (safetensors)"});
  command.choice("--dtype", options->dtype, {"float64", "float32"},
                 "Arithmetic of the recomputation (default float64)");
  command.choice("--device", options->device, {"auto", "cpu", "cuda"},
                 "Where the production cores run (default auto)");
  command.option("--tolerance", options->tolerance,
                 {"X", "Largest relative error (default 1e-9, float32: 1e-4)"});
  command.option(
      "--threads", options->threads,
      {"N", "CPU threads; 0 (default): OMP_NUM_THREADS, or as many as the process may use"},
      {0, kMostThreads});
  command.flag("--all-tensors", options->all_tensors,
               "One row for each tensor, not for the worst of its kind");
}

}  // namespace vla_bench::cli
