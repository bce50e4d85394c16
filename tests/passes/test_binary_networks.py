"""Binary networks, as exporters write them, become one-bit layers and keep what they compute."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graphs import build, check, compiled, engine_of
from torch import nn

from netsuke.capture import capture
from netsuke.passes import compile_program
from netsuke.passes.fuse_binary import float_threshold, integer_threshold
from netsuke.program import verify
from netsuke.program.interpreter import run

SIGN = "g = GreaterOrEqual(x, zero)  s = Where(g, one, minus)"


def constants(rng, outputs=5, channels=70, kernel=3, **more):
    scale = rng.uniform(0.5, 2, (outputs, 1, 1, 1))
    w = np.where(rng.random((outputs, channels, kernel, kernel)) < 0.5, scale, -scale).astype(np.float32)
    values = {"w": w, "zero": np.float32(0), "one": np.float32(1), "minus": np.float32(-1), **more}
    return {name: np.asarray(value) for name, value in values.items()}


def ops(program):
    return [node.op for node in program.nodes if node.op not in ("transpose", "reshape")]


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (f"{SIGN} y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w)", ["sign_pack", "bconv"]),
        ("s = Sign(x) y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w)", ["sign_pack", "bconv", "sign_pack", "bconv"]),
        (f"{SIGN} p = Pad(s, pads, minus) y = Conv<strides=[2,2]>(p, w)", ["sign_pack", "bconv"]),
        (f"{SIGN} p = Pad(s, pads, one) y = Conv<strides=[2,2]>(p, w)", ["sign_pack", "bconv"]),
        (f"{SIGN} t = Mul(s, half) y = Conv<pads=[1,1,1,1], strides=[2,2]>(t, w)", ["sign_pack", "bconv"]),
        (
            "g = Greater(x, half) c = Cast<to=1>(g) d = Mul(c, two) s = Sub(d, one) "
            "y = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w)",
            ["sign_pack", "bconv"],
        ),
    ],
)
def test_forms_of_a_binary_convolution(body, kinds):
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    values = constants(np.random.default_rng(0), pads=pads, half=np.float32(0.5), two=np.float32(2))
    used = {name: array for name, array in values.items() if name in body.replace(",", " ").replace(")", " ").split()}
    used["w"] = values["w"]
    for name in values:
        if f"({name}" in body or f" {name}" in body:
            used[name] = values[name]
    model = build("float[N,70,9,8] x", body, "float[N,5,5,4] y", used)
    program = check(model, [{"N": 1}, {"N": 3}], rtol=1e-4, atol=1e-4)
    assert ops(program) == kinds


@pytest.mark.parametrize(
    ("bits", "step"),
    [
        ("c = Clip(x, zero, one) s = Round(c)", None),
        ("d = Div(x, step) c = Clip(d, zero, one) s = Round(c)", 0.37),
        ("d = Div(x, step) c = Clip(d, zero, one) s = Round(c)", 3e-3),
        ("g = Greater(x, step) s = Cast<to=1>(g)", 0.25),
        ("g = GreaterOrEqual(x, step) s = Where(g, one, zero)", -0.5),
    ],
)
@pytest.mark.parametrize("layer", ["bconv", "blinear"])
def test_levels_of_0_and_1_are_one_bit_too(bits, step, layer):
    """Sums of 0 and 1 times +-1 are whole numbers: equal bit for bit, also next to the threshold and in the padding."""
    rng = np.random.default_rng(7)
    at = np.float32(0.5 if step is None else step / 2 if "Div" in bits else step)
    near = np.asarray([at, np.nextafter(at, np.float32(-9)), np.nextafter(at, np.float32(9)), 0, -1, 7], np.float32)
    image = layer == "bconv"
    shape, kernel = ((3, 70, 5, 4), (3, 3)) if image else ((40, 70), ())
    x = np.where(rng.random(shape) < 0.5, rng.choice(near, shape), rng.normal(0, 1, shape)).astype(np.float32)
    w = np.where(rng.random((5, 70, *kernel)) < 0.5, 1, -1).astype(np.float32)
    body = f"{bits} y = " + ("Conv<pads=[1,1,1,1]>(s, w)" if image else "Gemm<transB=1>(s, w)")
    values = {"w": w, "zero": np.float32(0), "one": np.float32(1), "step": np.float32(step or 1)}
    used = {n: np.asarray(v) for n, v in values.items() if f" {n}," in body or f" {n})" in body}
    ends = ("float[N,70,5,4] x", "float[N,5,A,B] y") if image else ("float[N,70] x", "float[N,5] y")
    program = compiled(build(ends[0], body, ends[1], used))
    assert ops(program) == ["sign_pack", layer]
    assert next(n for n in program.nodes if n.op == layer).attrs["levels"] == "bool"
    if "Clip" in bits:
        levels = np.round(np.clip(x / np.float32(step or 1), 0, 1))
    else:
        levels = (x > at if "Greater(" in bits else x >= at).astype(np.float32)
    s, v = torch.from_numpy(levels), torch.from_numpy(w)
    want = (nn.functional.conv2d(s, v, padding=1) if image else s @ v.T).numpy()
    for got in (run(program, {"x": x})["y"], engine_of(program).run({"x": x})["y"]):
        assert np.array_equal(got, want)


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (f"{SIGN} p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) y = Conv(p, w)", ["maxpool", "sign_pack", "bconv"]),
        ("c = Clip(x, minus, one) g = GreaterOrEqual(c, zero) s = Where(g, one, minus) y = Conv(s, w)", None),
        (f"{SIGN} f = Flatten(s) y = Gemm(f, v)", ["sign_pack", "blinear"]),
        (f"{SIGN} t = Transpose<perm=[0,1,3,2]>(s) y = Conv(t, w)", ["sign_pack", "bconv"]),
        ("s = Sign(x) h = Mul(s, two) p = MaxPool<kernel_shape=[2,2]>(h) y = Conv(p, w)", None),
    ],
)
def test_a_sign_behind_what_moves_or_picks_numbers(body, kinds):
    """Exporters leave a Flatten, a Transpose or a pooling between the sign and the product, a clip in front of it."""
    rng = np.random.default_rng(5)
    values = constants(rng, two=np.float32(2))
    values["v"] = np.where(rng.random((70 * 72, 5)) < 0.5, 0.5, -0.5).astype(np.float32)
    used = {n: a for n, a in values.items() if n in body.replace("(", " ").replace(")", " ").replace(",", " ").split()}
    out = "float[N,5] y" if "Gemm" in body else "float[N,5,A,B] y"
    program = check(build("float[N,70,9,8] x", body, out, used), [{"N": 1}, {"N": 3}], rtol=1e-4, atol=1e-4)
    found = ops(program)
    assert found == (kinds or found)
    assert not {"conv", "linear", "where", "unary", "binary"} & set(found)


def test_zeros_of_sign_keep_their_meaning():
    """ONNX Sign gives 0 at 0: no bit, but two one-bit layers give it exactly."""
    values = constants(np.random.default_rng(1))
    model = build(
        "float[N,70,5,5] x", "s = Sign(x) y = Conv<pads=[1,1,1,1]>(s, w)", "float[N,5,5,5] y", {"w": values["w"]}
    )
    program = compiled(model)
    x = np.random.default_rng(2).integers(-1, 2, (2, 70, 5, 5)).astype(np.float32)
    want = nn.functional.conv2d(torch.from_numpy(np.sign(x)), torch.from_numpy(values["w"]), padding=1).numpy()
    np.testing.assert_allclose(run(program, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)


def test_matrix_products_of_signs():
    rng = np.random.default_rng(3)
    w = np.where(rng.random((70, 9)) < 0.5, 0.5, -0.5).astype(np.float32)
    values = {k: v for k, v in constants(rng).items() if k != "w"} | {
        "w": w,
        "b": rng.normal(0, 1, 9).astype(np.float32),
    }
    model = build("float[N,4,70] x", f"{SIGN} m = MatMul(s, w) y = Add(m, b)", "float[N,4,9] y", values)
    assert ops(check(model, [{"N": 2}])) == ["sign_pack", "blinear"]
    model = build("float[N,70] x", f"{SIGN} y = Gemm(s, w, b)", "float[N,9] y", values)
    assert ops(check(model, [{"N": 2}])) == ["sign_pack", "blinear"]


def test_weights_of_several_magnitudes_stay_float():
    values = constants(np.random.default_rng(4))
    values["w"] = values["w"].copy()
    values["w"][0, 0, 0, 0] *= 2
    model = build("float[N,70,5,5] x", f"{SIGN} y = Conv(s, w)", "float[N,5,3,3] y", values)
    assert "bconv" not in ops(compiled(model))


class Binary(nn.Module):
    """Weights of one magnitude a channel, activations by x >= 0."""

    def __init__(self, cin, cout, stride=1):
        super().__init__()
        self.weight, self.stride = nn.Parameter(torch.randn(cout, cin, 3, 3)), stride

    def forward(self, x):
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        w = torch.where(self.weight >= 0, scale, -scale)
        return nn.functional.conv2d(torch.where(x >= 0, 1.0, -1.0), w, stride=self.stride, padding=1)


class Network(nn.Module):
    """A ReActNet-like block (shifted sign, residual, shifted PReLU), then layers whose signs feed each other."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(3, 70, 3, padding=1), nn.BatchNorm2d(70)
        self.conv1, self.bn1, self.act = Binary(70, 70), nn.BatchNorm2d(70), nn.PReLU(70)
        self.conv2, self.bn2 = Binary(70, 64), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = Binary(64, 64, 2), nn.BatchNorm2d(64)
        self.shifts = nn.ParameterList([nn.Parameter(torch.randn(1, 70, 1, 1)) for _ in range(3)])
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn0(self.stem(x))
        y = self.bn1(self.conv1(x + self.shifts[0])) + x
        y = self.act(y + self.shifts[1]) + self.shifts[2]
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return self.fc(y.mean((2, 3)))


def trained():
    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        network.train()
        network(torch.randn(8, 3, 12, 12))
        for norm in (network.bn1, network.bn2, network.bn3):  # falling channels too
            norm.weight.copy_(torch.randn_like(norm.weight))
            norm.bias.copy_(torch.randn_like(norm.bias))
    return network.eval()


def test_a_whole_network_runs_on_bits():
    network = trained()
    program = compile_program(capture(network, shape=(1, 3, 12, 12)))
    verify(program)
    layers = [node for node in program.nodes if node.op == "bconv"]
    assert [node.attrs["out"] for node in layers] == ["f32", "bits", "f32"]
    # Shift, residual and PReLU of the block and the next layer's signs are in the first convolution.
    assert len(layers[0].outputs) == 2 or layers[0].inputs[7]
    assert not any(node.op in ("binary", "prelu", "where") for node in program.nodes)
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    want = network(torch.from_numpy(x)).detach().numpy()
    got = run(program, {"x": x})
    np.testing.assert_allclose(next(iter(got.values())), want, rtol=1e-4, atol=1e-4)
    engine = engine_of(program)
    if engine is not None:
        np.testing.assert_allclose(next(iter(engine.run({"x": x}).values())), want, rtol=1e-4, atol=1e-4)


def test_folded_thresholds_change_no_bit():
    """Every sum a layer can have, against the f32 chain written out, falling channels included."""
    rng = np.random.default_rng(6)
    mult = np.array([0.1, -0.1, 1e-30, 0.0, 3.0], np.float32)
    bias, limit = rng.normal(0, 5, 5).astype(np.float32), rng.normal(0, 1, 5).astype(np.float32)

    def value(name, array):
        return ir.Value(name=name, const_value=ir.tensor(array), shape=ir.Shape(array.shape))

    w = value("w", np.zeros((5, 3, 3, 2), np.int64))
    node = ir.node("bconv", [None, w, value("m", mult), value("b", bias)], {"channels": 70}, domain="netsuke")
    found = integer_threshold(node, limit, None)
    assert found is not None
    threshold, flip = found
    acc = np.arange(-630, 631)[:, None]
    want = acc.astype(np.float32) * mult + bias >= limit
    assert ((acc >= threshold) ^ flip == want).all()


def test_a_threshold_moves_through_an_addition_exactly():
    rng = np.random.default_rng(7)
    shift = np.concatenate([rng.normal(0, 1, 200), [0.0, -0.0, 1e-45, 1e30]]).astype(np.float32)
    limit = rng.normal(0, 1, shift.shape).astype(np.float32)
    moved = float_threshold(lambda v: v + shift, limit)
    below = np.nextafter(moved, np.float32(-np.inf))
    assert (moved + shift >= limit).all()
    assert (below + shift < limit).all()
