#include "graph/json.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_set>

namespace netsuke {
namespace {

// Each parsed value costs about 112 bytes, so the values of a hostile header are counted too: 32 million are 3.6 GB.
constexpr int64_t kMaxValues = int64_t{1} << 25;
// Below this many keys a linear scan for duplicates is faster than a hash set.
constexpr size_t kScanKeys = 16;

// Length of the valid UTF-8 sequence at p, 0 when there is none. Overlong forms, surrogates and values above U+10FFFF are invalid.
int utf8_length(const unsigned char* p, const unsigned char* end) {
  const unsigned char lead = *p;
  if (lead < 0x80) return 1;
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || end - p < length) return 0;
  for (int i = 1; i < length; ++i) {
    if ((p[i] & 0xc0) != 0x80) return 0;
  }
  if (lead == 0xe0 && p[1] < 0xa0) return 0;
  if (lead == 0xed && p[1] > 0x9f) return 0;
  if (lead == 0xf0 && p[1] < 0x90) return 0;
  if (lead == 0xf4 && p[1] > 0x8f) return 0;
  return length;
}

void append_utf8(uint32_t point, std::string* out) {
  if (point < 0x80) {
    out->push_back(static_cast<char>(point));
  } else if (point < 0x800) {
    out->push_back(static_cast<char>(0xc0 | (point >> 6)));
    out->push_back(static_cast<char>(0x80 | (point & 0x3f)));
  } else if (point < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | (point >> 12)));
    out->push_back(static_cast<char>(0x80 | ((point >> 6) & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (point & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | (point >> 18)));
    out->push_back(static_cast<char>(0x80 | ((point >> 12) & 0x3f)));
    out->push_back(static_cast<char>(0x80 | ((point >> 6) & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (point & 0x3f)));
  }
}

class Parser {
 public:
  Parser(const char* text, size_t size, int max_depth) : start_(text), p_(text), end_(text + size), max_depth_(max_depth) {}

  Status document(Json* out) {
    NETSUKE_TRY(value(out, 1));
    skip_space();
    if (p_ != end_) return fail("text after the end of the document");
    return Status();
  }

 private:
  Status fail(const char* what) const {
    return error(Code::kCorruptFile, "JSON at byte %lld: %s", static_cast<long long>(p_ - start_), what);
  }

  void skip_space() {
    while (p_ != end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
  }

  bool take(char wanted) {
    if (p_ == end_ || *p_ != wanted) return false;
    ++p_;
    return true;
  }

  bool take_word(const char* word) {
    const size_t length = std::strlen(word);
    if (static_cast<size_t>(end_ - p_) < length || std::memcmp(p_, word, length) != 0) return false;
    p_ += length;
    return true;
  }

  Status value(Json* out, int depth) {
    if (depth > max_depth_) return fail("nested too deeply");
    if (++values_ > kMaxValues) return fail("too many values");
    skip_space();
    if (p_ == end_) return fail("a value is missing");
    switch (*p_) {
      case '{': return object(out, depth);
      case '[': return array(out, depth);
      case '"': out->kind = Json::Kind::kString; return string(&out->text);
      case 't':
      case 'f':
        out->kind = Json::Kind::kBool;
        out->boolean = *p_ == 't';
        return take_word(out->boolean ? "true" : "false") ? Status() : fail("not a value");
      case 'n': return take_word("null") ? Status() : fail("not a value");
      default: return number(out);
    }
  }

  Status array(Json* out, int depth) {
    out->kind = Json::Kind::kArray;
    ++p_;
    skip_space();
    if (take(']')) return Status();
    for (;;) {
      out->items.emplace_back();
      NETSUKE_TRY(value(&out->items.back(), depth + 1));
      skip_space();
      if (take(']')) return Status();
      if (!take(',')) return fail("expected , or ]");
    }
  }

  Status object(Json* out, int depth) {
    out->kind = Json::Kind::kObject;
    ++p_;
    skip_space();
    if (take('}')) return Status();
    for (;;) {
      skip_space();
      if (p_ == end_ || *p_ != '"') return fail("expected a key");
      out->keys.emplace_back();
      NETSUKE_TRY(string(&out->keys.back()));
      skip_space();
      if (!take(':')) return fail("expected :");
      out->items.emplace_back();
      NETSUKE_TRY(value(&out->items.back(), depth + 1));
      skip_space();
      if (take('}')) break;
      if (!take(',')) return fail("expected , or }");
    }
    return unique(out->keys);
  }

  Status unique(const std::vector<std::string>& keys) const {
    if (keys.size() <= kScanKeys) {
      for (size_t i = 1; i < keys.size(); ++i) {
        for (size_t j = 0; j < i; ++j) {
          if (keys[i] == keys[j]) return duplicate(keys[i]);
        }
      }
      return Status();
    }
    std::unordered_set<std::string_view> seen;
    seen.reserve(keys.size());
    for (const std::string& key : keys) {
      if (!seen.insert(key).second) return duplicate(key);
    }
    return Status();
  }

  Status duplicate(const std::string& key) const {
    return error(Code::kCorruptFile, "JSON object with the key '%.80s' twice", key.c_str());
  }

  Status string(std::string* out) {
    ++p_;  // the opening quote
    for (;;) {
      const char* run = p_;
      while (p_ != end_ && *p_ != '"' && *p_ != '\\') {
        const auto* at = reinterpret_cast<const unsigned char*>(p_);
        if (*at < 0x20) return fail("control character in a string");
        const int length = utf8_length(at, reinterpret_cast<const unsigned char*>(end_));
        if (length == 0) return fail("invalid UTF-8");
        p_ += length;
      }
      out->append(run, p_);
      if (take('"')) return Status();
      if (!take('\\')) return fail("unterminated string");
      NETSUKE_TRY(escape(out));
    }
  }

  Status escape(std::string* out) {
    if (p_ == end_) return fail("unterminated string");
    const char kind = *p_++;
    switch (kind) {
      case '"': case '\\': case '/': out->push_back(kind); return Status();
      case 'b': out->push_back('\b'); return Status();
      case 'f': out->push_back('\f'); return Status();
      case 'n': out->push_back('\n'); return Status();
      case 'r': out->push_back('\r'); return Status();
      case 't': out->push_back('\t'); return Status();
      case 'u': break;
      default: return fail("unknown escape");
    }
    uint32_t point = 0;
    NETSUKE_TRY(hex4(&point));
    if (point >= 0xdc00 && point <= 0xdfff) return fail("lone surrogate");
    if (point >= 0xd800 && point <= 0xdbff) {
      uint32_t low = 0;
      if (!take('\\') || !take('u')) return fail("lone surrogate");
      NETSUKE_TRY(hex4(&low));
      if (low < 0xdc00 || low > 0xdfff) return fail("lone surrogate");
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(point, out);
    return Status();
  }

  Status hex4(uint32_t* out) {
    if (end_ - p_ < 4) return fail("unterminated string");
    const auto result = std::from_chars(p_, p_ + 4, *out, 16);
    if (result.ptr != p_ + 4 || *p_ == '-' || *p_ == '+') return fail("expected four hexadecimal digits");
    p_ += 4;
    return Status();
  }

  bool digits() {
    const char* run = p_;
    while (p_ != end_ && *p_ >= '0' && *p_ <= '9') ++p_;
    return p_ != run;
  }

  Status number(Json* out) {
    const char* run = p_;
    take('-');
    if (p_ == end_ || *p_ < '0' || *p_ > '9') return fail("not a value");
    if (!take('0')) digits();
    bool whole = true;
    if (take('.')) {
      whole = false;
      if (!digits()) return fail("a digit is missing");
    }
    if (p_ != end_ && (*p_ == 'e' || *p_ == 'E')) {
      whole = false;
      ++p_;
      if (!take('+')) take('-');
      if (!digits()) return fail("a digit is missing");
    }
    if (whole) {
      const auto result = std::from_chars(run, p_, out->integer);
      if (result.ec != std::errc()) return fail("an integer beyond 64 bits");
      out->kind = Json::Kind::kInt;
      out->number = static_cast<double>(out->integer);
      return Status();
    }
    out->kind = Json::Kind::kFloat;
    return real(run, out);
  }

  // from_chars ignores the locale, strtod does not.
  Status real(const char* run, Json* out) const {
    const auto result = std::from_chars(run, p_, out->number);
    if (result.ec != std::errc() || result.ptr != p_ || !std::isfinite(out->number)) return fail("a number beyond double");
    return Status();
  }

  const char* start_;
  const char* p_;
  const char* end_;
  int max_depth_;
  int64_t values_ = 0;
};

}  // namespace

const Json* Json::find(const char* key) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

const char* json_kind_name(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::kNull: return "null";
    case Json::Kind::kBool: return "a boolean";
    case Json::Kind::kInt: return "an integer";
    case Json::Kind::kFloat: return "a number";
    case Json::Kind::kString: return "a string";
    case Json::Kind::kArray: return "a list";
    case Json::Kind::kObject: return "an object";
  }
  return "unknown";
}

Status parse_json(const char* text, size_t size, int max_depth, Json* out) {
  *out = Json();
  return Parser(text, size, max_depth).document(out);
}

}  // namespace netsuke
