#include "release/release.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "error.h"
#include "release/folder.h"
#include "release/manifest_table.h"

namespace le {
namespace {

constexpr size_t kReadBytes = 1 << 20;

// The directory's own path. Resolved once: a symbolic link that is switched meanwhile cannot mix
// two releases.
std::string resolve(const char *directory) {
  char resolved[PATH_MAX];
  struct stat status;
  if (realpath(directory, resolved) == nullptr || stat(resolved, &status) != 0) {
    fail(LE_INVALID_ARGUMENT, "The release %.200s cannot be opened: %s.", directory,
         std::strerror(errno));
  }
  if (S_ISDIR(status.st_mode)) return resolved;
  const bool packed = std::string(resolved).ends_with(".libra");
  fail(LE_INVALID_ARGUMENT,
       packed ? "%.200s is a release packed into one file: unpack it first."
              : "%.200s is not a directory; a release is one.",
       directory);
}

std::vector<uint8_t> read_manifest_bytes(const Folder &folder) {
  const File file = folder.open("manifest.json");
  const uint64_t size = file.size();
  if (size > kMostManifestBytes) {
    fail(LE_MALFORMED, "manifest.json has %llu bytes; at most %zu are read.",
         static_cast<unsigned long long>(size), kMostManifestBytes);
  }
  std::vector<uint8_t> content(size);
  content.resize(file.read(content.data(), content.size()));
  return content;
}

void require_proven(const Manifest &manifest, uint32_t allowed) {
  if (manifest.random_weights && (allowed & LE_OPEN_ALLOW_RANDOM_WEIGHTS) == 0) {
    fail(LE_UNPROVEN, "The release was never trained: its weights are random.");
  }
  if (manifest.verdict == "fail" && (allowed & LE_OPEN_ALLOW_FAILED) == 0) {
    fail(LE_UNPROVEN, "The release failed its own parity checks: it is not the trained policy.");
  }
}

using Sink = std::function<void(const uint8_t *data, size_t size)>;

// Compares a member with the manifest, and hands its bytes on piece by piece.
void read_member(const Folder &folder, const Member &member, const Sink &sink) {
  const File file = folder.open(member.name);
  const uint64_t size = file.size();
  if (size != member.size_bytes) {
    fail(LE_INTEGRITY, "%s has %llu bytes; the manifest says %llu.", member.name,
         static_cast<unsigned long long>(size), static_cast<unsigned long long>(member.size_bytes));
  }
  std::vector<uint8_t> buffer(std::min<uint64_t>(size, kReadBytes));
  Sha256 hash;
  for (uint64_t done = 0; done < size;) {
    const size_t got = file.read(buffer.data(), std::min<uint64_t>(buffer.size(), size - done));
    if (got == 0) fail(LE_INTEGRITY, "%s became shorter while it was read.", member.name);
    hash.update(buffer.data(), got);
    if (sink) sink(buffer.data(), got);
    done += got;
  }
  if (hash.finish() != member.sha256) {
    fail(LE_INTEGRITY, "%s is not the file the manifest names: its SHA-256 differs.", member.name);
  }
}

MemoryFile *memory_for(const Member &member, const MemberRule &rule, Release *release) {
  if (rule.provider != nullptr) {
    release->provider_files.push_back({member.name, member.sha256, MemoryFile(rule.name)});
    return &release->provider_files.back().content;
  }
  if (std::strcmp(member.name, kOnnxRuntimeMember) != 0) return nullptr;
  release->onnxruntime_sha256 = member.sha256;
  release->onnxruntime = MemoryFile("libonnxruntime");
  return &release->onnxruntime;
}

std::vector<uint8_t> *bytes_for(const Member &member, Release *release) {
  const std::string name = member.name;
  const Manifest &manifest = release->manifest;
  if (manifest.sizes.plans() && name == manifest.planner.member) return &release->planner;
  if (name == manifest.refiner.member) return &release->refiner;
  return name == kTokenizerMember ? &release->tokenizer : nullptr;
}

// Reads a member to where its bytes go; nowhere, for those that are only compared.
void take_member(const Folder &folder, const Member &member, Release *release) {
  const auto is_it = [&](const MemberRule &rule) {
    return std::strcmp(rule.name, member.name) == 0;
  };
  const MemberRule &rule = *std::find_if(std::begin(kMemberRules), std::end(kMemberRules), is_it);
  if (MemoryFile *memory = memory_for(member, rule, release); memory != nullptr) {
    read_member(folder, member,
                [&](const uint8_t *data, size_t size) { memory->append(data, size); });
    return memory->seal();
  }
  std::vector<uint8_t> *bytes = bytes_for(member, release);
  if (bytes == nullptr) return read_member(folder, member, {});
  bytes->reserve(member.size_bytes);
  read_member(folder, member, [&](const uint8_t *data, size_t size) {
    bytes->insert(bytes->end(), data, data + size);
  });
}

}  // namespace

Release read_release(const char *directory, uint32_t allowed) {
  const Folder folder(resolve(directory));
  const std::vector<uint8_t> text = read_manifest_bytes(folder);
  Release release;
  release.manifest = parse_manifest(reinterpret_cast<const char *>(text.data()), text.size());
  require_proven(release.manifest, allowed);
  folder.require_only(release.manifest.members);
  for (const Member &member : release.manifest.members) {
    take_member(folder, member, &release);
  }
  return release;
}

}  // namespace le
