#include "runs/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "config/json.h"
#include "core/error.h"
#include "core/files.h"
#include "report/record.h"
#include "runs/cell_folder.h"

namespace vla_bench {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;

[[noreturn]] void fail(const std::string& place, const std::string& message) {
  throw BadInput(fmt::format("[{}] pack: {}", place, message));
}

PackNote read_note(const std::string& line, const std::string& place) {
  const Json body =
      parse_long_json("{" + std::string(open_line(line, place)), fmt::format("[{}] pack", place));
  const auto version = body.find("pack");
  const auto name = body.find("name");
  const auto sweep = body.find("sweep");
  if (version == body.end() || *version != kVersion) fail(place, "expected a pack of version 1");
  if (name == body.end() || !name->is_string()) fail(place, "expected the run's \"name\"");
  return {.name = name->get<std::string>(),
          .sweep = sweep != body.end() && sweep->is_object() ? sweep->dump() : std::string()};
}

}  // namespace

PackReader::PackReader(const fs::path& path)
    : PackReader(std::make_unique<std::ifstream>(path, std::ios::binary), path) {}

PackReader::PackReader(std::unique_ptr<std::istream> stream, fs::path path)
    : path_(std::move(path)), stream_(std::move(stream)) {
  if (!*stream_) fail(path.string(), fmt::format("cannot read: {}", std::strerror(errno)));
  PackLine first;
  if (!read_line(first)) fail(path.string(), "expected a first line that says of which run it is");
  note_ = read_note(first.text, place_in_pack(path_, 1));
}

std::optional<PackLine> PackReader::next() {
  PackLine line;
  if (!read_line(line)) return std::nullopt;
  return line;
}

bool PackReader::read_line(PackLine& line) {
  line.offset = offset_;
  line.number = ++number_;
  // Reads in blocks, so that a file without newlines is not read into memory.
  constexpr std::size_t kBlock = 1 << 16;
  char block[kBlock];
  while (true) {
    stream_->getline(block, kBlock);
    const auto count = static_cast<std::size_t>(stream_->gcount());
    if (stream_->bad()) fail(path_.string(), "cannot read on");
    offset_ += count;
    const bool cut = stream_->fail() && !stream_->eof();  // the block is full
    // A whole line includes its newline.
    const std::size_t own = cut || stream_->eof() ? count : count - 1;
    line.text.append(block, own);
    if (line.text.size() > kLongestRecord) {
      fail(place_in_pack(path_, line.number),
           fmt::format("expected lines of at most {} bytes", kLongestRecord));
    }
    if (!cut) break;
    stream_->clear();
  }
  return !(stream_->eof() && line.text.empty());
}

PackIndex::PackIndex(const fs::path& root) {
  std::vector<fs::path> packs;
  std::error_code code;
  fs::directory_iterator entry(root, code);
  while (!code && entry != fs::directory_iterator()) {
    std::error_code vanished;
    if (is_pack_name(entry->path()) && entry->is_regular_file(vanished)) {
      packs.push_back(entry->path());
    }
    entry.increment(code);
  }
  std::sort(packs.begin(), packs.end());
  for (const fs::path& pack : packs) read(pack);
}

void PackIndex::read(const fs::path& pack) {
  try {
    PackReader reader(pack);
    const PackNote& note = reader.note();
    notes_.try_emplace(note.name, note.sweep);
    auto& cells = runs_[note.name];
    while (const auto line = reader.next()) {
      try {
        RecordHead head = head_with_reason(line->text, place_in_pack(pack, line->number));
        cells.try_emplace(head.hash, std::move(head));
      } catch (const BadInput& error) {
        problems_.emplace_back(error.what());
      }
    }
  } catch (const BadInput& error) {
    problems_.emplace_back(error.what());
  }
}

const std::map<std::string, RecordHead>& PackIndex::cells(const std::string& run) const {
  static const std::map<std::string, RecordHead> none;
  const auto found = runs_.find(run);
  return found == runs_.end() ? none : found->second;
}

const RecordHead* PackIndex::find(const std::string& run, const std::string& hash) const {
  const auto& cells = this->cells(run);
  const auto found = cells.find(hash);
  return found == cells.end() ? nullptr : &found->second;
}

std::string read_pack_line(const fs::path& path, std::uint64_t offset) {
  std::ifstream stream(path, std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  std::string line;
  if (!std::getline(stream, line)) fail(path.string(), "cannot be read again");
  return line;
}

std::string place_in_pack(const fs::path& path, std::uint64_t line) {
  return fmt::format("{}:{}", path.string(), line);
}

void write_pack(const fs::path& path, const PackNote& note, const std::vector<std::string>& lines) {
  const std::string sweep = note.sweep.empty() ? "null" : note.sweep;
  AtomicFile file(path);
  file.write(seal_line(fmt::format("{{\"pack\":{},\"name\":{},\"sweep\":{}}}", kVersion,
                                   Json(note.name).dump(), sweep)) +
             "\n");
  for (const std::string& line : lines) file.write(line + "\n");
  file.commit();
}

bool is_pack_name(const fs::path& path) { return path.extension() == ".jsonl"; }

}  // namespace vla_bench
