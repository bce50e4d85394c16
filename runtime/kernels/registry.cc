// ops.inc read twice: once to declare the factories, once to list them.
#include <algorithm>
#include <cstring>

#include "kernels/op.h"

namespace netsuke {

#define NETSUKE_OP(name, factory) std::unique_ptr<Op> factory();
#include "kernels/ops.inc"
#undef NETSUKE_OP

namespace {

struct Row {
  const char* name;
  OpFactory factory;
};

// The last row keeps the array from being empty while ops.inc is.
const Row kRows[] = {
#define NETSUKE_OP(name, factory) {#name, factory},
#include "kernels/ops.inc"
#undef NETSUKE_OP
    {nullptr, nullptr}};

}  // namespace

OpFactory find_op(const std::string& name) {
  for (const Row* row = kRows; row->name != nullptr; ++row) {
    if (name == row->name) return row->factory;
  }
  return nullptr;
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const Row* row = kRows; row->name != nullptr; ++row) names.push_back(row->name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace netsuke
