// lstm and gru as ONNX defines them. The inputs of all steps are multiplied at once, the state step by step:
//   gates = (h R^T + b_r) + (x W^T + b_w), both products as everywhere (kernels/fgemm), then the functions of kernels/elementwise.
#include <cstring>
#include <vector>

#include "base/arena.h"
#include "kernels/base/shapes.h"
#include "kernels/fgemm/weights.h"

namespace netsuke {
namespace {

struct Direction {
  FgemmWeights w, r, r_state;  // gru: r is [2 hidden], r_state the part for the new state
};

class RecurrentOp final : public Op {
 public:
  explicit RecurrentOp(bool lstm) : lstm_(lstm), gates_(lstm ? 4 : 3) {}

  Status build(const BuildArgs& args) override {
    NETSUKE_TRY(expect_inputs(static_cast<int>(args.inputs.size()), 3, lstm_ ? 7 : 6));
    std::string direction;
    NETSUKE_TRY(args.attrs.get("hidden", &hidden_));
    NETSUKE_TRY(args.attrs.get_or("direction", "forward", &direction));
    if (!lstm_) NETSUKE_TRY(args.attrs.get_or("linear_before_reset", int64_t{0}, &reset_after_));
    if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
      return error(Code::kInvalidArgument, "direction is %s, expected forward, reverse or bidirectional", direction.c_str());
    }
    reverse_ = direction == "reverse";
    const size_t directions = direction == "bidirectional" ? 2 : 1;
    if (args.inputs.size() > 4 && args.inputs[4].present) return error(Code::kUnsupported, "seq_lens must be absent");
    const Tensor &w = args.inputs[1], &r = args.inputs[2];
    const Tensor* b = args.inputs.size() > 3 && args.inputs[3].present ? &args.inputs[3] : nullptr;
    NETSUKE_TRY(expect_dtype(w, "w", {DType::kF32}));
    NETSUKE_TRY(expect_dtype(r, "r", {DType::kF32}));
    const int64_t d = static_cast<int64_t>(directions), rows = gates_ * hidden_;
    if (w.data == nullptr || w.shape.rank != 3 || !(w.shape == make_shape({d, rows, w.shape.dim[2]}))) return wrong_constant("w", w, "[directions, gates * hidden, I]");
    if (r.data == nullptr || !(r.shape == make_shape({d, rows, hidden_}))) return wrong_constant("r", r, "[directions, gates * hidden, hidden]");
    if (b != nullptr) {
      NETSUKE_TRY(expect_dtype(*b, "b", {DType::kF32}));
      if (b->data == nullptr || !(b->shape == make_shape({d, 2 * rows}))) return wrong_constant("b", *b, "[directions, 2 * gates * hidden]");
    }
    input_ = w.shape.dim[2];
    directions_ = std::vector<Direction>(directions);
    unary_ = &unary_kernels(args.isa);
    for (int64_t i = 0; i < d; ++i) NETSUKE_TRY(build_direction(w, r, b, i, args.isa));
    return Status();
  }

  Status infer(const Tensor* in, int n_in, Tensor* out, int n_out) const override {
    NETSUKE_TRY(expect_dtype(in[0], "x", {DType::kF32}));
    const Shape& x = in[0].shape;
    if (x.rank != 3 || x.dim[2] != input_) return error(Code::kInvalidArgument, "x has shape %s, expected [T, B, %lld]", shape_text(x).c_str(), static_cast<long long>(input_));
    const int64_t d = static_cast<int64_t>(directions_.size());
    const Shape state = make_shape({d, x.dim[1], hidden_});
    for (int i = 5; i < n_in; ++i) {
      if (!in[i].present) continue;
      const char* name = i == 5 ? "h0" : "c0";
      NETSUKE_TRY(expect_dtype(in[i], name, {DType::kF32}));
      if (!(in[i].shape == state)) return error(Code::kInvalidArgument, "%s has shape %s, expected %s", name, shape_text(in[i].shape).c_str(), shape_text(state).c_str());
    }
    for (int i = 0; i < n_out; ++i) {
      out[i].dtype = DType::kF32;
      out[i].shape = i == 0 ? make_shape({x.dim[0], d, x.dim[1], hidden_}) : state;
    }
    return Status();
  }

  size_t scratch_bytes(const Tensor* in, int, const Tensor*, int, int threads) const override {
    const Layout l = layout(in[0].shape, threads);
    return l.end;
  }

  Status run(const RunArgs& args) const override {
    const int64_t steps = args.in[0].shape.dim[0], batch = args.in[0].shape.dim[1];
    const int64_t d = static_cast<int64_t>(directions_.size()), cells = batch * hidden_;
    if (cells == 0) return Status();
    const Layout l = layout(args.in[0].shape, args.pool.threads());
    for (int64_t i = 0; i < d; ++i) {
      float *h = part(args, l.h), *c = part(args, l.c);
      start(args, 5, i, cells, h);
      start(args, 6, i, cells, c);
      multiply(args, directions_[static_cast<size_t>(i)].w, args.in[0].as<float>(), input_, steps * batch, gates_ * hidden_, nullptr, part(args, l.inputs));
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t t = reverse_ || i == 1 ? steps - 1 - step : step;
        const float* inputs = part(args, l.inputs) + t * batch * gates_ * hidden_;
        if (lstm_) lstm_step(args, l, i, batch, inputs, h, c);
        else gru_step(args, l, i, batch, inputs, h);
        memcpy(args.out[0].as<float>() + (t * d + i) * cells, h, static_cast<size_t>(cells) * sizeof(float));
      }
      if (args.n_out > 1) memcpy(args.out[1].as<float>() + i * cells, h, static_cast<size_t>(cells) * sizeof(float));
      if (args.n_out > 2) memcpy(args.out[2].as<float>() + i * cells, c, static_cast<size_t>(cells) * sizeof(float));
    }
    return Status();
  }

  Cost cost(const Tensor* in, int n_in, const Tensor* out, int n_out) const override {
    Cost cost = Op::cost(in, n_in, out, n_out);
    cost.macs = in[0].shape.dim[0] * in[0].shape.dim[1] * static_cast<int64_t>(directions_.size()) * gates_ * hidden_ * (input_ + hidden_);
    return cost;
  }
  const char* kernel_name() const override { return directions_.empty() ? "" : directions_[0].w.kernel_name(); }
  bool packed_constant(int i) const override { return i >= 1 && i <= 3; }
  size_t packed_bytes() const override {
    size_t bytes = 0;
    for (const Direction& d : directions_) bytes += d.w.packed_bytes() + d.r.packed_bytes() + d.r_state.packed_bytes();
    return bytes;
  }

 private:
  struct Layout {
    size_t inputs, gates, state, h, c, products, end;  // byte offsets in scratch
  };
  Layout layout(const Shape& x, int threads) const {
    const int64_t cells = x.dim[1] * hidden_;
    Layout l;
    const auto floats = [](int64_t n) { return align_up(static_cast<size_t>(n) * sizeof(float)); };
    l.products = 0;
    l.inputs = align_up(FgemmWeights::scratch_bytes(x.dim[0] * x.dim[1] > x.dim[1] ? x.dim[0] * x.dim[1] : x.dim[1], 1, threads));
    l.gates = l.inputs + floats(x.dim[0] * gates_ * cells);
    l.state = l.gates + floats(gates_ * cells);
    l.h = l.state + floats(cells);
    l.c = l.h + floats(cells);
    l.end = l.c + floats(cells);
    return l;
  }
  static float* part(const RunArgs& args, size_t offset) { return reinterpret_cast<float*>(static_cast<uint8_t*>(args.scratch) + offset); }

  Status wrong_constant(const char* name, const Tensor& t, const char* expected) const {
    return error(Code::kInvalidArgument, "%s must be a constant %s with hidden %lld, got %s", name, expected, static_cast<long long>(hidden_), shape_text(t.shape).c_str());
  }

  // Rows [from, from + count) of the gates of one direction.
  static Status pack(FgemmWeights* weights, const Tensor& w, const Tensor* b, int64_t direction, int64_t b_from, int64_t from, int64_t count, Isa isa, const char* op) {
    const int64_t k = w.shape.dim[2];
    Tensor rows = w, bias;
    rows.shape = make_shape({count, k});
    rows.data = w.as<float>() + (direction * w.shape.dim[1] + from) * k;
    bias.present = b != nullptr;
    if (b != nullptr) {
      bias.shape = make_shape({count});
      bias.data = b->as<float>() + direction * b->shape.dim[1] + b_from + from;
    }
    return weights->build(rows, &bias, 1, count, 1, k, Activation(), isa, op);
  }
  Status build_direction(const Tensor& w, const Tensor& r, const Tensor* b, int64_t i, Isa isa) {
    Direction& d = directions_[static_cast<size_t>(i)];
    const char* op = lstm_ ? "lstm" : "gru";
    const int64_t rows = gates_ * hidden_, first = lstm_ ? rows : 2 * hidden_;
    NETSUKE_TRY(pack(&d.w, w, b, i, 0, 0, rows, isa, op));
    NETSUKE_TRY(pack(&d.r, r, b, i, rows, 0, first, isa, op));
    return lstm_ ? Status() : pack(&d.r_state, r, b, i, rows, first, hidden_, isa, op);
  }

  static void start(const RunArgs& args, int input, int64_t direction, int64_t cells, float* to) {
    const bool given = args.n_in > input && args.in[input].present;
    if (given) memcpy(to, args.in[input].as<float>() + direction * cells, static_cast<size_t>(cells) * sizeof(float));
    else memset(to, 0, static_cast<size_t>(cells) * sizeof(float));
  }

  // y [rows, ldy] = x w^T + bias (+ r, which has the rows of gates)
  void multiply(const RunArgs& args, const FgemmWeights& weights, const float* x, int64_t k, int64_t rows, int64_t ldy, const float* r, float* y) const {
    const FgemmRows context = {x, k};
    FgemmJob job = weights.job(rows);
    job.c = y;
    job.ldc = ldy;
    job.r = r;
    job.ldr = gates_ * hidden_;
    job.pointers = fgemm_row_pointers;
    job.context = &context;
    weights.run(&job, args.scratch, args.pool);
  }
  void apply(UnaryFn fn, float* x, int64_t n) const { unary_->rows[static_cast<int>(fn)](x, x, n, 0, 0); }

  void lstm_step(const RunArgs& args, const Layout& l, int64_t direction, int64_t batch, const float* inputs, float* h, float* c) const {
    float *gates = part(args, l.gates), *state = part(args, l.state);
    multiply(args, directions_[static_cast<size_t>(direction)].r, h, hidden_, batch, 4 * hidden_, inputs, gates);
    for (int64_t b = 0; b < batch; ++b) {
      float *g = gates + b * 4 * hidden_, *cb = c + b * hidden_, *hb = h + b * hidden_;
      apply(UnaryFn::sigmoid, g, 3 * hidden_);  // input, output, forget
      apply(UnaryFn::tanh, g + 3 * hidden_, hidden_);
      for (int64_t i = 0; i < hidden_; ++i) {
        const float kept = g[2 * hidden_ + i] * cb[i], added = g[i] * g[3 * hidden_ + i];
        state[i] = cb[i] = kept + added;
      }
      apply(UnaryFn::tanh, state, hidden_);
      for (int64_t i = 0; i < hidden_; ++i) hb[i] = g[hidden_ + i] * state[i];
    }
  }

  void gru_step(const RunArgs& args, const Layout& l, int64_t direction, int64_t batch, const float* inputs, float* h) const {
    const Direction& d = directions_[static_cast<size_t>(direction)];
    float *gates = part(args, l.gates), *state = part(args, l.state);
    multiply(args, d.r, h, hidden_, batch, 3 * hidden_, inputs, gates);  // update, reset
    for (int64_t b = 0; b < batch; ++b) apply(UnaryFn::sigmoid, gates + b * 3 * hidden_, 2 * hidden_);
    if (reset_after_ == 0) {
      for (int64_t i = 0; i < batch * hidden_; ++i) state[i] = gates[i / hidden_ * 3 * hidden_ + hidden_ + i % hidden_] * h[i];
    }
    const float* from = reset_after_ ? nullptr : inputs + 2 * hidden_;
    multiply(args, d.r_state, reset_after_ ? h : state, hidden_, batch, 3 * hidden_, from, gates + 2 * hidden_);
    for (int64_t b = 0; b < batch; ++b) {
      float *g = gates + b * 3 * hidden_, *hb = h + b * hidden_, *fresh = g + 2 * hidden_;
      const float* in = inputs + b * 3 * hidden_ + 2 * hidden_;
      for (int64_t i = 0; reset_after_ && i < hidden_; ++i) {
        const float scaled = g[hidden_ + i] * fresh[i];
        fresh[i] = scaled + in[i];
      }
      apply(UnaryFn::tanh, fresh, hidden_);
      for (int64_t i = 0; i < hidden_; ++i) {
        const float added = (1.0f - g[i]) * fresh[i], kept = g[i] * hb[i];
        hb[i] = added + kept;
      }
    }
  }

  bool lstm_, reverse_ = false;
  int64_t gates_, hidden_ = 0, input_ = 0, reset_after_ = 0;
  std::vector<Direction> directions_;
  const UnaryKernels* unary_ = nullptr;
};

}  // namespace

std::unique_ptr<Op> make_lstm() { return std::make_unique<RecurrentOp>(true); }
std::unique_ptr<Op> make_gru() { return std::make_unique<RecurrentOp>(false); }

}  // namespace netsuke
