#include "graph/attrs.h"

#include <cfloat>
#include <cmath>
#include <utility>

namespace netsuke {
namespace {

Status wrong(const char* key, const char* wanted, const Json& value) {
  return error(Code::kCorruptFile, "attribute '%s' is %s, expected %s", key, json_kind_name(value.kind), wanted);
}

bool is_number(const Json& value) { return value.is(Json::Kind::kInt) || value.is(Json::Kind::kFloat); }

Status convert(const char* key, const Json& value, int64_t* out) {
  if (!value.is(Json::Kind::kInt)) return wrong(key, "an integer", value);
  *out = value.integer;
  return Status();
}

Status convert(const char* key, const Json& value, float* out) {
  if (!is_number(value)) return wrong(key, "a number", value);
  *out = static_cast<float>(value.number);  // check() made sure that it fits
  return Status();
}

Status convert(const char* key, const Json& value, std::string* out) {
  if (!value.is(Json::Kind::kString)) return wrong(key, "a string", value);
  *out = value.text;
  return Status();
}

Status convert(const char* key, const Json& value, std::vector<int64_t>* out) {
  if (!value.is(Json::Kind::kArray)) return wrong(key, "a list of integers", value);
  out->clear();
  for (const Json& item : value.items) {
    if (!item.is(Json::Kind::kInt)) return wrong(key, "a list of integers", item);
    out->push_back(item.integer);
  }
  return Status();
}

}  // namespace

Status JsonAttrs::check() const {
  for (size_t i = 0; i < object_.items.size(); ++i) {
    const Json& value = object_.items[i];
    const char* key = object_.keys[i].c_str();
    const bool list = value.is(Json::Kind::kArray);
    if (!list && !is_number(value) && !value.is(Json::Kind::kString)) return wrong(key, "a number, a string or a list", value);
    for (const Json& item : value.items) {  // empty unless it is a list
      if (!is_number(item)) return wrong(key, "a list of numbers", item);
    }
    if (value.is(Json::Kind::kFloat) && std::fabs(value.number) > static_cast<double>(FLT_MAX)) {
      return error(Code::kCorruptFile, "attribute '%s' is beyond f32", key);
    }
  }
  return Status();
}

std::string JsonAttrs::unread() const {
  std::string names;
  for (size_t i = 0; i < read_.size(); ++i) {
    if (read_[i]) continue;
    if (!names.empty()) names += ", ";
    names += object_.keys[i];
  }
  return names;
}

const Json* JsonAttrs::take(const char* key) const {
  for (size_t i = 0; i < object_.keys.size(); ++i) {
    if (object_.keys[i] != key) continue;
    read_[i] = true;
    return &object_.items[i];
  }
  return nullptr;
}

template <typename T>
Status JsonAttrs::required(const char* key, T* out) const {
  const Json* value = take(key);
  if (value == nullptr) return error(Code::kCorruptFile, "attribute '%s' is missing", key);
  return convert(key, *value, out);
}

template <typename T, typename U>
Status JsonAttrs::optional(const char* key, U&& fallback, T* out) const {
  const Json* value = take(key);
  if (value != nullptr) return convert(key, *value, out);
  *out = std::forward<U>(fallback);
  return Status();
}

Status JsonAttrs::get(const char* key, int64_t* out) const { return required(key, out); }
Status JsonAttrs::get(const char* key, float* out) const { return required(key, out); }
Status JsonAttrs::get(const char* key, std::string* out) const { return required(key, out); }
Status JsonAttrs::get(const char* key, std::vector<int64_t>* out) const { return required(key, out); }

Status JsonAttrs::get_or(const char* key, int64_t fallback, int64_t* out) const { return optional(key, fallback, out); }
Status JsonAttrs::get_or(const char* key, float fallback, float* out) const { return optional(key, fallback, out); }
Status JsonAttrs::get_or(const char* key, const char* fallback, std::string* out) const { return optional(key, fallback, out); }
Status JsonAttrs::get_or(const char* key, std::vector<int64_t> fallback, std::vector<int64_t>* out) const {
  return optional(key, std::move(fallback), out);
}

bool JsonAttrs::has(const char* key) const { return object_.find(key) != nullptr; }

}  // namespace netsuke
