// Declaration of a config key:  v.field("key", member, {.help = "...", .min = 1});
#pragma once

#include <limits>

namespace vla_bench {

struct FieldInfo {
  const char* help = "";                                  // one line, with the unit
  double min = -std::numeric_limits<double>::infinity();  // inclusive
  double max = std::numeric_limits<double>::infinity();   // inclusive
  bool changes_result = true;  // part of a cell's identity (config/identity.h)
  // Whether tables say the default where other experiments have no such key. Not of keys that are
  // newer than the committed tables.
  bool named_at_default = true;
  bool required = false;      // has no default
  bool may_be_empty = false;  // a list
};

}  // namespace vla_bench
