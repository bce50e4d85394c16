#include "kernels/qmatmul/qmatmul.h"

namespace netsuke {

void qmatmul_reference(const QMatmulShape& shape, const QMatmulParams& params, const uint8_t* a, const uint8_t* b, void* c) {
  for (int64_t matrix = 0; matrix < shape.batch; ++matrix) {
    int64_t a_matrix = 0, b_matrix = 0;
    qmatmul_batch(shape, matrix, &a_matrix, &b_matrix);
    for (int64_t m = 0; m < shape.m; ++m) {
      for (int64_t n = 0; n < shape.n; ++n) {
        int32_t acc = 0;
        for (int64_t k = 0; k < shape.k; ++k) {
          const int32_t av = a[(a_matrix * shape.m + m) * shape.k + k];
          const int32_t bv = b[b_matrix * shape.k * shape.n + (shape.transposed ? n * shape.k + k : k * shape.n + n)];
          acc += (av - params.a_zero) * (bv - params.b_zero);
        }
        const float t = static_cast<float>(acc) * params.mult;
        const int64_t at = (matrix * shape.m + m) * shape.n + n;
        if (params.f32_out) static_cast<float*>(c)[at] = t;
        else static_cast<uint8_t*>(c)[at] = requantize_one(t, params.codes);
      }
    }
  }
}

}  // namespace netsuke
