// Declares and parses the command line. Only command_line.cpp includes CLI11, which takes seconds
// to compile, since every subcommand declares options.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/array.h"

namespace CLI {
class App;
}

namespace vla_bench::cli {

/// The action of a parsed command line; returns the exit code.
using Action = std::function<int()>;

/// The help of an option: the name of its value ("DIR") and its meaning.
struct OptionHelp {
  std::string value;
  std::string text;
};

/// The range of an integer, both ends included.
struct IndexRange {
  Index min = 0;
  Index max = std::numeric_limits<Index>::max();
};

/// Declares one subcommand. Bound variables must outlive parsing; a variable's initial value is the
/// option's default.
class Subcommand {
 public:
  explicit Subcommand(CLI::App& app) : app_(app) {}

  /// A required argument without a flag, and a list of at least one.
  void positional(std::string& variable, const OptionHelp& help);
  void positional(std::vector<std::string>& variable, const OptionHelp& help);
  /// An optional list without a flag.
  void optional_positional(std::vector<std::string>& variable, const OptionHelp& help);

  /// `name` is "--flag". A vector takes one value each time the flag is given.
  void option(const std::string& name, std::string& variable, const OptionHelp& help);
  void option(const std::string& name, std::vector<std::string>& variable, const OptionHelp& help);
  /// A required option.
  void required(const std::string& name, std::string& variable, const OptionHelp& help);
  /// Integers consist only of decimal digits; others, and those out of range, are BadInput.
  void option(const std::string& name, Index& variable, const OptionHelp& help,
              const IndexRange& range = {});
  void option(const std::string& name, std::optional<Index>& variable, const OptionHelp& help,
              const IndexRange& range = {});
  void option(const std::string& name, std::optional<double>& variable, const OptionHelp& help);
  void choice(const std::string& name, std::string& variable,
              const std::vector<std::string>& allowed, const std::string& text);
  void flag(const std::string& name, bool& variable, const std::string& text);

 private:
  CLI::App& app_;
};

class CommandLine {
 public:
  /// `footer` ends `vla-bench --help`.
  CommandLine(const std::string& description, const std::string& footer,
              const std::string& version);
  ~CommandLine();

  /// `footer` ends the subcommand's --help: an example and remarks. `action` runs after parsing, so
  /// that errors of options and errors of work are separate.
  Subcommand add(const std::string& name, const std::string& description, const std::string& footer,
                 Action action);

  /// Returns the action of the given subcommand; empty after --help or --version, which it prints.
  /// Throws BadInput saying what cannot be parsed.
  Action parse(int argc, const char* const* argv);

 private:
  std::unique_ptr<CLI::App> app_;
  Action chosen_;
};

}  // namespace vla_bench::cli
