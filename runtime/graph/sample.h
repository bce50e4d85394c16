// Small .nsk files made in memory, for tests and the fuzzer.
#ifndef NETSUKE_GRAPH_SAMPLE_H_
#define NETSUKE_GRAPH_SAMPLE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace netsuke {

struct SampleTensor {
  std::string name, dtype, shape;  // "F32", "[2,3]"
  std::string bytes;
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

inline std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

inline std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i));
  return out + header + data;
}

inline std::string sample_file(const std::string& program, const std::vector<SampleTensor>& tensors = {}) {
  std::string header = "{\"__metadata__\":{\"netsuke\":" + json_string(program) + "}", data;
  for (const SampleTensor& tensor : tensors) {
    header += "," + json_string(tensor.name) + ":{\"dtype\":\"" + tensor.dtype + "\",\"shape\":" + tensor.shape +
              ",\"data_offsets\":[" + std::to_string(data.size()) + "," + std::to_string(data.size() + tensor.bytes.size()) + "]}";
    data += tensor.bytes;
  }
  header += "}";
  while ((header.size() + 8) % 64 != 0) header += ' ';
  return with_header(header, data);
}

inline std::string sample_program(const std::string& inputs, const std::string& outputs, const std::string& nodes,
                                  const std::string& values = "{}", const std::string& packed = "") {
  return "{\"format\":\"netsuke-program\",\"version\":1,\"producer\":\"test\",\"name\":\"sample\",\"inputs\":[" + inputs +
         "],\"outputs\":[" + outputs + "],\"nodes\":[" + nodes + "],\"values\":" + values +
         (packed.empty() ? "" : ",\"packed\":" + packed) + ",\"plan\":\"\",\"meta\":{}}";
}

inline std::string sample_port(const std::string& name, const std::string& dtype, const std::string& shape) {
  return "{\"name\":\"" + name + "\",\"dtype\":\"" + dtype + "\",\"shape\":" + shape + "}";
}

inline std::string sample_node(const std::string& op, const std::string& in, const std::string& out, const std::string& attrs = "{}") {
  const std::string name = op + " " + out;
  return "{\"op\":\"" + op + "\",\"name\":" + json_string(name) + ",\"in\":" + in + ",\"out\":" + out + ",\"attrs\":" + attrs + "}";
}

// Movement, shapes computed at plan time, views, two outputs, free dimensions: everything the loader and the planner do.
inline std::string sample_movement() {
  std::string nodes;
  const auto add = [&](const std::string& node) { nodes += (nodes.empty() ? "" : ",") + node; };
  add(sample_node("transpose", "[\"x\"]", "[\"t\"]", "{\"perm\":[0,2,3,1]}"));
  add(sample_node("shape", "[\"t\"]", "[\"s\"]"));
  add(sample_node("slice", "[\"s\",\"zero\",\"one\",\"\",\"\"]", "[\"n\"]"));
  add(sample_node("concat", "[\"n\",\"minus\"]", "[\"flat\"]", "{\"axis\":0}"));
  add(sample_node("reshape", "[\"t\",\"flat\"]", "[\"r\"]"));
  add(sample_node("concat", "[\"r\",\"r\"]", "[\"c\"]", "{\"axis\":1}"));
  add(sample_node("split", "[\"c\",\"\"]", "[\"a\",\"b\"]", "{\"axis\":1}"));
  add(sample_node("pad", "[\"t\",\"pads\",\"\"]", "[\"p\"]", "{\"mode\":\"edge\"}"));
  add(sample_node("gather", "[\"p\",\"index\"]", "[\"g\"]", "{\"axis\":3}"));
  const std::string inputs = sample_port("x", "f32", "[\"N\",2,\"H\",3]");
  const std::string outputs = sample_port("a", "f32", "[\"N\",\"K\"]") + "," + sample_port("b", "f32", "[\"N\",\"L\"]") + "," +
                              sample_port("g", "f32", "[\"N\",\"A\",\"B\",2]");
  const std::string values = "{\"t\":{\"dtype\":\"f32\",\"source\":\"nhwc\"},\"s\":{\"dtype\":\"i64\"}}";
  return sample_file(sample_program(inputs, outputs, nodes, values),
                     {{"index", "I64", "[2]", bytes_of<int64_t>({1, -2})},
                      {"minus", "I64", "[1]", bytes_of<int64_t>({-1})},
                      {"one", "I64", "[1]", bytes_of<int64_t>({1})},
                      {"pads", "I64", "[8]", bytes_of<int64_t>({0, 1, 0, 0, 0, 0, 2, 0})},
                      {"zero", "I64", "[1]", bytes_of<int64_t>({0})}});
}

// A small quantized network: quantize, a convolution with a fused residual, a table, a linear layer, dequantize.
inline std::string sample_quantized() {
  std::string nodes;
  const auto add = [&](const std::string& node) { nodes += (nodes.empty() ? "" : ",") + node; };
  add(sample_node("quantize", "[\"x\"]", "[\"q\"]", "{\"scale\":0.1,\"zero\":128}"));
  add(sample_node("qconv", "[\"q\",\"w\",\"mult\",\"bias\",\"\",\"q\"]", "[\"c\"]",
                  "{\"acc_bound\":1000000,\"dilations\":[1,1],\"groups\":1,\"hi\":200,\"lo\":10,\"out\":\"u8\",\"pads\":[1,1,1,1],"
                  "\"r_mult\":0.5,\"r_zero\":128,\"strides\":[1,1],\"x_zero\":128,\"zero\":10}"));
  add(sample_node("lut", "[\"c\",\"table\"]", "[\"l\"]"));
  add(sample_node("reshape", "[\"l\",\"flat\"]", "[\"f\"]"));
  add(sample_node("qlinear", "[\"f\",\"v\",\"mult\",\"\",\"acc\",\"\"]", "[\"y\"]",
                  "{\"acc_bound\":1000000,\"out\":\"f32\",\"x_zero\":3}"));
  std::vector<int8_t> w, v;
  std::vector<uint8_t> table;
  for (int i = 0; i < 4 * 9 * 4; ++i) w.push_back(static_cast<int8_t>(i * 37 % 255 - 127));
  for (int i = 0; i < 4 * 64; ++i) v.push_back(static_cast<int8_t>(i * 91 % 255 - 127));
  for (int i = 0; i < 256; ++i) table.push_back(static_cast<uint8_t>(255 - i));
  return sample_file(sample_program(sample_port("x", "f32", "[\"N\",4,4,4]"), sample_port("y", "f32", "[\"N\",4]"), nodes,
                                    "{\"c\":{\"dtype\":\"u8\",\"scale\":0.2,\"zero\":10},\"y\":{\"dtype\":\"f32\"}}"),
                     {{"flat", "I64", "[2]", bytes_of<int64_t>({0, -1})},
                      {"acc", "I32", "[4]", bytes_of<int32_t>({1, -2, 3, -4})},
                      {"bias", "F32", "[4]", bytes_of<float>({0.5f, -1, 2, 0})},
                      {"mult", "F32", "[4]", bytes_of<float>({0.01f, 0.02f, 0.005f, 0.03f})},
                      {"table", "U8", "[256]", bytes_of(table)},
                      {"v", "I8", "[4,64]", bytes_of(v)},
                      {"w", "I8", "[4,3,3,4]", bytes_of(w)}});
}

// Weights at 3 bits and at 1 bit, the second of which two layers share.
inline std::string sample_packed() {
  std::string nodes = sample_node("qlinear", "[\"x\",\"w\",\"mult\",\"\",\"\",\"\"]", "[\"h\"]", "{\"acc_bound\":1000000,\"x_zero\":3}");
  for (const char* out : {"[\"y\"]", "[\"z\"]"}) {
    nodes += "," + sample_node("qlinear", "[\"h\",\"v\",\"mult\",\"\",\"\",\"\"]", out, "{\"acc_bound\":1000000,\"out\":\"f32\",\"x_zero\":3}");
  }
  std::vector<uint8_t> w(4 * 7 * 3 / 8 + 1), v(2);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<uint8_t>(i * 89 + 7);
  w.back() &= 15;  // 84 bits
  v = {0x5c, 0xa1};
  return sample_file(sample_program(sample_port("x", "u8", "[\"N\",7]"), sample_port("y", "f32", "[\"N\",4]") + "," + sample_port("z", "f32", "[\"N\",4]"),
                                    nodes, "{}", "{\"v\":{\"bits\":1,\"dtype\":\"s8\",\"shape\":[4,4]},\"w\":{\"bits\":3,\"dtype\":\"s8\",\"shape\":[4,7]}}"),
                     {{"mult", "F32", "[4]", bytes_of<float>({0.01f, 0.02f, 0.005f, 0.03f})},
                      {"v", "U8", "[2]", bytes_of(v)},
                      {"w", "U8", "[11]", bytes_of(w)}});
}

// Weights as indices: five entries of two s8 codes, three of one f32.
inline std::string sample_tables() {
  const std::string nodes = sample_node("qlinear", "[\"x\",\"w\",\"mult\",\"\",\"\",\"\"]", "[\"h\"]",
                                        "{\"acc_bound\":1000000,\"out\":\"f32\",\"x_zero\":3}") +
                            "," + sample_node("linear", "[\"h\",\"v\",\"\",\"\"]", "[\"y\"]");
  const std::vector<uint8_t> w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 250, 0x88, 0x46, 0x44, 0x23, 0x02};  // 12 indices of 3 bits
  std::string v = bytes_of<float>({0.5f, -1, 2});
  v += "$$$$";  // 16 indices of 2 bits
  return sample_file(sample_program(sample_port("x", "u8", "[\"N\",6]"), sample_port("y", "f32", "[\"N\",4]"), nodes, "{}",
                                    "{\"v\":{\"bits\":2,\"dtype\":\"f32\",\"entries\":[3,1],\"shape\":[4,4]},"
                                    "\"w\":{\"bits\":3,\"dtype\":\"s8\",\"entries\":[5,2],\"shape\":[4,6]}}"),
                     {{"mult", "F32", "[4]", bytes_of<float>({0.01f, 0.02f, 0.005f, 0.03f})},
                      {"v", "U8", "[16]", v},
                      {"w", "U8", "[15]", bytes_of(w)}});
}

// The named forms of packed constants: ternary w, salient v.
inline std::string sample_forms() {
  std::string nodes = sample_node("qlinear", "[\"x\",\"w\",\"mult\",\"\",\"\",\"\"]", "[\"h\"]", "{\"acc_bound\":1000000,\"x_zero\":3}");
  nodes += "," + sample_node("qlinear", "[\"h\",\"v\",\"mult\",\"\",\"\",\"\"]", "[\"y\"]", "{\"acc_bound\":1000000,\"out\":\"f32\",\"x_zero\":3}");
  const std::vector<uint8_t> w = {7, 242, 100, 11};
  const std::vector<uint8_t> v = {0xf0, 0x10, 0xfe, 0x02, 0x06, 0x02, 0x91, 0x7f};
  return sample_file(sample_program(sample_port("x", "u8", "[\"N\",9]"), sample_port("y", "f32", "[\"N\",2]"), nodes, "{}",
                                    "{\"v\":{\"dtype\":\"s8\",\"form\":\"salient\",\"shape\":[2,2]},\"w\":{\"dtype\":\"s8\",\"form\":\"ternary\",\"shape\":[2,9]}}"),
                     {{"mult", "F32", "[2]", bytes_of<float>({0.01f, 0.02f})}, {"v", "U8", "[8]", bytes_of(v)}, {"w", "U8", "[4]", bytes_of(w)}});
}

}  // namespace netsuke

#endif  // NETSUKE_GRAPH_SAMPLE_H_
