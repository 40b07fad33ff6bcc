#include "release/rules.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "error.h"
#include "release/manifest_table.h"

namespace le {
namespace {

void check(const Json &json, const Rule &rule);

// The number of characters, of UTF-8 that is known to be whole.
size_t characters(const std::string &text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

bool in_range(double value, const Rule &rule) {
  const bool high_enough = rule.above ? value > rule.least : value >= rule.least;
  return high_enough && value <= rule.most;
}

void check_integer(const Json &json, const Rule &rule) {
  const double value = json.whole();
  if (in_range(value, rule)) return;
  fail(LE_MALFORMED, "%s is %.17g; it must be %.17g to %.17g.", json.path().c_str(), value,
       rule.least, rule.most);
}

void check_number(const Json &json, const Rule &rule) {
  const double value = json.real();
  if (in_range(value, rule)) return;
  fail(LE_MALFORMED, "%s is %g; it must be %s %g and at most %g.", json.path().c_str(), value,
       rule.above ? "above" : "at least", rule.least, rule.most);
}

void check_word(const Json &json, const Rule &rule) {
  const std::string text = json.text();
  const auto *first = kWords + rule.first;
  if (std::find(first, first + rule.count, text) == first + rule.count) {
    fail(LE_MALFORMED, "%s: %.100s is unknown.", json.path().c_str(), text.c_str());
  }
}

// Takes from the left all that fits: the table holds no pattern for which that is wrong.
bool matches(const std::string &text, const Rule &rule) {
  size_t at = 0;
  for (const Stretch *s = kStretches + rule.first; s != kStretches + rule.first + rule.count; ++s) {
    uint32_t found = 0;
    while (at < text.size() && found < s->most) {
      const bool beyond = (text[at] & 0x80) != 0;
      if (beyond ? !s->others : text[at] == '\0' || !std::strchr(s->characters, text[at])) break;
      ++at, ++found;
      while (at < text.size() && (text[at] & 0xc0) == 0x80) ++at;
    }
    if (found < s->least) return false;
  }
  return at == text.size();
}

void check_pattern(const Json &json, const Rule &rule) {
  const std::string text = json.text();
  if (!matches(text, rule)) {
    fail(LE_MALFORMED, "%s: %.100s is not of the form that belongs here.", json.path().c_str(),
         text.c_str());
  }
}

void check_count(const Json &json, size_t count, const Rule &rule, const char *what) {
  if (in_range(static_cast<double>(count), rule)) return;
  fail(LE_MALFORMED, "%s has %zu %s; %g to %g are allowed.", json.path().c_str(), count, what,
       rule.least, rule.most);
}

void check_list(const Json &json, const Rule &rule) {
  const std::vector<Json> items = json.items();
  check_count(json, items.size(), rule, "items");
  for (const Json &item : items) check(item, kRules[rule.first]);
}

void check_map(const Json &json, const Rule &rule) {
  size_t count = 0;
  json.each_member([&](const Json &key, const Json &value) {
    ++count;
    check(key, kRules[rule.count]);
    check(value, kRules[rule.first]);
  });
  check_count(json, count, rule, "members");
}

void check_object(const Json &json, const Rule &rule) {
  const Key *keys = kKeys + rule.first, *end = keys + rule.count;
  json.each_member([&](const Json &name, const Json &value) {
    const std::string text = name.text();
    const Key *key = std::find_if(keys, end, [&](const Key &k) { return text == k.name; });
    if (key == end) {
      fail(LE_MALFORMED, "%s: the key %.100s is unknown.", json.path().c_str(), text.c_str());
    }
    check(value, kRules[key->rule]);
    if (key->unset != nullptr && value.is(key->unset)) {
      fail(LE_MALFORMED, "%s is %s, which is never written.", value.path().c_str(), key->unset);
    }
  });
  for (const Key *key = keys; key != end; ++key) {
    if (key->unset == nullptr) json.at(key->name);
  }
}

void check(const Json &json, const Rule &rule) {
  if (rule.nullable && json.is("null")) return;
  switch (rule.kind) {
    case Kind::kBoolean:
      return json.require_boolean();
    case Kind::kInteger:
      return check_integer(json, rule);
    case Kind::kNumber:
      return check_number(json, rule);
    case Kind::kWord:
      return check_word(json, rule);
    case Kind::kPattern:
      return check_pattern(json, rule);
    case Kind::kText:
      return check_count(json, characters(json.text()), rule, "characters");
    case Kind::kList:
      return check_list(json, rule);
    case Kind::kMap:
      return check_map(json, rule);
    case Kind::kObject:
      return check_object(json, rule);
  }
}

}  // namespace

void check_rules(const Json &manifest) {
  check(manifest, kRules[kManifestRule]);
}

}  // namespace le
