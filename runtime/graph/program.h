// The program of a .nsk file, read and checked against docs/format.md, section 1. Names become numbers here.
#ifndef NETSUKE_GRAPH_PROGRAM_H_
#define NETSUKE_GRAPH_PROGRAM_H_

#include <string>
#include <vector>

#include "formats/packing.h"
#include "graph/json.h"
#include "graph/safetensors.h"

namespace netsuke {

// A dimension of a port: fixed, or free under a name.
struct Dim {
  int64_t size = -1;  // -1: free
  std::string name;
};

struct Port {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<Dim> dims;
  int value = -1;
};

enum class ValueKind : uint8_t { kInput, kConstant, kNode };

struct ValueInfo {
  std::string name;
  ValueKind kind = ValueKind::kNode;
  int index = 0;  // of the input, constant or node that makes it
  bool declared = false;  // listed in "values"
  DType dtype = DType::kF32;
  bool quantized = false;
  float scale = 0;
  int64_t zero = 0;
  std::string source;
};

struct NodeInfo {
  std::string op, name;
  std::vector<int> in;   // value numbers, -1 for an absent optional input
  std::vector<int> out;
  Json attrs;
};

// A constant that the file holds packed: codes of fewer than 8 bits, or with entries > 0 a table of that many vectors of
// `length` elements followed by an index of `bits` bits for each vector, or codes in a form with a name, whose `bits` are the
// width of the codes and whose bytes depend on them. bits 0: not packed.
struct PackedInfo {
  int bits = 0;
  DType dtype = DType::kS8;  // s8 or u8; f32 too with a table
  Shape shape;
  int64_t entries = 0, length = 1;
  NamedForm form = NamedForm::kNone;
  int64_t form_bytes = 0;

  int64_t table_bytes() const { return entries * length * static_cast<int64_t>(dtype_size(dtype)); }
  int64_t bytes() const { return form != NamedForm::kNone ? form_bytes : table_bytes() + packed_size(shape.elements() / length, bits); }  // in the file
};

struct ProgramInfo {
  std::string name, producer, plan;
  std::vector<std::pair<std::string, std::string>> meta;
  std::vector<Port> inputs, outputs;
  std::vector<NodeInfo> nodes;
  std::vector<PackedInfo> packed;  // by constant
  std::vector<ValueInfo> values;  // inputs, then constants, then node outputs in order
};

// `tensors` are the constants of the file. Node attributes are moved out of the JSON.
Status read_program(const SafeTensors& file, ProgramInfo* out);

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_PROGRAM_H_
