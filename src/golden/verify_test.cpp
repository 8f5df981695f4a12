// Every golden file agrees with the production path and the references, and wrong files are
// detected.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "golden/golden.h"
#include "testing/source_dir.h"
#include "testing/temporary_folder.h"

namespace vla_bench {
namespace {

const Context kContext{.device = Device::cpu, .threads = 2};

std::string golden_path(const std::string& name) {
  return (testing::golden_dir() / (name + ".safetensors")).string();
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  const std::filesystem::path folder = testing::golden_dir();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    names.push_back(entry.path().lexically_relative(folder).replace_extension().generic_string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void expect_within(const std::vector<TensorError>& errors, double tolerance) {
  ASSERT_FALSE(errors.empty());
  for (const TensorError& error : errors) {
    EXPECT_LE(error.error, tolerance) << error.tensor << " at " << error.index << ": got "
                                      << error.got << ", expected " << error.expected;
  }
}

const TensorError& find(const std::vector<TensorError>& errors, const std::string& tensor) {
  const auto named = [&](const TensorError& error) { return error.tensor == tensor; };
  const auto found = std::find_if(errors.begin(), errors.end(), named);
  if (found == errors.end()) throw std::out_of_range(tensor);
  return *found;
}

class EveryGoldenFile : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryGoldenFile, PassesInDoubleProduction) {
  const GoldenFile golden = read_golden(golden_path(GetParam()));
  expect_within(verify_golden<double>(golden, kContext, Implementation::production),
                kGoldenTolerance64);
}

TEST_P(EveryGoldenFile, PassesInDoubleReference) {
  const GoldenFile golden = read_golden(golden_path(GetParam()));
  expect_within(verify_golden<double>(golden, kContext, Implementation::reference),
                kGoldenTolerance64);
}

TEST_P(EveryGoldenFile, PassesInFloatProduction) {
  const GoldenFile golden = read_golden(golden_path(GetParam()));
  expect_within(verify_golden<float>(golden, kContext, Implementation::production),
                kGoldenTolerance32);
}

INSTANTIATE_TEST_SUITE_P(Golden, EveryGoldenFile, ::testing::ValuesIn(golden_names()),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::ranges::replace(name, '/', '_');
                           return name;
                         });

TEST(Verify, ComparesEveryStoredResult) {
  for (const std::string& name : golden_names()) {
    const GoldenFile golden = read_golden(golden_path(name));
    std::set<std::string> compared;
    for (const auto& error : verify_golden<double>(golden, kContext, Implementation::production)) {
      compared.insert(error.tensor);
    }
    for (const std::string& tensor : golden.tensors.names()) {
      const bool is_y = (tensor == "y" && golden.kind == "mixer") || tensor == "o";
      const bool is_result = is_y || tensor == "dx" || tensor == "S_norm" || tensor == "A_norm" ||
                             tensor == "logits" || tensor == "loss" || tensor == "grad_norm" ||
                             tensor == "lr" || tensor_kind(tensor) != tensor;
      EXPECT_EQ(compared.contains(tensor), is_result) << name << " " << tensor;
    }
  }
}

/// A golden file with one change, written and read again.
template <class Change>
GoldenFile changed(const std::string& name, Change change) {
  const testing::TemporaryFolder folder;
  TensorFile file = TensorFile::read(golden_path(name));
  change(file);
  const std::string path = (folder.path() / "changed.safetensors").string();
  file.write(path);
  return read_golden(path);
}

TEST(Verify, FindsOneWrongValueInEveryKindOfTensor) {
  const struct {
    std::string file, tensor;
  } cases[] = {{"mixer_vla_a", "y"},
               {"mixer_vla_a", "dx"},
               {"mixer_vla_a", "S_norm"},
               {"mixer_vla_a", "A_norm"},
               {"mixer_linear_a", "grad.Wq.weight"},
               {"model_vla", "logits"},
               {"model_vla", "loss"},
               {"model_vla", "grad.tok.weight"},
               {"train_vla", "loss"},
               {"train_vla", "grad_norm"},
               {"train_vla", "lr"},
               {"train_vla", "final.blocks.0.ff.0.weight"},
               {"rules/deltanet_a", "o"},
               {"rules/deltanet_a", "grad.k"},
               {"rules/deltanet_a", "grad.beta"}};
  for (const auto& [name, tensor] : cases) {
    Index place = 0;
    const GoldenFile golden = changed(name, [&](TensorFile& file) {
      const auto shape = file.at(tensor).shape;
      std::vector<double> values = file.values<double>(tensor);
      const auto largest = std::max_element(values.begin(), values.end(), [](double a, double b) {
        return std::abs(a) < std::abs(b);
      });
      *largest *= 1.0 + 1e-7;  // a hundred times the tolerance, near the resolution of float
      place = largest - values.begin();
      file.add(tensor, shape, values.data());
    });
    const auto errors = verify_golden<double>(golden, kContext, Implementation::production);
    EXPECT_GT(find(errors, tensor).error, kGoldenTolerance64) << name << " " << tensor;
    EXPECT_EQ(find(errors, tensor).index, place) << name << " " << tensor;
  }
}

TEST(Verify, NotANumberIsAnError) {
  const GoldenFile golden = changed("mixer_vla_a", [](TensorFile& file) {
    std::vector<double> x = file.values<double>("x");
    x[3] = std::numeric_limits<double>::quiet_NaN();
    file.add("x", file.at("x").shape, x.data());
  });
  const auto errors = verify_golden<double>(golden, kContext, Implementation::production);
  EXPECT_FALSE(find(errors, "y").error <= 1e300);
}

TEST(Verify, UsesTheConstantsOfTheFile) {
  const GoldenFile golden = changed("mixer_vla_hp", [](TensorFile& file) {
    file.metadata()["period"] = "8";  // the file was made with 7
  });
  const auto errors = verify_golden<double>(golden, kContext, Implementation::production);
  EXPECT_GT(find(errors, "A_norm").error, kGoldenTolerance64);
}

TEST(Verify, ReadsEveryKeyOfTheMixer) {
  const GoldenFile golden = changed("mixer_vla_a", [](TensorFile& file) {
    file.metadata()["penalty"] = "key";
    file.metadata()["u_scale"] = "0.5";
    file.metadata()["variant"] = "standard";  // a key of another mixer
  });
  const auto& options = golden.mixer.get<VlaOptions>();
  EXPECT_EQ(options.penalty, Penalty::key);
  EXPECT_EQ(options.u_scale, 0.5);
  EXPECT_EQ(options.lambda_0, golden.tensors.number("lambda_0"));
}

TEST(Verify, ConstantsMayBeMissing) {
  const GoldenFile golden = changed("mixer_linear_a", [](TensorFile& file) {
    for (const char* key :
         {"lambda_0", "stab_eps", "per_eps", "period", "ln_eps", "normalize_eps"}) {
      file.metadata().erase(key);
    }
  });
  expect_within(verify_golden<double>(golden, kContext, Implementation::production),
                kGoldenTolerance64);
}

TEST(Verify, RefusesWhatIsNoGoldenFile) {
  const auto metadata = [](const char* key, const char* value) {
    return [=](TensorFile& file) { file.metadata()[key] = value; };
  };
  EXPECT_THROW(changed("mixer_vla_a", metadata("kind", "picture")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", metadata("mixer", "mamba")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", metadata("lambda_0", "0")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", metadata("period", "-1")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", metadata("penalty", "frosty")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", metadata("normalize_eps", "1e-8")), BadInput);
  EXPECT_THROW(changed("mixer_linear_a", metadata("eps", "1e-3")), BadInput);
  EXPECT_THROW(changed("model_softmax", metadata("ln_eps", "1e-6")), BadInput);
  EXPECT_THROW(changed("mixer_vla_a", [](TensorFile& file) { file.metadata().erase("kind"); }),
               BadInput);
  EXPECT_THROW(changed("mixer_vla_a", [](TensorFile& file) { file.metadata().erase("mixer"); }),
               BadInput);
  EXPECT_THROW(read_golden(golden_path("no_such_file")), BadInput);
}

TEST(Verify, RefusesSizesThatDoNotFitTheTensors) {
  const auto refuses = [](const std::string& name, const char* key, const char* value) {
    const GoldenFile golden =
        changed(name, [&](TensorFile& file) { file.metadata()[key] = value; });
    EXPECT_THROW(verify_golden<double>(golden, kContext, Implementation::production), BadInput)
        << name << " " << key << " " << value;
  };
  for (const char* value : {"0", "-2", "3", "1073741824", "x"}) {
    refuses("mixer_vla_a", "B", value);
    refuses("mixer_vla_a", "d_model", value);
    refuses("model_vla", "vocab_size", value);
    refuses("model_vla", "d_ff", value);
    refuses("train_vla", "max_seq_len", value);
  }
  for (const char* key : {"B", "T", "H", "d"}) {
    for (const char* value : {"0", "4", "1073741824"}) refuses("rules/deltanet_b", key, value);
  }
  refuses("mixer_vla_a", "n_heads", "3");
  refuses("model_vla", "n_layers", "3");
  refuses("train_vla", "steps", "7");
  refuses("train_vla", "warmup", "-1");
  refuses("train_vla", "clip_eps", "1e-3");
}

TEST(Verify, RefusesARuleThatHasNoMixerByItsName) {
  try {
    changed("rules/deltanet_b", [](TensorFile& file) { file.metadata()["rule"] = "frosty"; });
    FAIL() << "no error";
  } catch (const BadInput& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("\"rule\": expected deltanet"), std::string::npos) << message;
    EXPECT_NE(message.find("got \"frosty\""), std::string::npos) << message;
  }
  const auto other_scale = [](TensorFile& file) { file.metadata()["scale"] = "0.5"; };
  EXPECT_THROW(changed("rules/deltanet_b", other_scale), BadInput);
}

// A megabyte of tokens claims D * D matrices of terabytes: refused before memory is allocated.
TEST(Verify, RefusesMatricesThatTheFileDoesNotHold) {
  constexpr Index kWide = 1 << 20;
  const std::vector<double> row(kWide, 0.5);
  const auto expect_names = [](const GoldenFile& golden, const std::string& tensor) {
    try {
      verify_golden<double>(golden, kContext, Implementation::production);
      FAIL() << "no error";
    } catch (const BadInput& error) {
      EXPECT_NE(std::string(error.what()).find(tensor), std::string::npos) << error.what();
    }
  };
  for (const char* name : {"mixer_vla_a", "mixer_softmax_a", "mixer_deltanet_a"}) {
    expect_names(changed(name,
                         [&](TensorFile& file) {
                           for (const char* key : {"B", "T", "n_heads"}) file.metadata()[key] = "1";
                           file.metadata()["d_model"] = std::to_string(kWide);
                           for (const char* tensor : {"x", "y", "dx", "dy"}) {
                             file.add(tensor, {1, 1, kWide}, row.data());
                           }
                         }),
                 ".weight");
  }
  expect_names(
      changed("model_vla",
              [&](TensorFile& file) {
                file.metadata()["d_model"] = std::to_string(kWide);
                file.metadata()["n_heads"] = "1";
                for (const char* key : {"vocab_size", "max_seq_len", "d_ff"}) {
                  file.metadata()[key] = "1";
                }
                for (const char* tensor :
                     {"tok.weight", "pos.weight", "blocks.0.ff.0.weight", "blocks.1.ff.0.weight",
                      "blocks.0.ln1.weight", "blocks.0.ln1.bias"}) {
                  const bool matrix = file.at(tensor).shape.size() == 2;
                  file.add(tensor,
                           matrix ? std::vector<Index>{1, kWide} : std::vector<Index>{kWide},
                           row.data());
                }
              }),
      "attn");
}

TEST(Verify, RefusesActivationsByTheTerabyte) {
  const GoldenFile golden = changed("train_vla", [](TensorFile& file) {
    constexpr Index kRows = 1 << 16;
    const Index D = file.integer("d_model");
    file.metadata()["B"] = std::to_string(kRows);
    file.metadata()["T"] = "1";
    file.metadata()["vocab_size"] = std::to_string(kRows);
    const std::vector<double> table(static_cast<std::size_t>(kRows * D), 0.5);
    file.add("tok.weight", {kRows, D}, table.data());
    const std::vector<Index> tokens(kRows, 0);
    for (const char* name : {"x.0", "y.0"}) file.add(name, {kRows, 1}, tokens.data());
  });
  EXPECT_THROW(verify_golden<double>(golden, kContext, Implementation::production), BadInput);
}

TEST(Verify, RefusesAModelFileWithoutATarget) {
  for (const char* name : {"model_softmax", "train_softmax"}) {
    const std::string targets = std::string(name) == "model_softmax" ? "y" : "y.0";
    const GoldenFile golden = changed(name, [&](TensorFile& file) {
      const auto shape = file.at(targets).shape;
      const std::vector<Index> ignored(file.values<Index>(targets).size(), kIgnoreTarget);
      file.add(targets, shape, ignored.data());
    });
    EXPECT_THROW(verify_golden<double>(golden, kContext, Implementation::production), BadInput)
        << name;
  }
}

TEST(Verify, RefusesGradientsOfUnknownParametersAndTokensOutsideTheVocabulary) {
  const GoldenFile unknown = changed("mixer_softmax_a", [](TensorFile& file) {
    const double value = 1.0;
    file.add("grad.Wz.weight", {1}, &value);
  });
  EXPECT_THROW(verify_golden<double>(unknown, kContext, Implementation::production), BadInput);
  const GoldenFile token = changed("model_softmax", [](TensorFile& file) {
    std::vector<Index> x = file.values<Index>("x");
    x[5] = file.integer("vocab_size");
    file.add("x", file.at("x").shape, x.data());
  });
  EXPECT_THROW(verify_golden<double>(token, kContext, Implementation::production), BadInput);
}

}  // namespace
}  // namespace vla_bench
