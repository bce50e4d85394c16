// lstm and gru against the ONNX definition in double, all directions and options; bits equal on every instruction set.
#include <cmath>
#include <cstdio>

#include "base/check.h"
#include "kernels/base/op_runner.h"

namespace {

using namespace netsuke;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Case {
  bool lstm;
  int64_t steps, batch, input, hidden;
  const char* direction;
  bool bias, h0, c0, reset_after;
};

// One direction, in double. y [T, B, H].
void plain(const Case& c, int64_t d, const std::vector<TestTensor>& in, std::vector<double>* y, std::vector<double>* h, std::vector<double>* cell) {
  const int64_t gates = c.lstm ? 4 : 3, rows = gates * c.hidden;
  const float *x = in[0].data<float>(), *w = in[1].data<float>() + d * rows * c.input, *r = in[2].data<float>() + d * rows * c.hidden;
  const auto bias = [&](int64_t i) { return c.bias ? (double)in[3].data<float>()[d * 2 * rows + i] : 0.0; };
  h->assign(static_cast<size_t>(c.batch * c.hidden), 0);
  cell->assign(h->size(), 0);
  for (size_t i = 0; i < h->size(); ++i) {
    if (c.h0) (*h)[i] = in[5].data<float>()[static_cast<size_t>(d) * h->size() + i];
    if (c.lstm && c.c0) (*cell)[i] = in[6].data<float>()[static_cast<size_t>(d) * h->size() + i];
  }
  y->assign(static_cast<size_t>(c.steps) * h->size(), 0);
  const bool backwards = std::string(c.direction) == "reverse" || d == 1;
  for (int64_t step = 0; step < c.steps; ++step) {
    const int64_t t = backwards ? c.steps - 1 - step : step;
    const std::vector<double> before = *h;
    for (int64_t b = 0; b < c.batch; ++b) {
      const double* hb = before.data() + b * c.hidden;
      const auto of_x = [&](int64_t row) {
        double sum = bias(row);
        for (int64_t k = 0; k < c.input; ++k) sum += (double)x[(t * c.batch + b) * c.input + k] * w[row * c.input + k];
        return sum;
      };
      const auto of_h = [&](int64_t row, const std::vector<double>* scale) {
        double sum = bias(rows + row);
        for (int64_t k = 0; k < c.hidden; ++k) sum += hb[k] * (scale ? (*scale)[static_cast<size_t>(k)] : 1.0) * r[row * c.hidden + k];
        return sum;
      };
      std::vector<double> reset;
      for (int64_t j = 0; !c.lstm && j < c.hidden; ++j) reset.push_back(sigmoid(of_x(c.hidden + j) + of_h(c.hidden + j, nullptr)));
      for (int64_t j = 0; j < c.hidden; ++j) {
        const size_t at = static_cast<size_t>(b * c.hidden + j);
        double value;
        if (c.lstm) {
          const auto gate = [&](int64_t g) { return of_x(g * c.hidden + j) + of_h(g * c.hidden + j, nullptr); };
          (*cell)[at] = sigmoid(gate(2)) * (*cell)[at] + sigmoid(gate(0)) * std::tanh(gate(3));
          value = sigmoid(gate(1)) * std::tanh((*cell)[at]);
        } else {
          const double z = sigmoid(of_x(j) + of_h(j, nullptr));
          const int64_t row = 2 * c.hidden + j;
          const double state = c.reset_after ? reset[static_cast<size_t>(j)] * of_h(row, nullptr) : of_h(row, &reset);
          value = (1 - z) * std::tanh(of_x(row) + state) + z * hb[j];
        }
        (*h)[at] = (*y)[static_cast<size_t>(t) * h->size() + at] = value;
      }
    }
  }
}

void check_case(const Case& c, uint64_t seed) {
  TestRandom random(seed);
  const int64_t d = std::string(c.direction) == "bidirectional" ? 2 : 1, gates = c.lstm ? 4 : 3;
  std::vector<TestTensor> in = {random.floats(make_shape({c.steps, c.batch, c.input})), random.floats(make_shape({d, gates * c.hidden, c.input}), true),
                                random.floats(make_shape({d, gates * c.hidden, c.hidden}), true)};
  in.push_back(c.bias ? random.floats(make_shape({d, 2 * gates * c.hidden}), true) : TestTensor());
  in.push_back(TestTensor());
  in.push_back(c.h0 ? random.floats(make_shape({d, c.batch, c.hidden})) : TestTensor());
  if (c.lstm) in.push_back(c.c0 ? random.floats(make_shape({d, c.batch, c.hidden})) : TestTensor());
  char attrs[120];
  std::snprintf(attrs, sizeof(attrs), "{\"hidden\":%d,\"direction\":\"%s\"%s}", (int)c.hidden, c.direction, c.reset_after ? ",\"linear_before_reset\":1" : "");
  std::vector<TestTensor> first;
  const char* op = c.lstm ? "lstm" : "gru";
  CHECK_OK(OpRunner(op, attrs, in, c.lstm ? 3 : 2, Isa::kPortable, 1)(in, &first));
  if (first.empty()) return;
  double worst = 0;
  const int64_t cells = c.batch * c.hidden;
  for (int64_t i = 0; i < d; ++i) {
    std::vector<double> y, h, cell;
    plain(c, i, in, &y, &h, &cell);
    for (int64_t t = 0; t < c.steps; ++t) {
      for (int64_t j = 0; j < cells; ++j) worst = std::fmax(worst, std::fabs(first[0].data<float>()[(t * d + i) * cells + j] - y[static_cast<size_t>(t * cells + j)]));
    }
    for (int64_t j = 0; j < cells; ++j) {
      worst = std::fmax(worst, std::fabs(first[1].data<float>()[i * cells + j] - h[static_cast<size_t>(j)]));
      if (c.lstm) worst = std::fmax(worst, std::fabs(first[2].data<float>()[i * cells + j] - cell[static_cast<size_t>(j)]));
    }
  }
  // A step adds at most (I + H + 6) roundings of gates whose size is below I + H + 2, through functions of slope at most 1; errors of earlier
  // steps come back scaled by R, whose row sums reach H / 2 but whose signs are random: 4 is above every ratio seen.
  const double n = static_cast<double>(c.input + c.hidden);
  if (!CHECK(worst <= (n + 6) * 0x1p-24 * std::sqrt(n) * static_cast<double>(c.steps) * 4)) std::fprintf(stderr, "  %s %s worst %g\n", op, attrs, worst);
  for (Isa isa : testable_isas()) {
    for (int threads : {1, 3}) {
      std::vector<TestTensor> out;
      CHECK_OK(OpRunner(op, attrs, in, static_cast<int>(first.size()), isa, threads)(in, &out));
      for (size_t i = 0; i < first.size(); ++i) CHECK(same_floats(first[i], out[i]));
    }
  }
  std::vector<TestTensor> only;  // later outputs may be left out
  CHECK_OK(OpRunner(op, attrs, in, 1, Isa::kPortable, 1)(in, &only));
  CHECK(same_floats(first[0], only[0]));
}

}  // namespace

int main() {
  uint64_t seed = 1;
  for (bool lstm : {true, false}) {
    for (const char* direction : {"forward", "reverse", "bidirectional"}) {
      for (bool reset_after : {false, true}) {
        if (lstm && reset_after) continue;
        check_case({lstm, 5, 3, 7, 10, direction, true, true, true, reset_after}, seed++);
        check_case({lstm, 9, 1, 20, 33, direction, false, false, false, reset_after}, seed++);
        check_case({lstm, 1, 2, 1, 1, direction, true, false, true, reset_after}, seed++);
      }
    }
  }
  TestRandom random(1);
  std::vector<TestTensor> out;
  const std::vector<TestTensor> in = {random.floats(make_shape({2, 1, 3})), random.floats(make_shape({1, 16, 3}), true), random.floats(make_shape({1, 16, 4}), true)};
  CHECK(OpRunner("lstm", "{\"hidden\":4}", in, 1, Isa::kPortable, 1)(in, &out).ok());
  CHECK(!OpRunner("lstm", "{\"hidden\":5}", in, 1, Isa::kPortable, 1).status().ok());
  CHECK(!OpRunner("gru", "{\"hidden\":4}", in, 1, Isa::kPortable, 1).status().ok());
  CHECK(!OpRunner("lstm", "{\"hidden\":4,\"direction\":\"both\"}", in, 1, Isa::kPortable, 1).status().ok());
  return check_result();
}
