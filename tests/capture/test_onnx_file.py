"""Damaged and hostile ONNX files end in one FileError, never in a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from netsuke.capture import capture
from netsuke.capture.onnx_file import parse_onnx
from netsuke.core.errors import FileError, NetsukeError


def small() -> onnx.ModelProto:
    """x -> Conv -> Relu -> Flatten -> Gemm, with real weights."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="gemm"),
    ]
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "v": rng.standard_normal((64, 5))}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(model: onnx.ModelProto, text: str) -> None:
    with pytest.raises(FileError, match=text):
        capture(model)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "m.onnx")
    assert [n.op_type for n in capture(tmp_path / "m.onnx").graph] == ["Conv", "Relu", "Flatten", "Gemm"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(share: float) -> None:
    data = small().SerializeToString()
    with pytest.raises(FileError):
        parse_onnx(data[: int(len(data) * share)])


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        capture(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(FileError):
        capture(tmp_path / "text.onnx")


def test_tensor_of_the_wrong_size() -> None:
    model = small()
    model.graph.initializer[0].dims[0] = 400
    refused(model, "wrong size")


def test_negative_and_huge_dimensions() -> None:
    for value in (-1, 2**50):
        model = small()
        model.graph.initializer[0].dims[0] = value
        refused(model, "impossible dimensions|too large")
    model = small()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -3
    refused(model, "impossible dimension")


def test_cycle_and_unknown_input() -> None:
    model = small()
    model.graph.node[0].input[0] = "r"
    refused(model, "cycle or is out of order")
    model = small()
    model.graph.node[1].input[0] = "nowhere"
    refused(model, "nothing computes")


def test_all_problems_are_listed_at_once() -> None:
    model = small()
    model.graph.node[1].input[0] = "nowhere"
    model.graph.initializer[0].dims[0] = 400
    model.graph.output[0].name = "absent"
    with pytest.raises(FileError) as caught:
        capture(model)
    assert len(caught.value.problems) == 3


def test_two_nodes_with_one_output() -> None:
    model = small()
    model.graph.node[1].output[0] = "c"
    refused(model, "two nodes compute one value")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
def test_external_data_stays_in_its_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    model = small()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="outside the folder"):
        capture(folder / "m.onnx")


def test_external_data_through_a_link_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    model = small()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="outside the folder"):
        capture(folder / "m.onnx")


def test_external_data_is_read_and_checked(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = capture(tmp_path / "m.onnx")
    assert len(model.graph.initializers) == 2
    data = (tmp_path / "m.data").read_bytes()
    (tmp_path / "m.data").write_bytes(data[:-100])
    with pytest.raises(FileError, match="too short"):
        capture(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    with pytest.raises(FileError, match="missing"):
        capture(tmp_path / "m.onnx")


def test_contradicting_shapes_are_an_error() -> None:
    model = small()
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [1, 1, 1]))
    with pytest.raises(NetsukeError):
        capture(model)


def test_a_constant_that_would_fill_the_memory_is_not_computed() -> None:
    model = small()
    shape = numpy_helper.from_array(np.asarray([100_000, 100_000, 100_000], np.int64), "big")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["big"], ["z"], name="fill"))
    model.graph.node.append(helper.make_node("ReduceMax", ["z"], ["m"], name="top"))
    model.graph.node.append(helper.make_node("Add", ["y", "m"], ["q"], name="use"))
    model.graph.output[0].name = "q"
    capture(model)


def test_random_mutations_never_crash() -> None:
    """Bytes flipped, cut and repeated: every outcome is a model or a NetsukeError."""
    rng = np.random.default_rng(5)
    data = small().SerializeToString()
    outcomes = {"model": 0, "error": 0}
    for _ in range(250):
        bad = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(0, len(bad)))
            action = int(rng.integers(0, 3))
            if action == 0:
                bad[place] ^= 1 << int(rng.integers(0, 8))
            elif action == 1:
                del bad[place : place + int(rng.integers(1, 20))]
            else:
                bad[place:place] = bad[place : place + int(rng.integers(1, 20))]
        try:
            capture_bytes(bytes(bad))
            outcomes["model"] += 1
        except NetsukeError:
            outcomes["error"] += 1
    assert outcomes["error"] > 50


def capture_bytes(data: bytes) -> None:
    from netsuke.passes import compile_program
    from netsuke.program import verify

    verify(compile_program(capture(parse_onnx(data))))
