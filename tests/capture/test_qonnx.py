"""QONNX files: Quant and BipolarQuant, by hand and as Brevitas writes them, in the program of the compiler."""

import math

import numpy as np
import onnx
import pytest

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UnsupportedError
from netsuke.passes import compile_program
from netsuke.program import stored_bits, verify
from netsuke.program.interpreter import run

DOMAIN = "qonnx.custom_op.general"
FLOOR = 'y = Q::Quant<rounding_mode="FLOOR">(x, s, z, b)'


def model(body, inputs, outputs, **constants):
    header = f'<ir_version: 8, opset_import: ["" : 16, "{DOMAIN}" : 1]>'
    made = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }}".replace("Q::", f"{DOMAIN}."))
    for name, array in constants.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
    return made


def quant(x, scale, zero, bits, signed, narrow):
    """The operator's definition, one number at a time."""
    low, high = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1 - narrow)
    code = min(max(float(np.float32(x) / np.float32(scale)) + zero, low), high)
    floor = math.floor(code)
    rest = code - floor
    up = rest > 0.5 or (rest == 0.5 and floor % 2 == 1)
    return (floor + up - zero) * float(np.float32(scale))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("signed", "narrow"), [(1, 0), (1, 1), (0, 0), (0, 1)])
def test_quant_of_activations(bits, signed, narrow):
    zero = 2 if not signed and bits > 2 else 0  # even: see the docstring of the rewrite
    text = f"q = Q::Quant<signed={signed}, narrow={narrow}>(x, s, z, b) y = Relu(q)"
    made = model(text, "float[N,40] x", "float[N,40] y", s=0.125, z=zero, b=bits)
    program = compile_program(capture(made))
    verify(program)
    x = np.concatenate([np.arange(-20, 20) * 0.0625, np.random.default_rng(bits).normal(0, 8, 40)])
    x = x.astype(np.float32).reshape(2, 40)
    want = np.maximum([[quant(v, 0.125, zero, bits, signed, narrow) for v in row] for row in x], 0)
    assert (run(program, {"x": x})["y"] == want.astype(np.float32)).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_quant_of_weights_becomes_codes(bits):
    rng = np.random.default_rng(bits)
    w = rng.normal(0, 1, (6, 5, 3, 3)).astype(np.float32)
    scale = rng.uniform(0.1, 0.5, (6, 1, 1, 1)).astype(np.float32)
    text = "c = Q::Quant<signed=0>(x, s, z, e) q = Q::Quant<narrow=1>(w, sw, z, b) y = Conv(c, q)"
    shapes = "float[N,5,6,6] x", "float[N,6,4,4] y"
    made = model(text, *shapes, w=w, sw=scale, s=0.1, z=0, b=bits, e=8)
    program = compile_program(capture(made))
    assert [n.op for n in program.nodes if n.op.startswith("q") and n.op != "quantize"] == ["qconv"]
    codes = next(a for a in program.constants.values() if a.dtype == np.int8)
    want = np.vectorize(lambda v, s: quant(v, s, 0, bits, 1, 1))(w, scale) / scale
    assert (codes == np.rint(want).transpose(0, 2, 3, 1)).all()


def test_bipolar_networks_become_one_bit_layers():
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, (6, 70, 3, 3)).astype(np.float32)
    text = """c = Q::BipolarQuant(x, one) q = Q::BipolarQuant(w, s) p = Conv<pads=[1,1,1,1]>(c, q)
        n = BatchNormalization(p, g, beta, mean, var) d = Q::BipolarQuant(n, one) y = Conv(d, q2)"""
    values = {"g": rng.normal(0, 1, 6), "beta": rng.normal(0, 1, 6), "mean": rng.normal(0, 9, 6), "var": np.full(6, 2)}
    values["q2"] = np.where(rng.random((3, 6, 1, 1)) < 0.5, 0.5, -0.5)
    made = model(text, "float[N,70,5,5] x", "float[N,3,5,5] y", w=w, s=0.25, one=1, **values)
    program = compile_program(capture(made))
    verify(program)
    layers = [node for node in program.nodes if node.op == "bconv"]
    assert [node.attrs["out"] for node in layers] == ["bits", "f32"]
    assert not any(node.op in ("conv", "qconv", "binary") for node in program.nodes)


@pytest.mark.parametrize(
    ("text", "constants", "message"),
    [
        (
            'y = Q::Quant<rounding_mode="FLOOR">(x, s, z, b)',
            {"s": 0.1, "z": 0, "b": 4},
            "rounding_mode of an activation",
        ),
        ("y = Q::Quant(x, s, z, b)", {"s": 0.1, "z": 0, "b": 12}, "more than 8 bits"),
        ("y = Q::Quant(x, s, z, b)", {"s": [0.1] * 4, "z": 0, "b": 4}, "one scale"),
        ("y = Q::Quant(x, s, z, b)", {"s": -0.1, "z": 0, "b": 4}, "scale is not a positive number"),
        ("s = Relu(x) y = Q::BipolarQuant(x, s)", {}, "computed at run time"),
    ],
)
def test_what_has_no_form_is_refused_by_name(text, constants, message):
    with pytest.raises(UnsupportedError, match=message):
        capture(model(text, "float[N,4] x", "float[N,4] y", **constants))


@pytest.mark.parametrize("bits", [3, 2])
def test_brevitas_files_compile_to_packed_kernels(bits):
    """Weights of 4, 2 and 1 bits, activations of 8, 3 or 2, and 1, in one network: what Brevitas computes, by codes."""
    torch = pytest.importorskip("torch")
    brevitas_nn = pytest.importorskip("brevitas.nn")
    from brevitas.export import export_qonnx
    from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst

    torch.manual_seed(0)
    sign = {"act_quant": SignedBinaryActPerTensorConst}
    binary = {"weight_quant": SignedBinaryWeightPerTensorConst, "bias": False}
    network = torch.nn.Sequential(
        brevitas_nn.QuantIdentity(bit_width=8),
        brevitas_nn.QuantConv2d(3, 16, 3, padding=1, bias=False, weight_bit_width=4),
        torch.nn.BatchNorm2d(16),
        brevitas_nn.QuantReLU(bit_width=bits),
        brevitas_nn.QuantConv2d(16, 8, 3, bias=False, weight_bit_width=2),
        torch.nn.BatchNorm2d(8),
        brevitas_nn.QuantIdentity(**sign),
        brevitas_nn.QuantConv2d(8, 12, 3, **binary),
        torch.nn.BatchNorm2d(12),
    )
    with torch.no_grad():
        network.train()
        network(torch.randn(16, 3, 8, 8))
        network.eval()
        x = torch.randn(1, 3, 8, 8)
        want = network(x)
        want = getattr(want, "value", want).numpy()
    try:
        made = export_qonnx(network, args=x, opset_version=16)
    except Exception as error:
        pytest.skip(f"this Brevitas cannot export with this PyTorch: {error}")
    program = compile_program(capture(made))
    verify(program)
    ops = [node.op for node in program.nodes]
    assert ops.count("qconv") == 2
    assert ops.count("bconv") == 1
    assert not {"conv", "where", "binary"} & set(ops)
    middle = [node for node in program.nodes if node.op == "qconv"]
    assert middle[0].attrs["hi"] - middle[0].attrs.get("lo", 0) == 2**bits - 1  # codes between layers have that width
    assert [stored_bits(program, node.inputs[1]) for node in middle] == [4, 2]
    got = next(iter(run(program, {program.inputs[0].name: x.numpy()}).values()))
    served = next(iter(engine.load(program).run({program.inputs[0].name: x.numpy()}).values()))
    assert np.array_equal(served, got)
    # A sum on a rounding boundary of float arithmetic may take the neighbouring code: few values, and small.
    assert np.mean(np.abs(got - want) > 1e-4 * np.abs(want).max()) < 0.02
