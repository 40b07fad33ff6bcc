#include "provider/engine_file.h"

#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include "error.h"

namespace le {
namespace {

// Numbers of fields in onnx.proto.
constexpr uint32_t kModelGraph = 7, kGraphNode = 1, kNodeType = 4, kNodeAttribute = 5;
constexpr uint32_t kAttributeName = 1, kAttributeText = 4;

// Of TensorRT for RTX, as its engines have it: nothing documents it (docs/decisions/0041).
constexpr size_t kSizeAt = 16, kVersionAt = 24, kCapabilityAt = 32;
struct Capability {
  const char *name;
  uint32_t number;  // of its bit
};
constexpr Capability kCapabilities[] = {
    {"8.0", 2}, {"8.6", 4}, {"8.9", 8}, {"12.0", 16}, {"12.1", 32}};

// Walks the fields of one message in protocol buffers' wire format, within its bytes.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : left_(bytes) {}

  // The next field of length-delimited type, past all others; false at the end, or where the bytes
  // are no message.
  bool next(uint32_t *number, std::string_view *content) {
    while (!left_.empty()) {
      uint64_t key, length;
      if (!varint(&key)) return false;
      *number = static_cast<uint32_t>(key >> 3);
      switch (key & 7) {
        case 0:
          if (!varint(&length)) return false;
          break;
        case 1:
          if (!skip(8)) return false;
          break;
        case 2:
          if (!varint(&length) || length > left_.size()) return false;
          *content = left_.substr(0, length);
          return skip(length);
        case 5:
          if (!skip(4)) return false;
          break;
        default:
          return false;
      }
    }
    return false;
  }

 private:
  bool varint(uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (left_.empty()) return false;
      const auto byte = static_cast<uint8_t>(left_.front());
      left_.remove_prefix(1);
      *value |= uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }
  bool skip(uint64_t count) {
    if (count > left_.size()) return false;
    left_.remove_prefix(count);
    return true;
  }

  std::string_view left_;
};

// The content of the first field of this number.
std::optional<std::string_view> field(std::string_view message, uint32_t wanted) {
  Fields fields(message);
  uint32_t number;
  for (std::string_view content; fields.next(&number, &content);) {
    if (number == wanted) return content;
  }
  return std::nullopt;
}

std::optional<std::string_view> engine_of(std::string_view node) {
  if (field(node, kNodeType) != "EPContext") return std::nullopt;
  Fields fields(node);
  uint32_t number;
  for (std::string_view content; fields.next(&number, &content);) {
    if (number != kNodeAttribute || field(content, kAttributeName) != "ep_cache_context") continue;
    return field(content, kAttributeText);
  }
  return std::nullopt;
}

// The engine in the file's one EPContext node.
std::string_view find_engine(const char *member, std::string_view file) {
  std::optional<std::string_view> found;
  size_t engines = 0;
  Fields fields(field(file, kModelGraph).value_or(std::string_view()));
  uint32_t number;
  for (std::string_view content; fields.next(&number, &content);) {
    if (number != kGraphNode) continue;
    const auto engine = engine_of(content);
    if (!engine) continue;
    found = engine;
    ++engines;
  }
  if (engines != 1) {
    fail(LE_ENGINE_MISMATCH, "%s holds %zu compiled engines; one is expected.", member, engines);
  }
  return *found;
}

template <typename T>
T read_at(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

std::vector<uint8_t> checked_engine_header(const char *member, const std::vector<uint8_t> &file,
                                           const CompiledFacts &facts) {
  const std::string_view engine =
      find_engine(member, {reinterpret_cast<const char *>(file.data()), file.size()});
  if (engine.size() < kEngineHeaderBytes || engine.substr(0, 4) != "vtrt") {
    fail(LE_ENGINE_MISMATCH, "%s holds no engine of TensorRT for RTX.", member);
  }
  const auto size = read_at<uint64_t>(engine, kSizeAt);
  if (size != engine.size()) {
    fail(LE_ENGINE_MISMATCH, "%s: the engine says that it has %llu bytes; it has %zu.", member,
         static_cast<unsigned long long>(size), engine.size());
  }
  const auto part = [&](size_t i) {
    return static_cast<unsigned>(read_at<uint8_t>(engine, kVersionAt + i));
  };
  unsigned wanted[3] = {};
  std::sscanf(facts.version.c_str(), "%u.%u.%u", &wanted[0], &wanted[1], &wanted[2]);
  if (part(0) != wanted[0] || part(1) != wanted[1] || part(2) != wanted[2]) {
    fail(LE_ENGINE_MISMATCH,
         "%s: the engine is of TensorRT for RTX %u.%u.%u; the manifest says %s.", member, part(0),
         part(1), part(2), facts.version.c_str());
  }
  const auto capability = read_at<uint32_t>(engine, kCapabilityAt);
  for (const Capability &known : kCapabilities) {
    if (facts.compute_capability != known.name || (capability & known.number) != 0) continue;
    const char *other = "another";
    for (const Capability &it : kCapabilities) {
      if ((capability & it.number) != 0) other = it.name;
    }
    fail(LE_ENGINE_MISMATCH, "%s: the engine is for compute capability %s; the manifest says %s.",
         member, other, known.name);
  }
  return {engine.begin(), engine.begin() + kEngineHeaderBytes};
}

}  // namespace le
