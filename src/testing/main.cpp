// The tests of several source files in one program, of which it runs one file's:
//   <folder>_tests [--file=NAME] [GTEST_OPTION...]     NAME: without .cpp; instead of --gtest_filter
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace {

/// Filter of the tests that stand in the file; empty if there are none.
std::string tests_of(std::string_view file) {
  std::string filter;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const testing::TestInfo& test = *suite.GetTestInfo(j);
      if (test.file() == nullptr || std::filesystem::path(test.file()).stem() != file) continue;
      filter += fmt::format("{}.{}:", suite.name(), test.name());
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  constexpr std::string_view kFile = "--file=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool is_file = argument.starts_with(kFile);
    const std::string filter = is_file ? tests_of(argument.substr(kFile.size())) : "";
    if (filter.empty()) {
      fmt::print(stderr, "no tests: {}\n", argument);
      return 2;
    }
    GTEST_FLAG_SET(filter, filter);
  }
  return RUN_ALL_TESTS();
}
