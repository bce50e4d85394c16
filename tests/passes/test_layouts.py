"""How many transposes the reference networks keep."""

from __future__ import annotations

from collections import Counter

import pytest

from netsuke.capture import capture
from netsuke.passes import compile_program
from netsuke.program import verify

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

# One at the input of every image network; shuffles and attention move data by their nature, four per attention block.
WANTED = {
    "resnet20": {"transpose": 1, "binary": 0, "unary": 0},
    "mobilenetv2": {"transpose": 1, "conv": 52, "binary": 0, "unary": 0},
    "shufflenetv2": {"transpose": 17, "binary": 0},
    "bert_tiny": {"transpose": 8, "matmul": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_transposes_left(name: str) -> None:
    program = compile_program(capture(name), name=name)
    verify(program)
    found = Counter(node.op for node in program.nodes)
    assert {op: found[op] for op in WANTED[name]} == WANTED[name]
    if name != "bert_tiny":
        assert program.nodes[0].op == "transpose"
        assert "transpose" not in [node.op for node in program.nodes[-3:]]
