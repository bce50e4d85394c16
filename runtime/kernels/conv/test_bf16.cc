// bfloat16 convolutions and linear layers against their definition (docs/numerics.md section 8), and tensors stored as bfloat16: reading them
// and writing them gives the bits of the f32 tensors, rounded.
#include <cmath>
#include <cstdio>
#include <string>

#include "base/check.h"
#include "kernels/base/op_runner.h"
#include "kernels/fgemm/bf16.h"

namespace {

using namespace netsuke;

TestTensor halves_of(const TestTensor& t) {
  TestTensor out(DType::kBF16, t.shape, t.constant);
  for (int64_t i = 0; i < t.size(); ++i) out.data<uint16_t>()[i] = rounded_to_bf16(t.data<float>()[i]);
  return out;
}

struct Layer {
  const char* what;
  const char* op;
  const char* attrs;
  Shape x, w;
};

// Ordinary numbers, or (tiny) numbers whose products fall around 2^-126, where sums are flushed.
TestTensor numbers(TestRandom* random, const Shape& shape, bool tiny, bool constant) {
  TestTensor t = random->floats(shape, constant);
  for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] *= tiny ? std::ldexp(1.0f, -66 + static_cast<int>(random->below(8))) : 1.0f;
  return t;
}

void check_layer(const Layer& layer, bool tiny, uint64_t seed) {
  TestRandom random(seed);
  const TestTensor x = numbers(&random, layer.x, tiny, false), x_halves = halves_of(x);
  std::vector<TestTensor> in = {x, halves_of(numbers(&random, layer.w, tiny, true))};
  if (!tiny) in.push_back(random.floats(make_shape({layer.w.dim[0]}), true));
  std::vector<TestTensor> plain, out;
  CHECK_OK(OpRunner(layer.op, layer.attrs, in, 1, Isa::kPortable, 1)(in, &plain));
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 3}) {
      OpRunner runner(layer.op, layer.attrs, in, 1, isa, threads);
      for (bool stored_x : {false, true}) {
        for (bool stored_y : {false, true}) {
          if ((stored_x && !runner.op().reads_bf16(0)) || (stored_y && !runner.op().writes_bf16())) continue;
          in[0] = stored_x ? x_halves : x;
          runner.store_bf16 = stored_y;
          CHECK_OK(runner(in, &out));
          const bool same = stored_y ? out[0].dtype == DType::kBF16 && halves_of(plain[0]).bytes == out[0].bytes : plain[0].bytes == out[0].bytes;
          if (!CHECK(same)) std::fprintf(stderr, "  %s, %s, stored %d %d, tiny %d\n", layer.what, isa_name(isa), stored_x, stored_y, tiny);
        }
      }
      in[0] = x;
    }
  }
}

// A depthwise layer is the chain of the definition: pairs of one channel and a zero, or of the channels of a group.
void check_depthwise_definition(int64_t group, bool tiny) {
  TestRandom random(77);
  const int64_t c = 12, h = 5, w = 6;
  const TestTensor x = numbers(&random, make_shape({1, h, w, c}), tiny, false), weights = halves_of(numbers(&random, make_shape({c, 3, 3, group}), tiny, true));
  const std::vector<TestTensor> in = {x, weights};
  char attrs[100];
  std::snprintf(attrs, sizeof(attrs), "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"groups\":%d}", static_cast<int>(c / group));
  std::vector<TestTensor> out;
  CHECK_OK(OpRunner("conv", attrs, in, 1, best_isa(), 2)(in, &out));
  int64_t bad = 0, zeros = 0;
  for (int64_t i = 0; i < out[0].size(); ++i) {
    const int64_t o = i % c, ox = i / c % w, oy = i / c / w;
    float acc = 0;
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t iy = oy - 1 + t / 3, ix = ox - 1 + t % 3;
      if (iy < 0 || iy >= h || ix < 0 || ix >= w) continue;
      for (int64_t j = 0; j < group; j += 2) {
        const float* pixel = x.data<float>() + (iy * w + ix) * c + o / group * group + j;
        const uint16_t* pair = weights.data<uint16_t>() + (o * 9 + t) * group + j;
        const uint32_t a = rounded_to_bf16(pixel[0]) | (group > 1 ? static_cast<uint32_t>(rounded_to_bf16(pixel[1])) << 16 : 0);
        const uint32_t b = pair[0] | (group > 1 ? static_cast<uint32_t>(pair[1]) << 16 : 0);
        acc = bf16_multiply_add(a, b, acc);
      }
    }
    zeros += acc == 0;
    bad += std::memcmp(&acc, out[0].data<float>() + i, 4) != 0;
  }
  CHECK(bad == 0);
  CHECK((zeros > 0) == tiny);  // some sums were flushed, or none
}

}  // namespace

int main() {
  const Layer layers[] = {
      {"3x3", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1]}", make_shape({1, 7, 8, 70}), make_shape({34, 3, 3, 70})},
      {"K cut in blocks", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"act\":\"relu\"}", make_shape({1, 9, 9, 600}), make_shape({40, 3, 3, 600})},
      {"1x1, clip", "conv", "{\"strides\":[1,1],\"pads\":[0,0,0,0],\"act\":\"clip\",\"alpha\":0.0,\"beta\":0.5}", make_shape({2, 11, 9, 24}), make_shape({98, 1, 1, 24})},
      {"few channels, merged", "conv", "{\"strides\":[2,2],\"pads\":[3,3,3,3]}", make_shape({1, 13, 14, 4}), make_shape({20, 7, 7, 4})},
      {"odd channels", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1]}", make_shape({1, 6, 6, 7}), make_shape({9, 3, 3, 7})},
      {"groups", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"groups\":3}", make_shape({1, 6, 6, 24}), make_shape({30, 3, 3, 8})},
      {"gelu", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"act\":\"gelu\"}", make_shape({1, 6, 6, 24}), make_shape({72, 3, 3, 24})},
      {"depthwise", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"groups\":40,\"act\":\"relu\"}", make_shape({2, 9, 10, 40}), make_shape({40, 3, 3, 1})},
      {"depthwise, stride 2, odd", "conv", "{\"strides\":[2,2],\"pads\":[0,0,1,1],\"groups\":37}", make_shape({1, 10, 11, 37}), make_shape({37, 3, 3, 1})},
      {"depthwise 5x5, silu", "conv", "{\"strides\":[1,1],\"pads\":[2,2,2,2],\"groups\":20,\"act\":\"silu\"}", make_shape({1, 7, 7, 20}), make_shape({20, 5, 5, 1})},
      {"groups of 4", "conv", "{\"strides\":[1,1],\"pads\":[1,1,1,1],\"groups\":6}", make_shape({1, 6, 7, 24}), make_shape({24, 3, 3, 4})},
      {"linear", "linear", "{}", make_shape({50, 130}), make_shape({70, 130})},
      {"linear, long rows, gelu", "linear", "{\"act\":\"gelu\"}", make_shape({3, 40, 2500}), make_shape({96, 2500})},
  };
  uint64_t seed = 1;
  for (const Layer& layer : layers) {
    for (bool tiny : {false, true}) check_layer(layer, tiny, seed++);
  }
  for (int64_t group : {1, 2, 4}) {
    for (bool tiny : {false, true}) check_depthwise_definition(group, tiny);
  }
  return check_result();
}
