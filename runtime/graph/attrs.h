// The attributes of one node as the operators read them.
#ifndef NETSUKE_GRAPH_ATTRS_H_
#define NETSUKE_GRAPH_ATTRS_H_

#include <string>
#include <vector>

#include "graph/json.h"
#include "kernels/op.h"

namespace netsuke {

// Remembers which attributes were read; Status texts do not name the node, the caller adds it.
class JsonAttrs final : public Attrs {
 public:
  explicit JsonAttrs(const Json& object) : object_(object), read_(object.keys.size(), false) {}

  // Every attribute is an integer, a finite number that fits f32, a string, or a list of integers or numbers.
  Status check() const;
  // The attributes no operator asked for, comma separated; empty when all were read.
  std::string unread() const;

  Status get(const char* key, int64_t* out) const override;
  Status get(const char* key, float* out) const override;
  Status get(const char* key, std::string* out) const override;
  Status get(const char* key, std::vector<int64_t>* out) const override;
  Status get_or(const char* key, int64_t fallback, int64_t* out) const override;
  Status get_or(const char* key, float fallback, float* out) const override;
  Status get_or(const char* key, const char* fallback, std::string* out) const override;
  Status get_or(const char* key, std::vector<int64_t> fallback, std::vector<int64_t>* out) const override;
  bool has(const char* key) const override;

 private:
  const Json* take(const char* key) const;
  template <typename T> Status required(const char* key, T* out) const;
  template <typename T, typename U> Status optional(const char* key, U&& fallback, T* out) const;

  const Json& object_;
  mutable std::vector<bool> read_;
};

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_ATTRS_H_
