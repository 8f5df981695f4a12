#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <sstream>
#include <utility>

#include "cli/output.h"
#include "core/error.h"

namespace vla_bench::cli {
namespace {

/// Replaces CLI11's conversion, which saturates: 2^63 would become another seed.
Index parse_index(const std::string& name, const std::string& text, const IndexRange& range) {
  Index value = 0;
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  const bool whole = result.ec == std::errc() && result.ptr == end;
  if (!whole || value < range.min || value > range.max) {
    throw BadInput(fmt::format("{}: expected an integer from {} to {}, got \"{}\"", name, range.min,
                               range.max, text));
  }
  return value;
}

}  // namespace

void Subcommand::positional(std::string& variable, const OptionHelp& help) {
  app_.add_option(help.value, variable, help.text)->required()->option_text(" ");
}

void Subcommand::positional(std::vector<std::string>& variable, const OptionHelp& help) {
  app_.add_option(help.value, variable, help.text)->required()->option_text("...");
}

void Subcommand::optional_positional(std::vector<std::string>& variable, const OptionHelp& help) {
  app_.add_option(help.value, variable, help.text)->option_text("...");
}

void Subcommand::option(const std::string& name, std::string& variable, const OptionHelp& help) {
  app_.add_option(name, variable, help.text)->option_text(help.value);
}

void Subcommand::required(const std::string& name, std::string& variable, const OptionHelp& help) {
  app_.add_option(name, variable, help.text)->option_text(help.value)->required();
}

void Subcommand::option(const std::string& name, std::vector<std::string>& variable,
                        const OptionHelp& help) {
  // Without this `--set a=1 CONFIG` would take CONFIG for a second value of --set.
  app_.add_option(name, variable, help.text)->option_text(help.value)->allow_extra_args(false);
}

void Subcommand::option(const std::string& name, Index& variable, const OptionHelp& help,
                        const IndexRange& range) {
  app_.add_option_function<std::string>(
          name,
          [name, &variable, range](const std::string& text) {
            variable = parse_index(name, text, range);
          },
          help.text)
      ->option_text(help.value);
}

void Subcommand::option(const std::string& name, std::optional<Index>& variable,
                        const OptionHelp& help, const IndexRange& range) {
  app_.add_option_function<std::string>(
          name,
          [name, &variable, range](const std::string& text) {
            variable = parse_index(name, text, range);
          },
          help.text)
      ->option_text(help.value);
}

void Subcommand::option(const std::string& name, std::optional<double>& variable,
                        const OptionHelp& help) {
  app_.add_option(name, variable, help.text)->option_text(help.value);
}

void Subcommand::choice(const std::string& name, std::string& variable,
                        const std::vector<std::string>& allowed, const std::string& text) {
  app_.add_option(name, variable, text)
      ->option_text(CLI::detail::join(allowed, "|"))
      ->check(CLI::IsMember(allowed));
}

void Subcommand::flag(const std::string& name, bool& variable, const std::string& text) {
  app_.add_flag(name, variable, text);
}

CommandLine::CommandLine(const std::string& description, const std::string& footer,
                         const std::string& version)
    : app_(std::make_unique<CLI::App>(description, "vla-bench")) {
  app_->footer(footer);
  app_->set_version_flag("--version", version, "Print the version and exit");
  app_->require_subcommand(0, 1);  // parse() requires one: CLI11 would not name a misspelt one
}

CommandLine::~CommandLine() = default;

Subcommand CommandLine::add(const std::string& name, const std::string& description,
                            const std::string& footer, Action action) {
  CLI::App* command = app_->add_subcommand(name, description);
  command->footer(footer);
  command->callback([this, action = std::move(action)] { chosen_ = action; });
  return Subcommand(*command);
}

Action CommandLine::parse(int argc, const char* const* argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, complaint;
    const bool asked_for_help = app_->exit(error, out, complaint) == 0;
    print(out.str());
    if (asked_for_help) return {};
    std::string message = complaint.str();
    while (!message.empty() && message.back() == '\n') message.pop_back();
    throw BadInput(message);
  }
  if (!chosen_) throw BadInput("A subcommand is required\nRun with --help for more information.");
  return chosen_;
}

}  // namespace vla_bench::cli
