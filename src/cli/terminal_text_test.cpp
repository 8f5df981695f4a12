#include "cli/terminal_text.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "core/text.h"

namespace vla_bench::cli {
namespace {

using Lines = std::vector<std::string>;
constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

TEST(OneLine, HasNoControlCharacters) {
  EXPECT_EQ(one_line("a\nb\tc\x1b[31md\x7F"), "a b c [31md ");
  EXPECT_EQ(one_line("λ₀ …"), "λ₀ …");
}

TEST(CutText, CountsCharactersAndSaysThatItCut) {
  EXPECT_EQ(cut_text("λ₀ = 1", 6), "λ₀ = 1");
  EXPECT_EQ(cut_text("λ₀ = 1", 5), "λ₀ =…");
  EXPECT_EQ(cut_text("λ₀ = 1", 1), "…");
  EXPECT_EQ(cut_text("λ₀ = 1", 0), "");
}

TEST(WrapText, BreaksAtSpaces) {
  EXPECT_EQ(wrap_text("loss is nan at step 17", 11, kNoLimit),
            (Lines{"loss is nan", "at step 17"}));
  EXPECT_EQ(wrap_text("fits", 4, kNoLimit), Lines{"fits"});
  EXPECT_EQ(wrap_text("", 4, kNoLimit), Lines{""});
}

TEST(WrapText, BreaksWordsThatAreTooLongBehindMarksElseAnywhere) {
  EXPECT_EQ(wrap_text("results/runs/quick", 13, kNoLimit), (Lines{"results/runs/", "quick"}));
  EXPECT_EQ(wrap_text("accuracy_mean", 9, kNoLimit), (Lines{"accuracy_", "mean"}));
  EXPECT_EQ(wrap_text("abcdefgh", 3, kNoLimit), (Lines{"abc", "def", "gh"}));
  EXPECT_EQ(wrap_text("λλλλλ", 2, kNoLimit), (Lines{"λλ", "λλ", "λ"}));
}

TEST(WrapText, CutsTheLastLineThatIsAllowed) {
  EXPECT_EQ(wrap_text("one two three four", 5, 2), (Lines{"one", "two …"}));
  EXPECT_EQ(wrap_text("one two", 3, 2), (Lines{"one", "two"}));
}

TEST(WrapText, IsNeverTooWideAndLosesNoCharacter) {
  const std::string text = "seed 44: diverged: λ₀/path=very_long_word_without_space, 12,345";
  for (std::size_t width = 1; width < 70; ++width) {
    std::string joined;
    for (const std::string& line : wrap_text(text, width, kNoLimit)) {
      EXPECT_LE(count_characters(line), width);
      joined += line;
    }
    std::erase(joined, ' ');
    std::string expected = text;
    std::erase(expected, ' ');
    EXPECT_EQ(joined, expected) << width;
  }
}

TEST(Paragraph, IndentsAllButTheFirstLine) {
  EXPECT_EQ(paragraph("left out: mixer, config", 16), "left out: mixer,\n  config\n");
  EXPECT_EQ(paragraph("short", 16), "short\n");
}

}  // namespace
}  // namespace vla_bench::cli
