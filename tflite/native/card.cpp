#include "card.h"

#include <cmath>
#include <cstring>
#include <string_view>

#include "error.h"
#include "json.h"

namespace kpose {
namespace {

constexpr std::string_view kName = "kpose_card";
// Those of kpose.export.metadata.
constexpr uint32_t kMostEntries = 64;
constexpr uint32_t kLargestCard = 1 << 20;
constexpr double kLargestSide = 8192;
constexpr size_t kMostJoints = 1024;

// Fields of the tables of a TFLite file, in the order of its schema.
constexpr int kModelBuffers = 4, kModelMetadata = 6;
constexpr int kMetadataName = 0, kMetadataBuffer = 1;
constexpr int kBufferData = 0;

[[noreturn]] void fail_damaged() { throw Error("the file is damaged: its card cannot be found"); }

// A flatbuffer, read without trust: https://flatbuffers.dev/internals. Numbers are little-endian, as on every phone.
class Flatbuffer {
 public:
  Flatbuffer(const uint8_t *content, size_t size) : content_(content), size_(size) {}

  template <typename Number>
  Number read(size_t place) const {
    if (place > size_ || size_ - place < sizeof(Number)) fail_damaged();
    Number value;
    std::memcpy(&value, content_ + place, sizeof value);
    return value;
  }

  // Where an offset stored at `place` points to: forward.
  size_t follow(size_t place) const { return place + read<uint32_t>(place); }

  // Where a field of the table at `table` is stored; 0 where it has none.
  size_t field(size_t table, int number) const {
    const int64_t vtable = static_cast<int64_t>(table) - read<int32_t>(table);
    if (vtable < 0) fail_damaged();
    const size_t entry = 4 + 2 * static_cast<size_t>(number);
    if (entry + 2 > read<uint16_t>(static_cast<size_t>(vtable))) return 0;
    const uint16_t offset = read<uint16_t>(static_cast<size_t>(vtable) + entry);
    return offset == 0 ? 0 : table + offset;
  }

  // Bytes of the string or vector of bytes that a field points to.
  std::string_view bytes(size_t table, int number, uint32_t most) const {
    const size_t place = field(table, number);
    if (place == 0) return {};
    const size_t start = follow(place);
    const uint32_t length = read<uint32_t>(start);
    if (length > most)
      throw Error("the file claims " + std::to_string(length) + " bytes where at most " + std::to_string(most) + " are expected");
    if (size_ - start - 4 < length) fail_damaged();
    return {reinterpret_cast<const char *>(content_) + start + 4, length};
  }

  struct Tables {
    size_t start;
    uint32_t length;
  };

  Tables tables(size_t table, int number) const {
    const size_t place = field(table, number);
    if (place == 0) return {0, 0};
    const size_t start = follow(place);
    return {start + 4, read<uint32_t>(start)};
  }

  size_t table(const Tables &tables, uint32_t index) const { return follow(tables.start + 4 * static_cast<size_t>(index)); }

 private:
  const uint8_t *content_;
  size_t size_;
};

const Json &member(const Json &object, const char *name, Json::Kind kind) {
  const auto found = object.object.find(name);
  if (found == object.object.end() || found->second.kind != kind) throw Error(std::string("its card has no valid '") + name + "'");
  return found->second;
}

double positive(const Json &object, const char *name) {
  const double value = member(object, name, Json::Kind::number).number;
  if (!(value > 0)) throw Error(std::string("its card's '") + name + "' must be greater than 0");
  return value;
}

int side(const Json &value) {
  if (value.kind != Json::Kind::number || !(value.number >= 1 && value.number <= kLargestSide) ||
      value.number != std::floor(value.number)) {
    throw Error("its card's 'input_size' must be two whole numbers from 1 to 8192");
  }
  return static_cast<int>(value.number);
}

}  // namespace

std::string find_card(const uint8_t *content, size_t size) {
  if (size < 8 || std::memcmp(content + 4, "TFL3", 4) != 0) throw Error("not a TFLite file");
  const Flatbuffer file(content, size);
  const size_t model = file.follow(0);
  const auto metadata = file.tables(model, kModelMetadata);
  if (metadata.length > kMostEntries) throw Error("the file claims more metadata than any file of kpose has");
  for (uint32_t index = 0; index < metadata.length; ++index) {
    const size_t entry = file.table(metadata, index);
    if (file.bytes(entry, kMetadataName, kLargestCard) != kName) continue;
    const size_t place = file.field(entry, kMetadataBuffer);
    const uint32_t number = place == 0 ? 0 : file.read<uint32_t>(place);
    const auto buffers = file.tables(model, kModelBuffers);
    if (number >= buffers.length) fail_damaged();
    return std::string(file.bytes(file.table(buffers, number), kBufferData, kLargestCard));
  }
  throw Error("no card of kpose inside; make the file with kpose convert");
}

Card parse_card(const std::string &json) {
  const Json root = parse_json(json);
  Card card;
  card.json = json;
  const std::vector<Json> &size = member(root, "input_size", Json::Kind::array).array;
  if (size.size() != 2) throw Error("its card's 'input_size' must be two whole numbers from 1 to 8192");
  card.input = {side(size[0]), side(size[1])};
  card.box_padding = positive(root, "box_padding");

  const Json &codec = member(root, "codec", Json::Kind::object);
  const std::string &name = member(codec, "name", Json::Kind::string).string;
  if (name != "gaussian") throw Error("its heatmaps are encoded as " + quoted(name) + "; this runner decodes 'gaussian' alone");
  card.sigma = positive(codec, "sigma");
  const std::vector<Json> &spread = member(codec, "stage_spread", Json::Kind::array).array;
  if (!spread.empty()) {
    // Of several stages the last is in the file.
    if (spread.back().kind != Json::Kind::number || !(spread.back().number > 0)) throw Error("its card has no valid 'stage_spread'");
    card.sigma *= spread.back().number;
  }
  if (card.sigma > kLargestSide) throw Error("its card's 'sigma' is greater than any heatmap");
  const std::string &alignment = member(codec, "alignment", Json::Kind::string).string;
  if (alignment != "classic" && alignment != "unbiased") throw Error("its card has an unknown 'alignment', " + quoted(alignment));
  card.alignment = alignment == "classic" ? Alignment::classic : Alignment::unbiased;
  const std::string &decoding = member(codec, "decoding", Json::Kind::string).string;
  if (decoding != "argmax" && decoding != "quarter_offset" && decoding != "dark") {
    throw Error("its card has an unknown 'decoding', " + quoted(decoding));
  }
  card.decoding = decoding == "argmax" ? Decoding::argmax : decoding == "dark" ? Decoding::dark : Decoding::quarter_offset;

  for (const Json &joint : member(member(root, "skeleton", Json::Kind::object), "joint_names", Json::Kind::array).array) {
    if (joint.kind != Json::Kind::string) throw Error("its card has no valid 'joint_names'");
    card.joint_names.push_back(joint.string);
  }
  if (card.joint_names.empty() || card.joint_names.size() > kMostJoints) throw Error("its card has no joints, or more than 1024");
  return card;
}

}  // namespace kpose
