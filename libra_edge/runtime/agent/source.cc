#include "agent/source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "agent/answer.h"
#include "error.h"
#include "release/folder.h"
#include "release/json.h"
#include "release/manifest_table.h"

namespace agent {
namespace {

constexpr size_t kPieceBytes = 1 << 18;
constexpr size_t kBlockBytes = 512;
constexpr size_t kMostHeadBytes = 1 << 16;

using Begin = std::function<Sink(const le::Member &member, uint64_t offset)>;
using End = std::function<void(const le::Member &member)>;

[[noreturn]] void refuse_stream(const std::string &fact) {
  refuse(Exit::kUsage, "stream-invalid", fact,
         "Send it again with the libra-edge of this release.");
}

[[noreturn]] void ended(const std::string &what) {
  refuse(Exit::kFailed, "stream-ended", "What is sent ends inside " + what + ".",
         "Run it again: what arrived is kept.");
}

// Hands on exactly `size` bytes.
void pass_on(int descriptor, uint64_t size, const std::string &what, const Sink &sink) {
  std::vector<uint8_t> buffer(std::min<uint64_t>(size, kPieceBytes));
  for (uint64_t left = size; left > 0;) {
    const size_t piece = std::min<uint64_t>(left, buffer.size());
    const size_t got = read_some(descriptor, buffer.data(), piece, what);
    if (got > 0) sink(buffer.data(), got);
    if (got < piece) ended(what);
    left -= got;
  }
}

std::string exactly(int descriptor, uint64_t size, const std::string &what) {
  std::string text;
  pass_on(descriptor, size, what, [&](const uint8_t *data, size_t count) {
    text.append(reinterpret_cast<const char *>(data), count);
  });
  return text;
}

class FolderSource : public Source {
 public:
  explicit FolderSource(const std::string &path)
      : path_(path), folder_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (!folder_) fail_system(path + " cannot be opened");
    manifest_ = read_text(folder_.get(), "manifest.json", le::kMostManifestBytes);
    signature_ = read_text(folder_.get(), le::kSignatureFile, le::kMostSignatureBytes);
  }

  const std::string &manifest() const override { return manifest_; }
  const std::string &signature() const override { return signature_; }

  void deliver(const le::Manifest &manifest, const Begin &begin, const End &end) override {
    le::Folder(path_).require_only(manifest.members);
    for (const le::Member &member : manifest.members) {
      const std::string name = member.name;
      const size_t slash = name.find('/');
      Handle inner;
      if (slash != std::string::npos) inner = open_folder(folder_.get(), name.substr(0, slash));
      const Handle file = slash == std::string::npos
                              ? open_file(folder_.get(), name)
                              : open_file(inner.get(), name.substr(slash + 1));
      if (!file) {
        refuse(Exit::kRefused, "member-missing", name + " is missing.", "Fetch the release again.");
      }
      if (size_of(file, name) != member.size_bytes) {
        refuse(Exit::kRefused, "member-changed", name + " has not the size that the manifest says.",
               "Fetch the release again.");
      }
      pass_on(file.get(), member.size_bytes, name, begin(member, 0));
      end(member);
    }
  }

 private:
  std::string path_;
  Handle folder_;
  std::string manifest_, signature_;
};

// The one byte form of a header: bundle/container.py.
std::string tar_header(const std::string &name, uint64_t size) {
  char field[16];
  std::string block = name;
  block.resize(100, '\0');
  block += std::string("0000644\0", 8);
  for (int i = 0; i < 2; ++i) block += std::string("0000000\0", 8);
  std::snprintf(field, sizeof field, "%011llo", static_cast<unsigned long long>(size));
  block += std::string(field, 12);
  block += std::string("00000000000\0", 12);
  block += "        0";
  block.resize(257, '\0');
  block += std::string("ustar\00000", 8);
  block.resize(kBlockBytes, '\0');
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  std::snprintf(field, sizeof field, "%06o", sum);
  block.replace(148, 8, std::string(field, 6) + std::string("\0 ", 2));
  return block;
}

// A packed release: every byte of it follows from its manifest.
class PackedSource : public Source {
 public:
  explicit PackedSource(const std::string &path)
      : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (!file_) fail_system(path + " cannot be opened");
    ahead_ = exactly(file_.get(), kBlockBytes, "its first header");
    manifest_ = entry("manifest.json", le::kMostManifestBytes);
    ahead_ = exactly(file_.get(), kBlockBytes, "its second header");
    const std::string name(ahead_.c_str());
    if (name == le::kSignatureFile) signature_ = entry(le::kSignatureFile, le::kMostSignatureBytes);
  }

  const std::string &manifest() const override { return manifest_; }
  const std::string &signature() const override { return signature_; }

  void deliver(const le::Manifest &manifest, const Begin &begin, const End &end) override {
    std::vector<const le::Member *> order;
    for (const le::Member &member : manifest.members) order.push_back(&member);
    std::sort(order.begin(), order.end(), [](const le::Member *a, const le::Member *b) {
      return std::strcmp(a->name, b->name) < 0;
    });
    for (const le::Member *member : order) {
      expect(tar_header(member->name, member->size_bytes), member->name);
      pass_on(file_.get(), member->size_bytes, member->name, begin(*member, 0));
      end(*member);
      expect(padding(member->size_bytes), member->name);
    }
    expect(std::string(2 * kBlockBytes, '\0'), "its end");
    uint8_t more;
    if (read_some(file_.get(), &more, 1, "the file") != 0) invalid("bytes after its end");
  }

 private:
  static std::string padding(uint64_t size) {
    return std::string((kBlockBytes - size % kBlockBytes) % kBlockBytes, '\0');
  }

  [[noreturn]] static void invalid(const std::string &what) {
    refuse(Exit::kRefused, "container-invalid", "The file is no packed release: " + what + ".",
           "Fetch the release again.");
  }

  // A small file whose header was read already.
  std::string entry(const std::string &name, size_t most) {
    uint64_t size = 0;
    for (size_t i = 124; i < 135; ++i) {
      const char digit = ahead_[i];
      if (digit < '0' || digit > '7') invalid("it has no header of " + name + " where it must be");
      size = size * 8 + static_cast<uint64_t>(digit - '0');
    }
    if (size > most || ahead_ != tar_header(name, size)) {
      invalid("it has no header of " + name + " where it must be");
    }
    ahead_.clear();
    std::string text = exactly(file_.get(), size, name);
    expect(padding(size), name);
    return text;
  }

  void expect(const std::string &bytes, const std::string &what) {
    const size_t left = bytes.size() - std::min(ahead_.size(), bytes.size());
    const std::string found = ahead_ + exactly(file_.get(), left, what);
    ahead_.clear();
    if (found != bytes) invalid("what stands around " + what);
  }

  Handle file_;
  std::string ahead_;  // the header that was read before what it is of was known
  std::string manifest_, signature_;
};

struct Sent {
  std::string name, sha256;
  uint64_t offset, bytes;
};

// `libra-install 1`: a line of JSON, the manifest, the signature, and what is missing of members.
class StreamSource : public Source {
 public:
  StreamSource() {
    if (line(32) != "libra-install 1") refuse_stream("Standard input is no release.");
    const std::string head = line(kMostHeadBytes);
    try {
      read_head(head);
    } catch (const le::Error &error) {
      refuse_stream(error.text);
    }
  }

  const std::string &manifest() const override { return manifest_; }
  const std::string &signature() const override { return signature_; }

  void deliver(const le::Manifest &manifest, const Begin &begin, const End &end) override {
    for (const Sent &sent : sent_) {
      const auto found = std::find_if(manifest.members.begin(), manifest.members.end(),
                                      [&](const le::Member &m) { return sent.name == m.name; });
      if (found == manifest.members.end() || hex(found->sha256) != sent.sha256 ||
          sent.offset > found->size_bytes || sent.bytes != found->size_bytes - sent.offset) {
        refuse_stream("The manifest has no such " + sent.name + " as is sent.");
      }
      pass_on(STDIN_FILENO, sent.bytes, sent.name, begin(*found, sent.offset));
      end(*found);
    }
  }

 private:
  static std::string line(size_t most) {
    std::string text;
    uint8_t c = 0;
    while (read_some(STDIN_FILENO, &c, 1, "standard input") == 1 && c != '\n') {
      if (text.size() >= most) refuse_stream("A line of standard input does not end.");
      text += static_cast<char>(c);
    }
    if (c != '\n') ended("its head");
    return text;
  }

  void read_head(const std::string &text) {
    const le::JsonDocument document("the head", text.data(), text.size());
    const le::Json head = document.root();
    const uint64_t manifest = head.at("manifest_bytes").integer();
    const uint64_t signature = head.at("signature_bytes").integer();
    if (manifest > le::kMostManifestBytes || signature > le::kMostSignatureBytes) {
      refuse_stream("Manifest or signature are larger than any.");
    }
    for (const le::Json &item : head.at("members").items()) {
      sent_.push_back({item.at("name").text(), item.at("sha256").text(),
                       item.at("offset").integer(), item.at("bytes").integer()});
    }
    manifest_ = exactly(STDIN_FILENO, manifest, "the manifest");
    signature_ = exactly(STDIN_FILENO, signature, "the signature");
  }

  std::string manifest_, signature_;
  std::vector<Sent> sent_;
};

}  // namespace

std::unique_ptr<Source> open_source(const std::string &words) {
  if (words == "-") return std::make_unique<StreamSource>();
  struct stat status;
  if (stat(words.c_str(), &status) != 0) {
    refuse(Exit::kUsage, "source-missing", words + ": " + std::strerror(errno) + ".",
           "Name a release's folder, a .libra file, or - for standard input.");
  }
  if (S_ISDIR(status.st_mode)) return std::make_unique<FolderSource>(words);
  return std::make_unique<PackedSource>(words);
}

}  // namespace agent
