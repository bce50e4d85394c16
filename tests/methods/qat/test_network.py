"""What is trained is what is served: eval mode equals the engine on every logit, whatever the method and width."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import netsuke
from methods.qat.tiny import SHAPE, Branching, Sliced, everything, images
from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.methods.qat import QatNetwork, Samples, TrainConfig, prepare, train
from netsuke.nn.qlayers import QuantLayer
from netsuke.passes import compile_program
from netsuke.program.model import Program

METHODS = ("qat/lsq", "qat/ste", "qat/whitepaper", "qat/pact", "qat/dorefa")


def step(network: QatNetwork, rate: float = 0.05) -> float:
    x, y = images()
    optimizer = torch.optim.SGD(network.groups(rate, 1e-4), lr=rate)
    loss = nn.functional.cross_entropy(network.train()(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def compare(network: QatNetwork) -> Program:
    """Engine and eval mode on batches of 1 and 7; the compiled program."""
    program = compile_program(network.export())
    run, x = engine.load(program), images(7, seed=9)[0]
    network.eval()
    for part in (x, x[:1]):
        with torch.no_grad():
            expected = network(part).numpy()
        assert np.array_equal(np.asarray(run(part.numpy())), expected)
    return program


def limits(program: Program) -> list[tuple[int, int]]:
    """(largest weight code, largest output code) of every integer layer."""
    return [
        (int(np.abs(program.constants[n.inputs[1]].astype(int)).max()), int(n.attrs.get("hi", 255)))  # type: ignore[call-overload]
        for n in program.nodes
        if n.op in ("qconv", "qlinear")
    ]


def test_served_equals_trained_with_every_operator() -> None:
    x, _ = images()
    network = prepare(everything(), shape=SHAPE, weight_bits=3, activation_bits=3, calib=x)
    for _ in range(3):
        step(network)
    program = compare(network)
    found = limits(program)
    assert len(found) == 9
    assert found[0][0] <= 127
    assert all(weight <= 3 for weight, _ in found[1:-1])
    assert all(output <= 7 for _, output in found[:-3])
    assert not any(n.op in ("conv", "linear", "binary") for n in program.nodes)


def test_a_stream_of_its_own_bits() -> None:
    x, _ = images()
    network = prepare(everything(), shape=SHAPE, weight_bits=2, activation_bits=2, stream_bits=8, calib=x)
    widths = {name: q.spec.bits for name, q in network.activation_quantizers().items()}
    block = network.layers()["block.conv2"]
    assert (block.source.spec.bits, block.residual.spec.bits, block.target.spec.bits) == (2, 8, 8)  # type: ignore[union-attr]
    assert network.layers()["block.conv1"].source.spec.bits == 2
    assert set(widths.values()) == {2, 8}
    for _ in range(3):
        step(network)
    program = compare(network)
    narrowed = [n for n in program.nodes if n.op == "lut"]
    plain = prepare(everything(), shape=SHAPE, weight_bits=2, activation_bits=2, calib=x)
    step(plain)
    assert len(narrowed) > sum(n.op == "lut" for n in compare(plain).nodes)


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_serves_what_it_trains(method: str) -> None:
    x, _ = images()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    network = prepare(model, shape=SHAPE, method=method, weight_bits=4, activation_bits=4, calib=x)
    first = [step(network) for _ in range(6)]
    assert first[-1] < first[0]
    network.train()
    network.freeze_norms()
    step(network)
    compare(network)


def test_folded_norm_is_the_float_norm_without_quantizers() -> None:
    x, _ = images()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    network = prepare(model, shape=SHAPE, method="qat/whitepaper", weight_bits=8, activation_bits=8, calib=x)
    for quantizer in network.quantizers().values():
        quantizer.enabled = False
    model.train()
    network.train()
    assert torch.allclose(network(x), model(x), atol=1e-4)
    ours, theirs = network.layers()["0"].norm.norm, model[1]  # type: ignore[union-attr]
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-5)  # type: ignore[arg-type,union-attr]
    assert torch.allclose(ours.running_var, theirs.running_var, atol=1e-5)  # type: ignore[arg-type,union-attr]


def test_bits_by_pattern_and_float_layers() -> None:
    network = prepare(everything(), shape=SHAPE, bits={"block.*": (2, 4)}, keep=["gate"], calib=images()[0])
    rows = {row.name: row for row in network.plan}
    assert (rows["block.conv1"].weight_bits, rows["block.conv1"].activation_bits) == (2, 4)
    assert rows["gate"].kept
    assert (rows["stem.0"].weight_bits, rows["head"].weight_bits) == (8, 8)
    assert network.layers()["block.conv2"].weight.spec.bits == 2
    assert not isinstance(network.net.get_submodule("gate"), QuantLayer)
    step(network)


def test_problems_are_listed_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        prepare(everything(), shape=SHAPE, bits={"blok.conv1": (4, 4)}, keep=["haed"], weight_bits=9, stream_bits=1)
    text = str(caught.value)
    assert len(caught.value.problems) >= 4
    assert "stream_bits" in text
    assert "block.conv1" in text
    assert "head" in text
    with pytest.raises(UsageError, match="qat/lsq"):
        prepare(everything(), shape=SHAPE, method="qat/lsqq")


def test_slices_of_a_sequential_are_followed() -> None:
    network = prepare(Sliced(), shape=SHAPE, weight_bits=8, activation_bits=8, calib=images()[0])
    assert not network.plan.notes
    assert set(network.layers()) == {"layers.0", "layers.4", "layers.6"}
    for _ in range(3):
        step(network)
    assert [n.op for n in compare(network).nodes].count("qlinear") == 2
    x = torch.randn((500, 3, 8, 8), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = network(x).numpy()
    assert np.array_equal(np.asarray(engine.load(compile_program(network.export()))(x.numpy())), expected)


def test_a_network_that_cannot_be_traced_gets_quantizers_per_layer() -> None:
    network = prepare(Branching(), shape=SHAPE, stream_bits=8, calib=images()[0])
    assert any("cannot trace" in note for note in network.plan.notes)
    assert any("no stream" in note for note in network.plan.notes)
    assert set(network.layers()) == {"conv", "head"}
    step(network)
    program = compile_program(network.eval().export())
    x = images(4)[0]
    with torch.no_grad():
        expected = network(x).numpy()
    found = np.asarray(engine.load(program)(x.numpy()))
    assert np.allclose(found, expected, atol=0.05)  # the mean between the layers is float: a code may flip
    assert sum(n.op in ("qconv", "qlinear") for n in program.nodes) == 2


def test_training_resumes_where_it_stopped(tmp_path) -> None:  # type: ignore[no-untyped-def]
    x, y = images(96)
    teacher, results = everything(), []
    for path, epochs in ((None, (2,)), (tmp_path / "run.pt", (1, 2))):
        network = prepare(teacher, shape=SHAPE, calib=x[:32])
        for last in epochs:
            # The schedule belongs to the whole run: the first part is cut by an exception, as Ctrl-C would.
            config = TrainConfig(epochs=2, batch=32, rate=0.05)
            try:
                train(network, Samples(x, y), teacher=teacher, config=config, checkpoint=path, step=_cut(last))
            except KeyboardInterrupt:
                network = prepare(teacher, shape=SHAPE, calib=x[:32])
        with torch.no_grad():
            results.append(network(x))
    assert torch.equal(results[0], results[1])
    with pytest.raises(UsageError, match="another config"):
        train(network, Samples(x, y), config=TrainConfig(epochs=3, batch=32), checkpoint=tmp_path / "run.pt")


def _cut(epochs: int):  # type: ignore[no-untyped-def]
    from netsuke.methods.qat import plain_step

    count = [0]

    def run(*arguments):  # type: ignore[no-untyped-def]
        count[0] += 1
        if epochs == 1 and count[0] > 4:
            raise KeyboardInterrupt
        return plain_step(*arguments)

    return run


def test_fused_norms_train_as_torch_does() -> None:
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=torch.channels_last)
    found = []
    for fused in (False, True):
        network = prepare(everything(), shape=SHAPE, calib=x, weight_bits=8, activation_bits=8).train()
        network.fuse_norms(fused)
        network(x).square().mean().backward()
        grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None and n.endswith("layer.weight")}
        moved = {n: b for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var"))}
        found.append({**grads, **moved})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():  # a code at a threshold may fall to the other side
        assert float((value - found[1][name]).norm()) <= 0.02 * float(value.norm()), name


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(epochs=0, momentum=1.5, distill=2)
    assert len(caught.value.problems) == 3
    with pytest.raises(UsageError, match="as many"):
        Samples(torch.zeros(3, 1), torch.zeros(2))


def test_compress_takes_the_network_itself() -> None:
    x, _ = images()
    network = prepare(everything(), shape=SHAPE, weight_bits=4, activation_bits=4, calib=x).eval()
    small = netsuke.compress(network, measure=False)
    with torch.no_grad():
        assert np.array_equal(np.asarray(engine.load(small.program)(x.numpy())), network(x).numpy())
