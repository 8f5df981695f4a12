// Declaration of a config key:  v.field("key", member, {.help = "...", .min = 1});
#pragma once

#include <limits>

namespace vla_bench {

struct FieldInfo {
  const char* help = "";                                  // one line, with the unit
  double min = -std::numeric_limits<double>::infinity();  // inclusive
  double max = std::numeric_limits<double>::infinity();   // inclusive
  bool changes_result = true;  // part of a cell's identity (config/identity.h)
  bool may_be_empty = false;   // a list without elements is valid
};

}  // namespace vla_bench
