#include "graph/program.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "formats/packing.h"

namespace netsuke {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxNodes = 1'000'000;
constexpr int kMaxName = 1024;  // characters
constexpr int64_t kMaxCodes = int64_t{1} << 48;  // of a packed constant
constexpr int64_t kMaxVector = 64;               // elements of an entry

Status bad(const char* where, const std::string& what, const char* problem) {
  return error(Code::kCorruptFile, "%s '%.200s': %s", where, what.c_str(), problem);
}

Status check_keys(const char* where, const std::string& name, const Json& object, std::initializer_list<const char*> allowed) {
  if (!object.is(Json::Kind::kObject)) return bad(where, name, "is not an object");
  for (const std::string& key : object.keys) {
    bool known = false;
    for (const char* word : allowed) known = known || key == word;
    if (!known) return error(Code::kCorruptFile, "%s '%.200s': unknown key '%.80s'", where, name.c_str(), key.c_str());
  }
  return Status();
}

Status read_text(const char* where, const Json& object, const char* key, bool required, std::string* out) {
  const Json* value = object.find(key);
  if (value == nullptr) return required ? bad(where, key, "is missing") : Status();
  if (!value->is(Json::Kind::kString)) return bad(where, key, "is not a string");
  *out = value->text;
  return Status();
}

Status check_name(const char* where, const std::string& name) {
  int characters = 0;
  for (char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return bad(where, name, "a name holds a control character");
    characters += (static_cast<unsigned char>(c) & 0xc0) != 0x80;  // bytes that begin a UTF-8 sequence
  }
  if (characters == 0 || characters > kMaxName) return bad(where, name, "a name has 1 to 1,024 characters");
  return Status();
}

class Reader {
 public:
  Reader(const SafeTensors& file, ProgramInfo* out) : file_(file), out_(out) {}

  Status read(Json root) {
    NETSUKE_TRY(header(root));
    NETSUKE_TRY(ports(root, "inputs", &out_->inputs));
    NETSUKE_TRY(inputs());
    NETSUKE_TRY(constants());
    NETSUKE_TRY(packed(root));
    for (size_t i = 0; i < root.keys.size(); ++i) {
      if (root.keys[i] == "nodes") NETSUKE_TRY(nodes(&root.items[i]));
    }
    NETSUKE_TRY(values(root));
    NETSUKE_TRY(ports(root, "outputs", &out_->outputs));
    return outputs();
  }

 private:
  Status header(const Json& root) {
    NETSUKE_TRY(check_keys("program", "", root,
                           {"format", "version", "producer", "name", "inputs", "outputs", "nodes", "values", "packed", "plan", "meta"}));
    std::string format;
    NETSUKE_TRY(read_text("program", root, "format", true, &format));
    if (format != "netsuke-program") return bad("program", "format", "is not \"netsuke-program\"");
    const Json* version = root.find("version");
    if (version == nullptr || !version->is(Json::Kind::kInt)) return bad("program", "version", "is missing or not an integer");
    if (version->integer != 1) {
      return error(Code::kUnsupported, "the file has version %lld; this runtime reads version 1",
                   static_cast<long long>(version->integer));
    }
    const Json* nodes = root.find("nodes");
    if (nodes == nullptr || !nodes->is(Json::Kind::kArray)) return bad("program", "nodes", "is missing or not a list");
    if (nodes->items.size() > kMaxNodes) return bad("program", "nodes", "more than 1,000,000");
    NETSUKE_TRY(read_text("program", root, "producer", false, &out_->producer));
    NETSUKE_TRY(read_text("program", root, "name", false, &out_->name));
    NETSUKE_TRY(read_text("program", root, "plan", false, &out_->plan));
    return meta(root);
  }

  Status meta(const Json& root) {
    const Json* meta = root.find("meta");
    if (meta == nullptr) return Status();
    if (!meta->is(Json::Kind::kObject)) return bad("program", "meta", "is not an object");
    for (size_t i = 0; i < meta->items.size(); ++i) {
      if (!meta->items[i].is(Json::Kind::kString)) return bad("meta", meta->keys[i], "is not a string");
      out_->meta.emplace_back(meta->keys[i], meta->items[i].text);
    }
    return Status();
  }

  Status ports(const Json& root, const char* key, std::vector<Port>* out) {
    const Json* list = root.find(key);
    if (list == nullptr || !list->is(Json::Kind::kArray)) return bad("program", key, "is missing or not a list");
    for (const Json& item : list->items) {
      Port port;
      NETSUKE_TRY(check_keys("program", key, item, {"name", "dtype", "shape"}));
      NETSUKE_TRY(read_text(key, item, "name", true, &port.name));
      NETSUKE_TRY(check_name(key, port.name));
      std::string dtype;
      NETSUKE_TRY(read_text(key, item, "dtype", true, &dtype));
      if (!dtype_from_name(dtype, &port.dtype) || port.dtype == DType::kBF16) {
        return bad(key, port.name, "dtype is none of f32 u8 s8 i32 i64 bool");
      }
      NETSUKE_TRY(dims(key, item, &port));
      out->push_back(std::move(port));
    }
    return Status();
  }

  Status dims(const char* key, const Json& item, Port* port) {
    const Json* shape = item.find("shape");
    if (shape == nullptr || !shape->is(Json::Kind::kArray)) return bad(key, port->name, "has no shape");
    if (shape->items.size() > kMaxRank) return bad(key, port->name, "more than 8 dimensions");
    for (const Json& entry : shape->items) {
      Dim dim;
      if (entry.is(Json::Kind::kInt)) {
        if (entry.integer < 0) return bad(key, port->name, "a negative dimension");
        dim.size = entry.integer;
      } else if (entry.is(Json::Kind::kString)) {
        NETSUKE_TRY(check_name("dimension", entry.text));
        dim.name = entry.text;
      } else {
        return bad(key, port->name, "a dimension is neither an integer nor a name");
      }
      port->dims.push_back(std::move(dim));
    }
    return Status();
  }

  Status define(const std::string& name, ValueKind kind, size_t index, int* number) {
    NETSUKE_TRY(check_name("value", name));
    *number = static_cast<int>(out_->values.size());
    if (!numbers_.emplace(name, *number).second) return bad("value", name, "is defined twice");
    ValueInfo info;
    info.name = name;
    info.kind = kind;
    info.index = static_cast<int>(index);
    out_->values.push_back(std::move(info));
    used_.push_back(false);
    return Status();
  }

  Status inputs() {
    for (size_t i = 0; i < out_->inputs.size(); ++i) {
      Port& port = out_->inputs[i];
      NETSUKE_TRY(define(port.name, ValueKind::kInput, i, &port.value));
      out_->values.back().dtype = port.dtype;
    }
    return Status();
  }

  Status constants() {
    for (size_t i = 0; i < file_.tensors.size(); ++i) {
      int number = 0;
      NETSUKE_TRY(define(file_.tensors[i].name, ValueKind::kConstant, i, &number));
      out_->values.back().dtype = file_.tensors[i].dtype;
    }
    out_->packed.resize(file_.tensors.size());
    return Status();
  }

  Status packed(const Json& root) {
    const Json* table = root.find("packed");
    if (table == nullptr) return Status();
    if (!table->is(Json::Kind::kObject)) return bad("program", "packed", "is not an object");
    for (size_t i = 0; i < table->items.size(); ++i) {
      const std::string& name = table->keys[i];
      const auto found = numbers_.find(name);
      if (found == numbers_.end() || out_->values[static_cast<size_t>(found->second)].kind != ValueKind::kConstant) {
        return bad("packed", name, "is not a tensor of the file");
      }
      ValueInfo& value = out_->values[static_cast<size_t>(found->second)];
      const auto index = static_cast<size_t>(value.index);
      NETSUKE_TRY(packed_form(name, table->items[i], file_.tensors[index], &out_->packed[index]));
      value.dtype = out_->packed[index].dtype;
    }
    return Status();
  }

  Status packed_form(const std::string& name, const Json& entry, const FileTensor& tensor, PackedInfo* out) {
    NETSUKE_TRY(check_keys("packed", name, entry, {"bits", "dtype", "shape", "entries", "form"}));
    const Json *table = entry.find("entries"), *form = entry.find("form");
    if (form != nullptr) return packed_named(name, entry, tensor, out);
    if (table != nullptr) NETSUKE_TRY(packed_table(name, *table, out));
    const Json* bits = entry.find("bits");
    const bool whole = bits != nullptr && bits->is(Json::Kind::kInt);
    if (table == nullptr && (!whole || !packed_width(bits->integer))) return bad("packed", name, "bits is none of 1 to 6");
    if (table != nullptr && (!whole || bits->integer != index_bits(out->entries))) {
      return bad("packed", name, "bits is not the fewest that tell the entries apart");
    }
    std::string dtype;
    NETSUKE_TRY(read_text("packed", entry, "dtype", true, &dtype));
    const bool floats = table != nullptr && dtype == "f32";
    if (dtype != "s8" && dtype != "u8" && !floats) return bad("packed", name, "dtype is neither s8 nor u8");
    out->dtype = floats ? DType::kF32 : dtype == "s8" ? DType::kS8 : DType::kU8;
    NETSUKE_TRY(packed_shape(name, entry, out));
    out->bits = static_cast<int>(bits->integer);
    const int64_t count = out->shape.elements();
    if (count % out->length != 0) return bad("packed", name, "the elements are not whole vectors");
    const int64_t size = out->bytes();
    if (tensor.dtype != DType::kU8 || tensor.shape.rank != 1 || tensor.shape.dim[0] != size) {
      return error(Code::kCorruptFile, "packed '%.200s': %lld codes of %d bits are a list of %lld bytes (U8)", name.c_str(),
                   static_cast<long long>(count / out->length), out->bits, static_cast<long long>(size));
    }
    if (!packed_tail_clear(tensor.data + out->table_bytes(), count / out->length, out->bits)) {
      return bad("packed", name, "an unused bit behind the last code is set");
    }
    return Status();
  }

  Status packed_shape(const std::string& name, const Json& entry, PackedInfo* out) {
    const Json* shape = entry.find("shape");
    if (shape == nullptr || !shape->is(Json::Kind::kArray) || shape->items.size() > kMaxRank) {
      return bad("packed", name, "shape is not a list of at most 8 sizes");
    }
    int64_t bound = 1;  // with empty dimensions counted as 1
    for (const Json& dim : shape->items) {
      if (!dim.is(Json::Kind::kInt) || dim.integer < 0) return bad("packed", name, "a dimension is not a non-negative integer");
      out->shape.dim[out->shape.rank++] = dim.integer;
      if (!checked_mul(bound, std::max<int64_t>(dim.integer, 1), &bound) || bound >= kMaxCodes) {
        return bad("packed", name, "the shape is too large");
      }
    }
    return Status();
  }

  // Codes in a form with a name: what the bytes are is for the form to say.
  Status packed_named(const std::string& name, const Json& entry, const FileTensor& tensor, PackedInfo* out) {
    NETSUKE_TRY(check_keys("packed", name, entry, {"dtype", "form", "shape"}));
    std::string form, dtype;
    NETSUKE_TRY(read_text("packed", entry, "form", true, &form));
    NETSUKE_TRY(read_text("packed", entry, "dtype", true, &dtype));
    if (form != "ternary" && form != "salient") return bad("packed", name, "form is neither ternary nor salient");
    if (dtype != "s8") return bad("packed", name, "this form holds s8 codes");
    NETSUKE_TRY(packed_shape(name, entry, out));
    if (tensor.dtype != DType::kU8 || tensor.shape.rank != 1) return bad("packed", name, "its codes are no list of bytes (U8)");
    out->dtype = DType::kS8;
    out->form = form == "ternary" ? NamedForm::kTernary : NamedForm::kSalient;
    out->bits = form == "ternary" ? 2 : 8;
    out->form_bytes = tensor.shape.dim[0];
    const int64_t rows = out->shape.rank > 0 ? out->shape.dim[0] : 0;
    const char* problem = named_problem(out->form, tensor.data, out->form_bytes, rows, out->shape.elements());
    return problem == nullptr ? Status() : bad("packed", name, problem);
  }

  // Limits keep a small file from standing for endless weights: an index byte decodes to at most 8 * 64 elements.
  Status packed_table(const std::string& name, const Json& table, PackedInfo* out) {
    const bool two = table.is(Json::Kind::kArray) && table.items.size() == 2 && table.items[0].is(Json::Kind::kInt) &&
                     table.items[1].is(Json::Kind::kInt);
    if (!two) return bad("packed", name, "entries is not a list of two integers");
    out->entries = table.items[0].integer;
    out->length = table.items[1].integer;
    if (out->entries < 2 || out->entries > 256) return bad("packed", name, "there are not 2 to 256 entries");
    if (out->length < 1 || out->length > kMaxVector) return bad("packed", name, "an entry has not 1 to 64 elements");
    return Status();
  }

  Status nodes(Json* list) {
    out_->nodes.reserve(list->items.size());
    for (Json& item : list->items) NETSUKE_TRY(node(&item));
    return Status();
  }

  Status node(Json* item) {
    const size_t index = out_->nodes.size();
    NodeInfo node;
    NETSUKE_TRY(check_keys("node", std::to_string(index), *item, {"op", "name", "in", "out", "attrs"}));
    NETSUKE_TRY(read_text("node", *item, "op", true, &node.op));
    NETSUKE_TRY(read_text("node", *item, "name", true, &node.name));
    NETSUKE_TRY(check_name("node", node.name));
    if (!node_names_.insert(node.name).second) return bad("node", node.name, "another node has this name");
    const Json* in = item->find("in");
    const Json* out = item->find("out");
    if (in == nullptr || !in->is(Json::Kind::kArray)) return bad("node", node.name, "'in' is missing or not a list");
    if (out == nullptr || !out->is(Json::Kind::kArray) || out->items.empty()) {
      return bad("node", node.name, "'out' is missing, empty or not a list");
    }
    for (const Json& name : in->items) NETSUKE_TRY(node_input(node.name, name, &node.in));
    for (const Json& name : out->items) {
      if (!name.is(Json::Kind::kString)) return bad("node", node.name, "an output is not a name");
      int number = 0;
      NETSUKE_TRY(define(name.text, ValueKind::kNode, index, &number));
      node.out.push_back(number);
    }
    node.attrs.kind = Json::Kind::kObject;
    for (size_t i = 0; i < item->keys.size(); ++i) {
      if (item->keys[i] == "attrs") node.attrs = std::move(item->items[i]);
    }
    if (!node.attrs.is(Json::Kind::kObject)) return bad("node", node.name, "'attrs' is not an object");
    out_->nodes.push_back(std::move(node));
    return Status();
  }

  Status node_input(const std::string& node, const Json& name, std::vector<int>* in) {
    if (!name.is(Json::Kind::kString)) return bad("node", node, "an input is not a name");
    if (name.text.empty()) {
      in->push_back(-1);
      return Status();
    }
    const auto found = numbers_.find(name.text);
    if (found == numbers_.end()) {
      return error(Code::kCorruptFile, "node '%.200s': input '%.200s' is no input, constant or output of an earlier node",
                   node.c_str(), name.text.c_str());
    }
    in->push_back(found->second);
    used_[static_cast<size_t>(found->second)] = true;
    return Status();
  }

  Status values(const Json& root) {
    const Json* table = root.find("values");
    if (table == nullptr) return Status();
    if (!table->is(Json::Kind::kObject)) return bad("program", "values", "is not an object");
    for (size_t i = 0; i < table->items.size(); ++i) {
      const std::string& name = table->keys[i];
      const auto found = numbers_.find(name);
      if (found == numbers_.end() || out_->values[static_cast<size_t>(found->second)].kind != ValueKind::kNode) {
        return bad("values", name, "is not the output of a node");
      }
      NETSUKE_TRY(describe(table->items[i], &out_->values[static_cast<size_t>(found->second)]));
    }
    return Status();
  }

  Status describe(const Json& entry, ValueInfo* info) {
    NETSUKE_TRY(check_keys("values", info->name, entry, {"dtype", "scale", "zero", "source"}));
    std::string dtype;
    NETSUKE_TRY(read_text("values", entry, "dtype", true, &dtype));
    if (!dtype_from_name(dtype, &info->dtype)) return bad("values", info->name, "unknown dtype");
    info->declared = true;
    if (const Json* scale = entry.find("scale"); scale != nullptr && !scale->is(Json::Kind::kNull)) {
      info->scale = static_cast<float>(scale->number);
      const bool number = scale->is(Json::Kind::kFloat) || scale->is(Json::Kind::kInt);
      if (!number || !(scale->number > 0) || !std::isfinite(info->scale)) return bad("values", info->name, "scale is not positive and finite");
      info->quantized = true;
    }
    if (const Json* zero = entry.find("zero"); zero != nullptr && !zero->is(Json::Kind::kNull)) {
      if (!zero->is(Json::Kind::kInt)) return bad("values", info->name, "zero is not an integer");
      info->zero = zero->integer;
    }
    return read_text("values", entry, "source", false, &info->source);
  }

  Status outputs() {
    if (out_->outputs.empty()) return bad("program", "outputs", "is empty");
    std::unordered_map<std::string, int> seen;
    for (Port& port : out_->outputs) {
      if (!seen.emplace(port.name, 0).second) return bad("outputs", port.name, "is listed twice");
      const auto found = numbers_.find(port.name);
      if (found == numbers_.end() || out_->values[static_cast<size_t>(found->second)].kind != ValueKind::kNode) {
        return bad("outputs", port.name, "is not the output of a node");
      }
      port.value = found->second;
    }
    for (const ValueInfo& value : out_->values) {
      if (value.kind == ValueKind::kConstant && !used_[static_cast<size_t>(numbers_[value.name])]) {
        return bad("constant", value.name, "no node uses it");
      }
    }
    return Status();
  }

  const SafeTensors& file_;
  ProgramInfo* out_;
  std::unordered_map<std::string, int> numbers_;
  std::unordered_set<std::string> node_names_;
  std::vector<bool> used_;  // by value number
};

}  // namespace

Status read_program(const SafeTensors& file, ProgramInfo* out) {
  const std::string* text = nullptr;
  for (const auto& [key, value] : file.metadata) {
    if (key != "netsuke") return error(Code::kCorruptFile, "unknown metadata key '%.80s'", key.c_str());
    text = &value;
  }
  if (text == nullptr) return error(Code::kCorruptFile, "a safetensors file, but no .nsk: its metadata has no key 'netsuke'");
  Json root;
  NETSUKE_TRY(parse_json(text->data(), text->size(), kMaxDepth, &root));
  *out = ProgramInfo();
  return Reader(file, out).read(std::move(root));
}

}  // namespace netsuke
