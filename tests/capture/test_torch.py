"""PyTorch networks: dynamic sizes, module paths as names, weights, factories, saved exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from netsuke.capture import capture
from netsuke.capture.graph import dims_of
from netsuke.core.errors import FileError, UnsupportedError, UsageError
from netsuke.passes import compile_program
from netsuke.program import verify
from netsuke.program.interpreter import run

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


class Block(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act = nn.SiLU()

    def forward(self, x: Any) -> Any:
        return self.act(self.bn1(self.conv1(x)) + x)


class Net(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(Block(8), nn.Hardswish(), Block(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.layers(self.stem(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def graph(network: Any) -> ir.Model:
    return capture(network, shape=(1, 3, 32, 32))


def test_batch_and_image_size_stay_free(graph: ir.Model, network: Any) -> None:
    assert dims_of(graph.graph.inputs[0]) == ["N", 3, "H", "W"]
    program = compile_program(graph)
    verify(program)
    name = program.inputs[0].name
    for shape in ((1, 3, 32, 32), (3, 3, 20, 27)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        with torch.no_grad():
            wanted = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(next(iter(run(program, {name: x}).values())), wanted, atol=1e-5)
    assert [node.op for node in program.nodes].count("transpose") == 1


def test_names_are_module_paths(graph: ir.Model) -> None:
    convs = [node.name for node in graph.graph if node.op_type == "Conv"]
    assert convs == ["stem", "layers.0.conv1", "layers.2.conv1"]
    assert next(n.name for n in graph.graph if n.op_type == "Gemm") == "head"
    assert [n.op_type for n in graph.graph].count("Swish") == 2


def test_everything_fuses(graph: ir.Model) -> None:
    program = compile_program(graph)
    assert [node.op for node in program.nodes] == ["transpose", "conv", "conv", "unary", "conv", "reduce", "linear"]


def test_image_size_fixed_by_the_network_is_seen_and_said() -> None:
    class Fixed(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 5)

        def forward(self, x: Any) -> Any:
            return self.fc(torch.relu(self.conv(x)).flatten(1))

    found = capture(Fixed().eval(), shape=(1, 3, 8, 8))
    assert dims_of(found.graph.inputs[0]) == ["N", 3, 8, 8]
    assert found.metadata_props["netsuke.fixed"] == "x[2] = 8, x[3] = 8"
    program = compile_program(found)
    assert [node.op for node in program.nodes] == ["transpose", "conv", "reshape", "linear"]


def test_shape_is_needed(network: Any) -> None:
    with pytest.raises(UsageError, match="shape"):
        capture(network)


def test_factory_with_weights_and_saved_program(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), "
        "nn.Flatten(), nn.Linear(64, 2)).eval()\n"
    )
    reference = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    save_file(reference.state_dict(), tmp_path / "w.safetensors")
    found = capture(f"{source}:make", shape=(1, 3, 4, 4), weights=tmp_path / "w.safetensors")
    x = torch.randn(2, 3, 4, 4)
    program = compile_program(found)
    got = next(iter(run(program, {program.inputs[0].name: x.numpy()}).values()))
    np.testing.assert_allclose(got, reference(x).detach().numpy(), atol=1e-5)

    torch.export.save(torch.export.export(reference, (x,)), tmp_path / "net.pt2")
    assert [n.op_type for n in capture(tmp_path / "net.pt2").graph][-1] == "Gemm"
    (tmp_path / "bad.pt2").write_bytes(b"no")
    with pytest.raises(FileError, match=r"torch\.export"):
        capture(tmp_path / "bad.pt2")
    with pytest.raises(UsageError, match="no such factory"):
        capture(f"{source}:nothing", shape=(1, 3, 4, 4))


def test_a_product_that_stretches_its_input_is_no_batch_norm() -> None:
    class Outer(torch.nn.Module):
        def forward(self, t: torch.Tensor) -> torch.Tensor:
            return torch.relu(t).unsqueeze(1) * torch.arange(4.0) + 1.0

    graph = capture(Outer(), shape=(3,))
    assert next(list(v.shape) for v in graph.graph.outputs)[1] == 4


class Branch(nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: Any) -> Any:
        return 2 * x if x.sum() > 0 else x


def test_a_branch_on_values_is_named_by_its_line_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedError, match=r"test_torch\.py:\d+ in forward: return 2 \* x if x\.sum\(\) > 0"):
        capture(Branch(), shape=(1, 3))
    assert capfd.readouterr() == ("", "")


def test_an_object_may_bring_its_own_graph() -> None:
    class Trained:
        def __captured__(self) -> ir.Model:
            return capture(Block(4), shape=(1, 4, 8, 8))

    assert {node.op_type for node in capture(Trained()).graph} >= {"Conv", "Swish"}
    with pytest.raises(UsageError, match="has its weights"):
        capture(Trained(), weights="w.pth")
