#include "config/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "core/error.h"

namespace vla_bench {
namespace {

// More than any config needs, small enough that hostile text costs neither stack nor quadratic
// time.
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxKeys = 1000;

/// Removes the prefix of the library's messages, "[json.exception.parse_error.101] ".
std::string_view without_tag(std::string_view message) {
  const std::size_t end = message.find("] ");
  return message.starts_with("[json.") && end != std::string_view::npos ? message.substr(end + 2)
                                                                        : message;
}

/// Refuses NUL, which the parser takes for the end of the text.
void refuse_nul(std::string_view text, const Place& document) {
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) document.fail(fmt::format("NUL at byte {}", nul));
}

[[noreturn]] void fail_depth(const Place& document) {
  document.fail(fmt::format("nested deeper than {} levels", kMaxDepth));
}
[[noreturn]] void fail_keys(const Place& document) {
  document.fail(fmt::format("more than {} keys in one object", kMaxKeys));
}

/// The end of the string whose first quote is at `start`.
std::size_t end_of_string(std::string_view text, std::size_t start) {
  std::size_t i = start + 1;
  while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
  return i;
}

/// Checks depth and keys before the text is parsed, which is an order of magnitude faster than
/// callbacks of the parser. The parser then refuses text that is not JSON.
void check_bounds(std::string_view text, const Place& document) {
  std::vector<std::size_t> keys;  // of each open object or array
  for (std::size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        i = end_of_string(text, i);
        break;
      case '{':
      case '[':
        if (keys.size() == kMaxDepth) fail_depth(document);
        keys.push_back(0);
        break;
      case '}':
      case ']':
        if (!keys.empty()) keys.pop_back();
        break;
      case ':':
        if (!keys.empty() && ++keys.back() > kMaxKeys) fail_keys(document);
        break;
      default:
        break;
    }
  }
}

}  // namespace

Place Place::at(std::string_view key) const {
  Place place = *this;
  place.pointer += '/';
  for (const char c : key) {
    if (c == '~') {
      place.pointer += "~0";
    } else if (c == '/') {
      place.pointer += "~1";
    } else {
      place.pointer += c;
    }
  }
  return place;
}

Place Place::at(std::size_t index) const { return at(std::to_string(index)); }

void Place::fail(std::string_view message) const {
  throw BadInput(pointer.empty() ? fmt::format("{}: {}", origin, message)
                                 : fmt::format("{}: {}: {}", origin, pointer, message));
}

Json parse_json(std::string_view text, std::string_view origin) {
  const Place document{std::string(origin), ""};
  if (text.size() > kMaxJsonBytes) document.fail("larger than 1 MiB, which no config is");
  refuse_nul(text, document);

  std::vector<std::set<std::string>> open_objects;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= kMaxDepth) {
      fail_depth(document);
    }
    if (event == Event::object_start) {
      open_objects.emplace_back();
    } else if (event == Event::object_end) {
      open_objects.pop_back();
    } else if (event == Event::key) {
      auto& keys = open_objects.back();
      if (!keys.insert(parsed.get<std::string>()).second) {
        document.fail(fmt::format("key {} stands twice in one object", excerpt(parsed)));
      }
      if (keys.size() > kMaxKeys) fail_keys(document);
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check, /*allow_exceptions=*/true,
                       /*ignore_comments=*/true);
  } catch (const Json::exception& error) {
    document.fail(without_tag(error.what()));
  }
}

Json parse_long_json(std::string_view text, std::string_view origin) {
  const Place document{std::string(origin), ""};
  refuse_nul(text, document);
  check_bounds(text, document);
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    document.fail(without_tag(error.what()));
  }
}

std::string excerpt(const Json& value) {
  constexpr std::size_t kMaxLength = 60;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  if (text.size() > kMaxLength) {
    std::size_t end = kMaxLength;
    // Does not cut in the middle of a UTF-8 sequence.
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return text;
}

}  // namespace vla_bench
