// A small strict JSON reader for file headers: RFC 8259 with no extension, valid UTF-8, no duplicate keys, bounded depth.
#ifndef NETSUKE_GRAPH_JSON_H_
#define NETSUKE_GRAPH_JSON_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace netsuke {

struct Json {
  enum class Kind : uint8_t { kNull, kBool, kInt, kFloat, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  int64_t integer = 0;            // kInt: a number without fraction and exponent that fits
  double number = 0;              // kInt and kFloat; always finite
  std::string text;               // kString, unescaped UTF-8
  std::vector<Json> items;        // kArray and kObject
  std::vector<std::string> keys;  // kObject: the key of items[i]

  bool is(Kind wanted) const { return kind == wanted; }
  const Json* find(const char* key) const;  // null when this is no object or has no such key
};

const char* json_kind_name(Json::Kind kind);

// Errors have code kCorruptFile and say at which byte.
Status parse_json(const char* text, size_t size, int max_depth, Json* out);

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_JSON_H_
