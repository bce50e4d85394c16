// qconv and qconv_dyadic through the registry: random layers on every instruction set, and everything that must be refused.
#include <limits>

#include "kernels/qgemm/test_op.h"

namespace netsuke {
namespace qgemm {
namespace {

void random_layers(int count) {
  for (Isa isa : testable_isas()) {
    Cases cases(11);
    for (int i = 0; i < count; ++i) {
      Case c = i % 4 == 1 ? cases.square3() : i % 4 == 2 ? cases.depthwise() : cases.random();
      check_op(&c, false, isa, 1 + i % 3);
    }
  }
}

std::vector<float> constant_floats(size_t n, float v) { return std::vector<float>(n, v); }

const char kGood[] = "{\"x_zero\":3,\"acc_bound\":1,\"strides\":[1,1],\"pads\":[0,0,0,0]}";

// 4 channels in, 2 out, 1x1.
std::vector<TestTensor> small() {
  std::vector<TestTensor> in(6);
  in[0] = tensor_of(DType::kU8, {1, 2, 2, 4}, std::vector<uint8_t>(16, 7), false);
  in[1] = tensor_of(DType::kS8, {2, 1, 1, 4}, std::vector<int8_t>(8, 1), true);
  in[2] = tensor_of(DType::kF32, {2}, constant_floats(2, 0.5f), true);
  in[3] = tensor_of(DType::kF32, {2}, constant_floats(2, 1.0f), true);
  return in;
}

void refused_attributes() {
  const std::vector<TestTensor> in = small();
  OpRunner good("qconv", kGood, in, 1, Isa::kPortable, 1);
  CHECK_OK(good.status());
  const auto with = [&](const char* more) { return "{\"acc_bound\":1,\"x_zero\":3,\"strides\":[1,1],\"pads\":[0,0,0,0]," + std::string(more) + "}"; };
  check_refused("qconv", "{\"acc_bound\":1,\"strides\":[1,1],\"pads\":[0,0,0,0]}", in, "x_zero");
  check_refused("qconv", "{\"x_zero\":256,\"acc_bound\":1,\"strides\":[1,1],\"pads\":[0,0,0,0]}", in, "x_zero is 256");
  check_refused("qconv", "{\"x_zero\":3,\"strides\":[1,1],\"pads\":[0,0,0,0]}", in, "acc_bound");
  check_refused("qconv", "{\"x_zero\":3,\"acc_bound\":1,\"strides\":[0,1],\"pads\":[0,0,0,0]}", in, "strides");
  check_refused("qconv", "{\"x_zero\":3,\"acc_bound\":1,\"strides\":[1],\"pads\":[0,0,0,0]}", in, "strides");
  check_refused("qconv", "{\"x_zero\":3,\"acc_bound\":1,\"strides\":[1,1],\"pads\":[0,0,0,-1]}", in, "pads");
  check_refused("qconv", with("\"dilations\":[1,0]"), in, "dilations");
  check_refused("qconv", with("\"groups\":3"), in, "groups is 3");
  check_refused("qconv", with("\"groups\":0"), in, "groups is 0");
  check_refused("qconv", with("\"out\":\"s8\""), in, "out is \"s8\"");
  check_refused("qconv", with("\"zero\":-1"), in, "zero is -1");
  check_refused("qconv", with("\"lo\":9,\"hi\":8"), in, "lo is 9");
  check_refused("qconv", with("\"flo\":0.0"), in, "flo");
  check_refused("qconv", with("\"alpha\":0.0"), in, "alpha");
}

void refused_inputs() {
  std::vector<TestTensor> in = small();
  in[1].constant = false;
  check_refused("qconv", kGood, in, "must be a constant");
  in = small();
  in[1].dtype = DType::kU8;
  check_refused("qconv", kGood, in, "s8 of rank 4");
  in = small();
  in[2] = tensor_of(DType::kF32, {3}, constant_floats(3, 1.0f), true);
  check_refused("qconv", kGood, in, "f32[2]");
  in = small();
  in[2].data<float>()[1] = std::numeric_limits<float>::infinity();
  check_refused("qconv", kGood, in, "channel 1");
  in = small();
  in[3].data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  check_refused("qconv", kGood, in, "must be finite");
  in = small();
  in[4] = tensor_of(DType::kI32, {2}, std::vector<int32_t>{0, std::numeric_limits<int32_t>::min()}, true);
  check_refused("qconv", kGood, in, "channel 1 can reach");
  in = small();
  in[2] = tensor_of(DType::kI32, {2}, std::vector<int32_t>{1 << 30, 5}, true);
  in[3] = tensor_of(DType::kI32, {2}, std::vector<int32_t>{40, 40}, true);
  check_refused("qconv_dyadic", kGood, in, "m = 5");
  in[2].data<int32_t>()[1] = 1 << 30;
  in[3].data<int32_t>()[0] = 63;
  check_refused("qconv_dyadic", kGood, in, "e = 63");
}

void refused_shapes() {
  std::vector<TestTensor> in = small();
  in[0] = tensor_of(DType::kU8, {1, 2, 2, 5}, std::vector<uint8_t>(20, 7), false);
  check_refused("qconv", kGood, in, "[N, H, W, 4]", true);
  in[0] = tensor_of(DType::kF32, {1, 2, 2, 4}, constant_floats(16, 0.0f), false);
  check_refused("qconv", kGood, in, "must be u8", true);
  in = small();
  in[1] = tensor_of(DType::kS8, {2, 3, 3, 4}, std::vector<int8_t>(72, 1), true);
  check_refused("qconv", kGood, in, "spans 3 x 3", true);
  in = small();
  in[5] = tensor_of(DType::kU8, {1, 2, 2, 3}, std::vector<uint8_t>(12, 7), false);
  check_refused("qconv", kGood, in, "residual's shape", true);
  in[5] = tensor_of(DType::kF32, {1, 2, 2, 2}, constant_floats(8, 0.0f), false);
  check_refused("qconv", kGood, in, "residual is f32", true);
  in = small();
  in[0] = tensor_of(DType::kU8, {1, 1, 1, 4}, std::vector<uint8_t>(4, 7), false);
  check_refused("qconv", "{\"x_zero\":3,\"acc_bound\":1,\"strides\":[1,1],\"pads\":[16777216,16777216,16777216,16777216]}", in, "too large", true);
}

}  // namespace
}  // namespace qgemm
}  // namespace netsuke

int main(int argc, char** argv) {
  netsuke::qgemm::random_layers(argc > 1 ? std::atoi(argv[1]) : 80);
  netsuke::qgemm::refused_attributes();
  netsuke::qgemm::refused_inputs();
  netsuke::qgemm::refused_shapes();
  return netsuke::check_result();
}
