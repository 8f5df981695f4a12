#include "report/lines.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "config/identity.h"
#include "core/parallel.h"
#include "report/cell_columns.h"
#include "report/grouping.h"

namespace vla_bench {
namespace {

/// Empty when the mixer has no such key.
using KeyValue = std::optional<std::string>;

/// A key whose value in some group differs from that in the first group of the label.
struct Difference {
  std::string key;
  KeyValue value;
};

/// Finds `key` in `keys`, at `hint` first, since cells of one mixer have the same keys.
std::size_t position_of(const std::string& key, const std::vector<IdentityKey>& keys,
                        std::size_t hint) {
  if (hint < keys.size() && keys[hint].key == key) return hint;
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const IdentityKey& one) { return one.key == key; });
  return static_cast<std::size_t>(found - keys.begin());
}

std::vector<Difference> differences(const RunConfig& config, const std::vector<IdentityKey>& base) {
  std::vector<Difference> found;
  std::vector<IdentityKey> keys = identity_keys(config);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].key == "seed") continue;
    const std::size_t at = position_of(keys[i].key, base, i);
    if (at < base.size() && base[at].value == keys[i].value) continue;
    found.push_back({std::move(keys[i].key), std::move(keys[i].value)});
  }
  for (std::size_t i = 0; i < base.size(); ++i) {
    // A key that was moved out of `keys` above has an empty name there, and is in `found`.
    const auto named = [&](const Difference& one) { return one.key == base[i].key; };
    if (position_of(base[i].key, keys, i) == keys.size() &&
        std::none_of(found.begin(), found.end(), named)) {
      found.push_back({base[i].key, std::nullopt});
    }
  }
  return found;
}

/// "0.0003" rather than "3e-04", and lists without JSON punctuation.
std::string shown_value(const std::string& value) {
  if (value.starts_with('[')) {
    std::string list = value;
    std::erase_if(list, [](char c) { return c == '[' || c == ']' || c == '"'; });
    return list;
  }
  double real = 0.0;
  const char* const end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, real);
  const bool is_number = error == std::errc() && stop == end;
  return is_number && value.find('e') != std::string::npos ? fmt::format("{}", real) : value;
}

Value order_value(const KeyValue& value) {
  if (!value) return {};
  double real = 0.0;
  const char* const end = value->data() + value->size();
  const auto [stop, error] = std::from_chars(value->data(), end, real);
  if (error == std::errc() && stop == end) return real;
  return *value;
}

std::string_view last_part(std::string_view key) { return key.substr(key.rfind('.') + 1); }

/// The groups of one label.
class LabelNames {
 public:
  LabelNames(std::span<const NamedCells> groups, std::span<const std::vector<Difference>> different,
             const std::vector<IdentityKey>& base, const ShownKeys& shown)
      : groups_(groups), shown_(shown) {
    collect_keys(different, base);
    values_.resize(groups.size());
    for (std::size_t group = 0; group < groups.size(); ++group) {
      for (const std::string& key : keys_) {
        values_[group].push_back(value_of_key(key, different[group], base));
      }
    }
  }

  std::vector<LineName> names() const {
    const std::vector<std::size_t> telling = telling_keys();
    std::vector<std::size_t> setting;
    for (std::size_t key = 0; key < keys_.size(); ++key) {
      const auto& columns = shown_.keys;
      if (std::find(columns.begin(), columns.end(), keys_[key]) == columns.end()) {
        setting.push_back(key);
      }
    }
    std::vector<LineName> names(groups_.size());
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      LineName& name = names[group];
      name.setting = describe(group, setting);
      const std::string told = describe(group, telling);
      name.line = groups_[group].label + (told.empty() ? "" : " " + told);
      for (const std::size_t key : telling) name.order.push_back(order_value(values_[group][key]));
    }
    return names;
  }

 private:
  /// Collects the keys that differ, in the order of the config, and counts their last parts.
  void collect_keys(std::span<const std::vector<Difference>> different,
                    const std::vector<IdentityKey>& base) {
    std::set<std::string> differing;
    for (const auto& group : different) {
      for (const Difference& one : group) differing.insert(one.key);
    }
    for (const IdentityKey& key : base) {
      ++parts_[std::string(last_part(key.key))];
      if (differing.erase(key.key) > 0) keys_.push_back(key.key);
    }
    for (const std::string& key : differing) {  // keys of other mixers
      ++parts_[std::string(last_part(key))];
      keys_.push_back(key);
    }
  }

  static KeyValue value_of_key(const std::string& key, const std::vector<Difference>& different,
                               const std::vector<IdentityKey>& base) {
    for (const Difference& one : different) {
      if (one.key == key) return one.value;
    }
    const std::size_t at = position_of(key, base, base.size());
    return at < base.size() ? KeyValue(base[at].value) : std::nullopt;
  }

  using Groups = std::vector<std::size_t>;

  /// Sets of several groups that share a place or point.
  std::vector<Groups> sharing(std::vector<std::vector<Value>> NamedCells::*where) const {
    std::map<std::vector<Value>, Groups, RowLess> at;
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      const NamedCells& cells = groups_[group];
      for (const auto& place : (cells.*where).empty() ? cells.places : cells.*where) {
        Groups& here = at[place];
        if (here.empty() || here.back() != group) here.push_back(group);
      }
    }
    std::vector<Groups> shared;
    for (auto& [place, here] : at) {
      if (here.size() > 1) shared.push_back(std::move(here));
    }
    return shared;
  }

  std::size_t distinct(const std::vector<std::size_t>& groups,
                       const std::vector<std::size_t>& keys) const {
    std::set<std::vector<KeyValue>> seen;
    for (const std::size_t group : groups) {
      std::vector<KeyValue> values;
      for (const std::size_t key : keys) values.push_back(values_[group][key]);
      seen.insert(std::move(values));
    }
    return seen.size();
  }

  /// The keys without which groups would share name and place, or name and point.
  std::vector<std::size_t> telling_keys() const {
    std::vector<std::size_t> telling;
    tell_apart(sharing(&NamedCells::places), false, telling);
    tell_apart(sharing(&NamedCells::points), true, telling);
    std::sort(telling.begin(), telling.end());
    return telling;
  }

  /// Appends the fewest keys, among those that do (or do not) vary along lines, that distinguish
  /// the groups as well as all of them.
  void tell_apart(const std::vector<Groups>& shared, bool along,
                  std::vector<std::size_t>& telling) const {
    const std::size_t kept = telling.size();
    for (std::size_t key = 0; key < keys_.size(); ++key) {
      const auto differs = [&](const Groups& groups) { return distinct(groups, {key}) > 1; };
      const auto& varying = shown_.along;
      const bool varies = std::find(varying.begin(), varying.end(), keys_[key]) != varying.end();
      if (varies == along && std::any_of(shared.begin(), shared.end(), differs)) {
        telling.push_back(key);
      }
    }
    std::vector<std::size_t> apart;
    for (const Groups& groups : shared) apart.push_back(distinct(groups, telling));
    for (std::size_t i = telling.size(); i-- > kept;) {
      std::vector<std::size_t> fewer = telling;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      bool suffices = true;
      for (std::size_t place = 0; suffices && place < shared.size(); ++place) {
        suffices = distinct(shared[place], fewer) == apart[place];
      }
      if (suffices) telling = std::move(fewer);
    }
  }

  /// "lr=0.001 penalty=frozen"
  std::string describe(std::size_t group, const std::vector<std::size_t>& keys) const {
    std::string text;
    for (const std::size_t key : keys) {
      const KeyValue& value = values_[group][key];
      if (!value) continue;
      const std::string part(last_part(keys_[key]));
      text += fmt::format("{}{}={}", text.empty() ? "" : " ",
                          parts_.at(part) > 1 ? keys_[key] : part, shown_value(*value));
    }
    return text;
  }

  std::span<const NamedCells> groups_;
  const ShownKeys& shown_;
  std::vector<std::string> keys_;
  std::map<std::string, int> parts_;           // last part of a key -> keys that have it
  std::vector<std::vector<KeyValue>> values_;  // (groups, keys_)
};

/// The first index of each label's groups, and the end.
std::vector<std::size_t> label_bounds(std::span<const NamedCells> groups) {
  std::vector<std::size_t> bounds;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (i == 0 || groups[i].label != groups[i - 1].label) bounds.push_back(i);
  }
  bounds.push_back(groups.size());
  return bounds;
}

/// Handles labels that look like names, such as "vla lr=0.1".
void tell_labels_apart(std::span<const NamedCells> groups, std::vector<LineName>& names) {
  std::unordered_map<std::string, std::size_t> first;
  std::set<std::string> taken_twice;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto [found, is_new] = first.try_emplace(names[i].line, i);
    if (!is_new && groups[found->second].label != groups[i].label) {
      taken_twice.insert(names[i].line);
    }
  }
  if (taken_twice.empty()) return;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (taken_twice.contains(names[i].line)) names[i].line += " config=" + groups[i].hash;
  }
}

}  // namespace

NamedCells named_cells(const CellGroup& group, std::initializer_list<Column> places) {
  return {.label = group.label,
          .hash = group.hash,
          .config = &group.config(),
          .places = {columns_of(group.config(), places)}};
}

std::vector<Value> line_order(const LineName& name, const NamedCells& cells) {
  std::vector<Value> order = {cells.label};
  order.insert(order.end(), name.order.begin(), name.order.end());
  order.emplace_back(name.line);
  order.insert(order.end(), cells.places[0].begin(), cells.places[0].end());
  order.emplace_back(cells.hash);
  return order;
}

std::vector<LineName> name_lines(std::span<const NamedCells> groups, const ShownKeys& shown) {
  const std::vector<std::size_t> bounds = label_bounds(groups);
  const std::size_t labels = bounds.size() - 1;
  std::vector<std::vector<IdentityKey>> bases(labels);
  std::vector<std::size_t> label_of(groups.size());
  for (std::size_t label = 0; label < labels; ++label) {
    std::fill(label_of.begin() + static_cast<std::ptrdiff_t>(bounds[label]),
              label_of.begin() + static_cast<std::ptrdiff_t>(bounds[label + 1]), label);
  }
  const auto has_others = [&](std::size_t label) { return bounds[label + 1] - bounds[label] > 1; };
  parallel_items(grouping_threads(), static_cast<Index>(labels), [&](Index item) {
    const auto label = static_cast<std::size_t>(item);
    if (has_others(label)) bases[label] = identity_keys(*groups[bounds[label]].config);
  });
  std::vector<std::vector<Difference>> different(groups.size());
  parallel_items(grouping_threads(), static_cast<Index>(groups.size()), [&](Index item) {
    const auto group = static_cast<std::size_t>(item);
    const std::size_t label = label_of[group];
    if (has_others(label)) different[group] = differences(*groups[group].config, bases[label]);
  });

  std::vector<LineName> names;
  names.reserve(groups.size());
  for (std::size_t label = 0; label < labels; ++label) {
    const std::size_t begin = bounds[label];
    const std::size_t count = bounds[label + 1] - begin;
    std::vector<LineName> own =
        LabelNames(groups.subspan(begin, count), std::span(different).subspan(begin, count),
                   bases[label], shown)
            .names();
    std::move(own.begin(), own.end(), std::back_inserter(names));
  }
  tell_labels_apart(groups, names);
  return names;
}

}  // namespace vla_bench
