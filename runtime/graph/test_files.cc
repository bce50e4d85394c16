// JSON, safetensors and program text: what is accepted, and that everything else is refused with a sentence.
#include <cmath>
#include <string>

#include "base/check.h"
#include "graph/engine.h"
#include "graph/json.h"
#include "graph/sample.h"

namespace netsuke {
namespace {

Status parse(const std::string& text, Json* out = nullptr) {
  Json unused;
  return parse_json(text.data(), text.size(), 8, out == nullptr ? &unused : out);
}

void test_json_accepts() {
  Json json;
  CHECK_OK(parse(R"( {"a":[1,-2.5e3,true,null,"x\u00e9\ud83d\ude00\n"],"b":{}} )", &json));
  CHECK(json.keys.size() == 2 && json.find("b") != nullptr && json.find("c") == nullptr);
  const Json& list = *json.find("a");
  CHECK(list.items.size() == 5 && list.items[0].integer == 1 && list.items[1].number == -2500);
  CHECK(list.items[4].text == "x\xc3\xa9\xf0\x9f\x98\x80\n");
  CHECK_OK(parse("9223372036854775807", &json));
  CHECK(json.integer == INT64_MAX);
  CHECK_OK(parse("-0.0", &json));
  CHECK(json.is(Json::Kind::kFloat) && std::signbit(json.number));
  CHECK_OK(parse("[[[[[[[1]]]]]]]"));
}

void test_json_refuses() {
  for (const char* text :
       {"", " ", "{", "[1,]", "[1 2]", "{\"a\":1,}", "{\"a\"}", "{a:1}", "{\"a\":1 \"b\":2}", "01", "-", "1.", ".5", "1e", "+1", "NaN",
        "Infinity", "1e999", "9223372036854775808", "tru", "nul", "'a'", "\"\\x\"", "\"\\u12g4\"", "\"\\u-123\"", "\"\\ud800\"",
        "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"a", "\"a\nb\"", "{\"a\":1,\"a\":2}", "1 2", "[[[[[[[[1]]]]]]]]", "\"\xff\"", "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xe2\x82\"", "\x7b\x7d\x01"}) {
    CHECK(parse(text).code() == Code::kCorruptFile);
  }
  std::string many = "{";
  for (int i = 0; i < 100; ++i) many += "\"k" + std::to_string(i % 60) + "\":1,";
  CHECK(parse(many + "\"z\":1}").message().find("twice") != std::string::npos);
  CHECK(!parse(std::string(1 << 20, '[')).ok());  // deep nesting is refused, not a crash
}

Status load(const std::string& file, std::unique_ptr<Engine>* out = nullptr) {
  std::unique_ptr<Engine> unused;
  return Engine::load_bytes(file.data(), file.size(), EngineOptions{1, "", 1 << 20}, out == nullptr ? &unused : out);
}

void refused(const std::string& file, const char* because) {
  const Status status = load(file);
  CHECK(!status.ok());
  if (!CHECK(status.message().find(because) != std::string::npos)) {
    std::fprintf(stderr, "  wanted '%s', got '%s'\n", because, status.message().c_str());
  }
}

const std::string kIn = sample_port("x", "f32", "[\"N\",2]");
const std::string kOut = sample_port("y", "f32", "[\"N\",2]");
const std::string kNode = sample_node("identity", "[\"x\"]", "[\"y\"]");

void test_containers() {
  CHECK_OK(load(sample_file(sample_program(kIn, kOut, kNode))));
  refused("", "0 bytes");
  refused("abc", "3 bytes");
  refused(std::string(8, '\xff'), "cut short");
  refused(with_header("", ""), "no safetensors header");
  refused(with_header("[]", ""), "no safetensors header");
  refused(with_header("{}", ""), "no .nsk");
  refused(with_header("{}", "x"), "bytes after the last tensor");
  const auto tensor = [](const std::string& entry, const std::string& data) { return with_header("{\"w\":" + entry + "}", data); };
  refused(tensor("5", ""), "not an object");
  refused(tensor(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})", "01234567"), "dtype 'F64'");
  refused(tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", "0123"), "do not fit");
  refused(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,400]})", "0123"), "outside the file");
  refused(tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", "0123"), "outside the file");
  refused(tensor(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", "0123"), "non-negative");
  refused(tensor(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})", ""), "overflows");
  refused(tensor(R"({"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]})", ""), "overflows");
  refused(tensor(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})", "0123"), "more than 8");
  refused(tensor(R"({"dtype":"BOOL","shape":[2],"data_offsets":[0,2]})", std::string("\x01\x02", 2)), "neither 0 nor 1");
  refused(with_header(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                      "abc"), "overlaps");
  refused(with_header(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                      "abc"), "a hole");
  refused(with_header(R"({"__metadata__":{"format":"pt"}})", ""), "unknown metadata key");
}

void test_programs() {
  const auto program = [](const std::string& in, const std::string& out, const std::string& nodes, const std::string& values = "{}") {
    return sample_file(sample_program(in, out, nodes, values));
  };
  refused(sample_file("{\"format\":\"other\",\"version\":1}"), "netsuke-program");
  refused(sample_file("{\"format\":\"netsuke-program\",\"version\":2}"), "version 2");
  refused(sample_file("{\"format\":\"netsuke-program\",\"version\":1,\"extra\":0}"), "unknown key 'extra'");
  refused(program(kIn + "," + kIn, kOut, kNode), "defined twice");
  refused(program(kIn, kOut + "," + kOut, kNode), "listed twice");
  refused(program(kIn, "", kNode), "is empty");
  refused(program(kIn, sample_port("x", "f32", "[]"), kNode), "not the output of a node");
  refused(program(sample_port("x", "bf16", "[2]"), kOut, kNode), "dtype is none of");
  refused(program(sample_port("x", "f32", "[-2]"), kOut, kNode), "negative dimension");
  refused(program(sample_port("x", "f32", "[\"\"]"), kOut, kNode), "1 to 1,024");
  refused(program(sample_port("x", "f32", "[1,1,1,1,1,1,1,1,1]"), kOut, kNode), "more than 8");
  refused(program(kIn, kOut, kNode + "," + kNode), "another node has this name");
  refused(program(kIn, kOut, sample_node("identity", "[\"z\"]", "[\"y\"]")), "no input, constant or output of an earlier node");
  refused(program(kIn, kOut, sample_node("identity", "[\"y\"]", "[\"y\"]")), "no input, constant or output of an earlier node");
  refused(program(kIn, kOut, sample_node("identity", "[\"x\"]", "[\"x\"]")), "defined twice");
  refused(program(kIn, kOut, sample_node("identity", "[\"x\"]", "[]")), "'out'");
  refused(program(kIn, kOut, sample_node("identity", "[]", "[\"y\"]")), "0 inputs, expected 1");
  refused(program(kIn, kOut, sample_node("identity", "[\"\"]", "[\"y\"]")), "input 0 is missing");
  refused(program(kIn, kOut, sample_node("identity", "[\"x\"]", "[\"y\"]", "{\"axis\":1}")), "unknown attributes: axis");
  refused(program(kIn, kOut, sample_node("identity", "[\"x\"]", "[\"y\"]", "{\"a\":true}")), "attribute 'a' is a boolean");
  refused(program(kIn, kOut, sample_node("identity", "[\"x\"]", "[\"y\"]", "{\"a\":1e300}")), "beyond f32");
  refused(program(kIn, kOut, sample_node("transpose", "[\"x\"]", "[\"y\"]")), "attribute 'perm' is missing");
  refused(program(kIn, kOut, sample_node("transpose", "[\"x\"]", "[\"y\"]", "{\"perm\":[0.5]}")), "expected a list of integers");
  refused(program(kIn, kOut, sample_node("transpose", "[\"x\"]", "[\"y\"]", "{\"perm\":[0,0]}")), "no permutation");
  refused(program(kIn, kOut, kNode, "{\"q\":{\"dtype\":\"f32\"}}"), "not the output of a node");
  refused(program(kIn, kOut, kNode, "{\"y\":{\"dtype\":\"f16\"}}"), "unknown dtype");
  refused(program(kIn, kOut, kNode, "{\"y\":{\"dtype\":\"f32\",\"scale\":0}}"), "not positive");
  refused(sample_file(sample_program(kIn, kOut, kNode), {{"w", "U8", "[1]", "a"}}), "no node uses it");
  const Status two = load(program(kIn, kOut, sample_node("nonsense", "[\"x\"]", "[\"z\"]") + "," + sample_node("absurd", "[\"z\"]", "[\"y\"]")));
  CHECK(two.message().find("nonsense") != std::string::npos && two.message().find("absurd") != std::string::npos);  // all at once
  const std::string good = sample_file(sample_program(kIn, kOut, kNode));
  for (size_t cut = 0; cut < good.size(); cut += 7) CHECK(!load(good.substr(0, cut)).ok());
}

void test_packed() {
  CHECK_OK(load(sample_packed()));
  CHECK_OK(load(sample_forms()));
  const std::string node = sample_node("qlinear", "[\"x\",\"w\",\"m\",\"\",\"\",\"\"]", "[\"y\"]", "{\"acc_bound\":1000,\"out\":\"f32\",\"x_zero\":0}");
  const auto file = [&](const std::string& packed, const std::string& data, const char* dtype = "U8") {
    const std::string program = sample_program(sample_port("x", "u8", "[\"N\",3]"), sample_port("y", "f32", "[\"N\",1]"), node, "{}", packed);
    return sample_file(program, {{"m", "F32", "[1]", bytes_of<float>({1})}, {"w", dtype, "[" + std::to_string(data.size()) + "]", data}});
  };
  const std::string two = std::string(1, 0x1d);  // 1, -1, 1 at 2 bits
  const auto form = [](const char* bits, const char* shape, const char* dtype = "s8") {
    return std::string("{\"w\":{\"bits\":") + bits + ",\"dtype\":\"" + dtype + "\",\"shape\":" + shape + "}}";
  };
  CHECK_OK(load(file(form("2", "[1,3]"), two)));
  refused(file(form("2", "[1,3]"), std::string(1, 0x5d)), "unused bit");
  refused(file(form("2", "[1,3]"), two + two), "1 bytes");
  refused(file(form("3", "[1,3]"), two), "2 bytes");
  refused(file(form("2", "[1,3]"), two, "I8"), "(U8)");
  for (const char* bits : {"0", "7", "8", "-1", "2.0", "null"}) refused(file(form(bits, "[1,3]"), two), "none of 1 to 6");
  refused(file(form("2", "[1,3]", "f32"), two), "neither s8 nor u8");
  refused(file(form("2", "[1,3]", "u8"), two), "weights are u8");
  refused(file(form("2", "[1,-3]"), two), "non-negative");
  refused(file(form("2", "[4611686018427387904,4]"), two), "too large");
  refused(file(form("2", "[0,4611686018427387904,4]"), two), "too large");
  refused(file(form("2", "3"), two), "not a list");
  refused(file("{\"w\":{\"bits\":2,\"shape\":[1,3]}}", two), "dtype");
  refused(file("{\"q\":{\"bits\":2,\"dtype\":\"s8\",\"shape\":[1,3]}}", two), "not a tensor of the file");
  refused(file("{\"x\":{\"bits\":2,\"dtype\":\"s8\",\"shape\":[1,3]}}", two), "not a tensor of the file");
  refused(file("[]", two), "not an object");
  const auto named = [](const char* name, const char* shape, const char* dtype = "s8") {
    return std::string("{\"w\":{\"form\":\"") + name + "\",\"dtype\":\"" + dtype + "\",\"shape\":" + shape + "}}";
  };
  const std::string trits = std::string(1, 23);  // 1, 0, 1
  CHECK_OK(load(file(named("ternary", "[1,3]"), trits)));
  refused(file(named("ternary", "[1,3]"), std::string(1, 27)), "no five ternary codes");
  refused(file(named("ternary", "[1,3]"), trits + trits), "not five a byte");
  refused(file(named("ternary", "[1,3]", "u8"), trits), "s8 codes");
  refused(file(named("ternary", "[1,3]"), trits, "I8"), "(U8)");
  refused(file(named("golden", "[1,3]"), trits), "neither ternary nor salient");
  const std::string salient = {2, 5, 0x02, 0x01, '\xf7'};  // 5, -9, 2
  CHECK_OK(load(file(named("salient", "[1,3]"), salient)));
  refused(file(named("salient", "[1,3]"), salient + salient), "do not fill");
  refused(file(named("salient", "[1,3]"), salient.substr(0, 2)), "cut short");
  refused(file(named("salient", "[]"), salient), "needs rows");
  refused(file(named("salient", "[0,3]"), salient), "needs rows");
}

void test_tables() {
  CHECK_OK(load(sample_tables()));
  const std::string node = sample_node("qlinear", "[\"x\",\"w\",\"m\",\"\",\"\",\"\"]", "[\"y\"]", "{\"acc_bound\":1000,\"out\":\"f32\",\"x_zero\":0}");
  const auto file = [&](const std::string& form, const std::string& data) {
    const std::string packed = "{\"w\":{" + form + "}}";
    const std::string program = sample_program(sample_port("x", "u8", "[\"N\",4]"), sample_port("y", "f32", "[\"N\",1]"), node, "{}", packed);
    return sample_file(program, {{"m", "F32", "[1]", bytes_of<float>({1})}, {"w", "U8", "[" + std::to_string(data.size()) + "]", data}});
  };
  const auto form = [](const char* bits, const char* entries, const char* dtype = "s8") {
    return std::string("\"bits\":") + bits + ",\"dtype\":\"" + dtype + "\",\"entries\":" + entries + ",\"shape\":[1,4]";
  };
  const std::string three = std::string("\x05\x07\xf9", 3) + std::string(1, 0x24);  // 0 1 2 0 of 5, 7, -7
  CHECK_OK(load(file(form("2", "[3,1]"), three)));
  CHECK_OK(load(file(form("2", "[3,2]"), std::string("\1\2\3\4\5\6", 6) + std::string(1, 0x09))));
  refused(file(form("2", "[3,1]"), std::string("\x05\x07\xf9", 3) + std::string(1, 0x34)), "points behind");
  refused(file(form("2", "[3,2]"), std::string("\1\2\3\4\5\6", 6) + std::string(1, 0x19)), "unused bit");
  refused(file(form("2", "[3,3]"), three), "whole vectors");
  refused(file(form("2", "[3,1]"), three + "a"), "4 bytes");
  refused(file(form("2", "[3,1]", "f32"), three), "13 bytes");
  refused(file(form("3", "[3,1]"), three), "fewest");
  refused(file(form("2", "[2,1]"), three), "fewest");
  for (const char* table : {"[1,1]", "[257,1]", "[-3,1]"}) refused(file(form("2", table), three), "2 to 256");
  for (const char* table : {"[3,0]", "[3,65]", "[3,9223372036854775807]"}) refused(file(form("2", table), three), "1 to 64");
  for (const char* table : {"3", "[3]", "[3,1,1]", "[3,1.0]", "null"}) refused(file(form("2", table), three), "list of two");
  refused(file(form("2", "[3,1]", "i32"), three), "neither s8 nor u8");
}

void test_missing_files() {
  std::unique_ptr<Engine> engine;
  CHECK(Engine::load_file("/nonexistent/model.nsk", {}, &engine).message().find("cannot open") != std::string::npos);
  CHECK(Engine::load_file("/", {}, &engine).message().find("not a regular file") != std::string::npos);
  CHECK(engine == nullptr);
}

}  // namespace
}  // namespace netsuke

int main() {
  netsuke::test_json_accepts();
  netsuke::test_json_refuses();
  netsuke::test_containers();
  netsuke::test_programs();
  netsuke::test_packed();
  netsuke::test_tables();
  netsuke::test_missing_files();
  return netsuke::check_result();
}
