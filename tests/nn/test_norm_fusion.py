"""`fuse_norms`: what is joined, that nothing else changes, and every network that must be refused."""

from __future__ import annotations

import copy
import operator
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netsuke import engine, models
from netsuke.core.errors import UnsupportedError
from netsuke.methods.integer._graph import quantized_graph
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_fold import fold_norms_
from netsuke.nn.integer_swap import integer_
from netsuke.nn.l1_norm import use_l1_norm_
from netsuke.nn.norm_fusion import FusedForward, fuse_norms
from netsuke.passes import compile_program


class Block(nn.Module):
    """A residual block; `join` adds, `act` is the last activation."""

    def __init__(self, join: Callable[..., Tensor] = operator.add, down: bool = False, first: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.down = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)) if down else None
        self.relu, self.join, self.first = nn.ReLU(inplace=True), join, first

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.down(x) if self.down is not None and self.first else x
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.down is not None and not self.first:
            shortcut = self.down(x)
        return self.relu(self.join(y, shortcut))


class Net(nn.Module):
    """`body` between a stem and a head."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), body, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def net(body: nn.Module) -> Net:
    torch.manual_seed(0)
    made = Net(body)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return made.train()


X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(6) % 5


def trained(model: nn.Module, forward: Callable[[Tensor], Tensor], steps: int = 1, x: Tensor = X) -> dict[str, Tensor]:
    """Loss, gradients and state after some steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(forward(x), Y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    gradients = {f"d{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **model.state_dict()}


def assert_same(model: nn.Module, fused: FusedForward, x: Tensor = X, tolerance: float = 2e-4) -> None:
    """One step on the model and one on a copy through the fused pass: f32 rounding apart the same."""
    twin = copy.deepcopy(fused)
    ours, theirs = trained(twin.model, twin, x=x), trained(model, model, x=x)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        error = float((ours[key].double() - value.double()).abs().max())
        assert error <= tolerance * max(1.0, float(value.double().abs().max())), (key, error)


JOINS: dict[str, Callable[..., Tensor]] = {
    "+": operator.add,
    "+=": operator.iadd,
    "turned": lambda y, s: s + y,
    "torch.add": torch.add,
    "method": lambda y, s: y.add(s),
    "add_": lambda y, s: y.add_(s),
}


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("down", [False, True])
def test_every_way_to_add_is_found(join: str, down: bool) -> None:
    model = net(nn.Sequential(Block(JOINS[join], down), Block(JOINS[join], down, first=False)))
    fused = fuse_norms(model, X[:2])
    kinds = list(fused.fused.values())
    assert kinds.count("norm + relu") == 2
    assert kinds.count("norm + add + relu") == 2, fused.fused
    assert kinds.count("norm") == 2 * down
    assert not fused.left
    assert_same(model, fused)


class Relus(nn.Module):
    """Every way to write a ReLU, in turn."""

    WAYS = (functional.relu, functional.relu_, torch.relu, lambda v: v.relu(), lambda v: v.relu_(),
            lambda v: functional.relu(v, inplace=True), nn.ReLU)  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in self.WAYS)
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for norm, way in zip(self.norms, self.WAYS, strict=True):
            x = self.last(norm(x)) if way is nn.ReLU else way(norm(x))
        return x


def test_every_way_to_write_a_relu_is_found() -> None:
    model = net(Relus())
    fused = fuse_norms(model, X[:2])
    assert set(fused.fused.values()) == {"norm + relu"}
    assert len(fused.fused) == len(Relus.WAYS)
    assert_same(model, fused, tolerance=2e-3)


class Written(nn.Module):
    """Passes that must not be joined the usual way; by name."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b, self.way = nn.BatchNorm2d(4), nn.BatchNorm2d(4), way

    def forward(self, x: Tensor) -> Tensor:
        match self.way:
            case "two readers":
                y = self.a(x)
                return torch.relu(y) + y
            case "sum has two readers":
                y = self.a(x) + x
                return torch.relu(y) * y
            case "alpha":
                return torch.relu(torch.add(self.a(x), x, alpha=2))
            case "a number":
                return torch.relu(self.a(x) + 1)
            case "itself":
                y = self.a(x)
                return torch.relu(y + y)
            case "into the residual":
                r = x * 2
                return torch.relu(r.add_(self.a(x)))
            case "its input changes":
                z = x * 1
                y = self.a(z)
                r = z.clone()
                z.detach().zero_()
                return torch.relu(y + r)
            case "broadcast":
                return torch.relu(self.a(x) + x.mean((2, 3), keepdim=True))
            case "twice":
                return torch.relu(self.a(torch.relu(self.a(x))))
            case "keyword":
                return torch.relu(self.a(input=x))
            case "output":
                return self.a(x)
            case "three":
                return torch.relu(self.a(x) + self.b(x) + x)
        raise AssertionError(self.way)


@pytest.mark.parametrize(
    ("way", "expected", "left"),
    [
        ("two readers", "norm", ""),
        ("sum has two readers", "norm + add", ""),
        ("alpha", "norm", ""),
        ("a number", "norm", ""),
        ("itself", "norm", ""),
        ("into the residual", "norm", ""),
        ("its input changes", "norm", ""),
        ("broadcast", "norm + add + relu", ""),
        ("output", "norm", ""),
        ("three", "norm", ""),
        ("twice", "", "called more than once"),
        ("keyword", "", "another way"),
    ],
)
def test_what_reads_and_writes_in_between_is_respected(way: str, expected: str, left: str) -> None:
    model = net(nn.Sequential(Written(way), nn.BatchNorm2d(4)))
    if way == "its input changes":  # backward through torch's own operators is refused there: forward only
        fused = fuse_norms(model, X[:2])
        with torch.no_grad():
            assert torch.allclose(fused(X), copy.deepcopy(model)(X), atol=1e-5)
        assert fused.fused["body.0.a"] == expected
        return
    fused = fuse_norms(model, X[:2])
    assert fused.fused.get("body.0.a", "") == expected
    assert left in fused.left.get("body.0.a", ""), fused.left
    assert_same(model, fused)


def hook(*_: Any) -> None:
    return None


def test_modules_that_are_not_plain_are_left_with_a_reason() -> None:
    class Other(nn.BatchNorm2d):
        pass

    model = net(nn.Sequential(Block(), Block(), Block()))
    blocks: Any = model.body
    blocks[0].bn1 = Other(4)
    blocks[1].bn1.register_forward_hook(hook)
    blocks[2].relu.register_forward_hook(hook)
    fused = fuse_norms(model, X[:2])
    assert fused.left == {"body.0.bn1": "it is a Other", "body.1.bn1": "it has hooks"}
    assert fused.fused["body.2.bn1"] == "norm"
    assert fused.fused["body.2.bn2"] == "norm + add"
    assert "2 left to torch: body.0.bn1: it is a Other, ..." in fused.summary()
    seen: list[int] = []
    blocks[0].bn2.register_forward_hook(lambda *_: seen.append(1))  # afterwards: it runs
    fused(X)
    assert seen == [1]


class Refused(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.norm, self.way, self.count, self.log = nn.BatchNorm2d(3), way, 0, [0]
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(x))
        match self.way:
            case "dropout":
                return functional.dropout(y, 0.5, training=self.training)
            case "mode":
                return y * 2 if self.training else y
            case "flow":
                return y if y.sum() > 0 else -y
            case "torch noise":
                return y + torch.randn(3, 1, 1)
            case "numpy noise":
                return y * float(np.random.rand())  # noqa: NPY002
            case "chance":
                return y * 2 if random.random() < 0.5 else y
            case "counter":
                self.count += 1
            case "list":
                self.log.append(1)
            case "buffer":
                self.seen += 1
            case "constant":
                return y * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
            case "no gradient":
                with torch.no_grad():
                    y = y + x.mean()
            case "autocast":
                with torch.autocast("cpu", torch.bfloat16):
                    y = functional.conv2d(y, torch.ones_like(y[:3, :, :1, :1]))
            case "alias":
                z = x * 2
                corner = z[:, :, :1, :1]
                z += y
                return z + corner
            case "isinstance":
                return y if isinstance(x, Tensor) else -y
        return y


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("dropout", "differs between training and evaluation"),
        ("mode", "differs between training and evaluation"),
        ("flow", "cannot follow the pass.*TraceError"),
        ("torch noise", "random numbers"),
        ("numpy noise", "random numbers"),
        ("chance", "random numbers"),
        ("counter", "changes, draws or makes.*count"),
        ("list", "changes, draws or makes.*log"),
        ("buffer", "changes, draws or makes.*seen"),
        ("constant", "a constant tensor"),
        ("no gradient", "gradients or autocast"),
        ("autocast", "gradients or autocast"),
        ("isinstance", "other outputs"),
        ("alias", "other outputs"),  # torch.fx writes += down as +
    ],
)
def test_passes_that_a_graph_cannot_hold_are_refused(way: str, told: str) -> None:
    model = Refused(way).train()
    state, count = copy.deepcopy(model.state_dict()), (model.count, list(model.log))
    with pytest.raises(UnsupportedError, match=told):
        fuse_norms(model, X[:2])
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items()), "the model is not changed"
    assert (model.count, model.log) == count
    assert model.training


def test_models_that_cannot_be_taken_are_refused() -> None:
    class Many(Refused):
        def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
            return self.norm(x) + len(rest)

    class Two(Refused):
        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return self.norm(x) + z

    hooked = net(nn.Sequential(Block()))
    hooked.body.register_forward_hook(hook)
    root = net(nn.Sequential(Block()))
    root.register_full_backward_hook(hook)
    cases: tuple[tuple[nn.Module, str], ...] = (
        (nn.Sequential(nn.Conv2d(3, 3, 1)), "no batch normalization"),
        (Many(""), "any number of arguments"),
        (Two(""), "other than one input"),
        (hooked, "hooks on a module"),
        (root, "hooks on a module"),
        (nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(4)), "example does not pass"),
    )
    for model, told in cases:
        with pytest.raises(UnsupportedError, match=told):
            fuse_norms(model, X[:2])


def test_a_default_argument_is_kept_and_other_calls_are_the_models() -> None:
    class Masked(Refused):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y = torch.relu(self.norm(x))
            return y if mask is None else y * mask

    model = Masked("").train()
    fused = fuse_norms(model, X[:2])
    mask = torch.zeros(1)
    assert float(fused(X).detach().abs().max()) > 0
    assert float(fused(X, mask).detach().abs().max()) == 0
    assert float(fused(X, mask=mask).detach().abs().max()) == 0
    model.eval()
    assert torch.equal(fused(X), model(X))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet20", {"norm + relu": 10, "norm + add + relu": 9}),
        ("resnet18", {"norm + relu": 9, "norm + add + relu": 8, "norm": 3}),
        ("mobilenetv2", {"norm": 42, "norm + add": 10}),  # ReLU6 is torch's
        ("shufflenetv2", {"norm + relu": 37, "norm": 19}),
    ],
)
def test_reference_networks(name: str, kinds: dict[str, int]) -> None:
    torch.manual_seed(0)
    model = models.build(name).train()
    fused = fuse_norms(model, torch.randn(2, 3, 32, 32))
    found = list(fused.fused.values())
    assert {k: found.count(k) for k in set(found)} == kinds
    assert not fused.left
    if name == "resnet20":
        assert_same(model, fused, torch.randn(6, 3, 16, 16), tolerance=5e-3)


def test_a_pass_on_another_class_of_network() -> None:
    """VGG's Sequential, in float: all norms with their ReLU."""
    model = net(
        nn.Sequential(*[m for _ in range(3) for m in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())])
    )
    fused = fuse_norms(model, X[:2])
    assert list(fused.fused.values()) == ["norm + relu"] * 3
    assert_same(model, fused)


def test_what_torch_fx_cannot_follow_in_a_reference_network() -> None:
    with pytest.raises(UnsupportedError, match="cannot follow"):
        fuse_norms(models.build("yolov8n"), X[:2])


def integer(model: nn.Module, bits: int = 8) -> nn.Module:
    return integer_(model, IntegerConfig(bits, bits, bits), keep_float=["stem"])


def test_integer_layers_train_fold_and_compile_as_without() -> None:
    """The model itself is served: nothing of the fused pass stays in it."""
    model = integer(net(nn.Sequential(Block(), Block(down=True))))
    keys = list(model.state_dict())
    fused = fuse_norms(model, X[:2])
    assert list(model.state_dict()) == keys
    before = float(functional.cross_entropy(fused(X), Y).detach())
    after = trained(model, fused, 12)["loss"]
    assert float(after) < 0.7 * before
    model.eval()
    program = compile_program(quantized_graph(model, (1, 3, 8, 8)))
    folded = fold_norms_(copy.deepcopy(model), X[:2])
    ours = engine.load(program).run({program.inputs[0].name: X.numpy()})[program.outputs[0].name]
    with torch.no_grad():
        assert np.array_equal(np.asarray(ours), folded(X).numpy())


def test_quantized_l1_normalizations_keep_their_bits() -> None:
    """ReLU and addition in their kernel, codes handed to the next convolution and codes of gradients to their own
    change nothing."""
    model = use_l1_norm_(integer(net(nn.Sequential(Block(), Block(down=True)))), IntegerConfig())
    twin = copy.deepcopy(model)
    fused = fuse_norms(model, X[:2])
    assert sorted(fused.fused.values()) == ["norm", *["norm + add + relu"] * 2, *["norm + relu"] * 2]
    ours, theirs = trained(model, fused, 3), trained(twin, twin, 3)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_copies_and_files_are_fused_passes_of_their_own() -> None:
    model = integer(net(nn.Sequential(Block(), Block(down=True))))
    fused = fuse_norms(model, X[:2])
    copies = [copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))]
    expected = trained(model, fused, 3)
    for other in copies:
        assert other.model is not model
        assert other.fused == fused.fused
        found = trained(other.model, other, 3)
        assert all(torch.equal(found[k], v) for k, v in expected.items())


def test_modules_exchanged_afterwards_are_used() -> None:
    """The pass looks modules up when it runs: the L1 normalization computes where a batch normalization was."""
    model = net(nn.Sequential(Block(), Block()))
    fused = fuse_norms(model, X[:2])
    use_l1_norm_(integer(model), None)
    twin = copy.deepcopy(model)
    assert torch.equal(fused(X), twin(X))
