"""Values tapped by name come out under that name, also where quantizers moved behind them."""

import numpy as np
import onnx

from netsuke.capture import capture
from netsuke.passes import compile_program
from netsuke.program.interpreter import run

BODY = """
<ir_version: 8, opset_import: ["" : 16]>
g (float[N,4] x, float[N,4] y) => (float[N,8] out)
<float step = {0.05}, uint8 point = {128}> {
    xq = QuantizeLinear(x, step, point)
    xd = DequantizeLinear(xq, step, point)
    yq = QuantizeLinear(y, step, point)
    yd = DequantizeLinear(yq, step, point)
    cat = Concat<axis = 1>(xd, yd)
    out = Sin(cat)
}
"""


def test_a_concat_of_codes_is_tapped_as_the_numbers_it_stands_for():
    program = compile_program(capture(onnx.parser.parse_model(BODY)), taps=("cat",))
    assert "cat" in [port.name for port in program.outputs]
    rng = np.random.default_rng(0)
    feeds = {key: rng.normal(0, 2, (3, 4)).astype(np.float32) for key in ("x", "y")}
    got = run(program, feeds)["cat"]
    assert got.dtype == np.float32
    codes = [np.clip(np.rint(v / np.float32(0.05)) + 128, 0, 255) - 128 for v in feeds.values()]
    assert np.array_equal(got, np.concatenate(codes, 1).astype(np.float32) * np.float32(0.05))
