"""`netsuke train`: from a PyTorch network and labelled data to a trained .nsk.

Which methods is a question to the registry: records with the tag "rules" put quantizers into the network (room `qat`),
with "train" they change the arithmetic it trains in (room `integer`), with "step" what happens with a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsuke.core.errors import Problem, UsageError, near
from netsuke.core.method import Method, methods
from netsuke.core.options import configure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsuke.program.model import Program

Progress = Callable[[str, float], None]
TAGS = ("rules", "train")


@dataclass(frozen=True)
class TrainRequest:
    """What to train, with what.

    model       name of a reference network, file.py:factory, or a torch module; weights: its file
    data, evaluate  with labels: what `load_data` takes; evaluate "": not evaluated
    method      a record tagged "rules" or "train"; options: of its config
    bits        (weights, activations) of methods tagged "rules", (4, 4) when None; others take widths as options
    stream_bits of what additions and means read, when it is not what layers read (rules only)
    step        a record tagged "step", or ""; step_options
    epochs, batch, rate, minutes, distill, seed  as `netsuke.methods.qat.TrainConfig`; minutes and distill (0.9 when
                None): rules only
    checkpoint  file written after every epoch; an existing one of the same run is continued
    """

    model: Any
    data: Any
    evaluate: Any = ""
    method: str = "qat/lsq"
    options: Mapping[str, Any] = field(default_factory=dict)
    bits: tuple[int, int] | None = None
    stream_bits: int | None = None
    step: str = ""
    step_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch: int = 128
    rate: float = 0.02
    minutes: float = 0.0
    distill: float | None = None
    seed: int = 0
    shape: Any = None
    weights: Any = None
    data_root: Any = None
    preprocess: Any = None
    checkpoint: Path | None = None


@dataclass
class TrainedNetwork:
    """program: compiled. before, after: top-1 of the float network and of the engine, None when not evaluated. exact:
    the engine gives the trained network's outputs on a batch, bit for bit; None where the method does not promise it.
    losses: mean of each epoch. notes: for the reader."""

    program: Program
    float_bytes: int
    before: float | None
    after: float | None
    exact: bool | None
    losses: list[float]
    notes: list[str]

    def summary(self) -> str:
        """The line of truth."""
        from netsuke.program import to_bytes

        size = len(to_bytes(self.program))
        parts = [f"{self.float_bytes / 1e3:.1f} kB -> {size / 1e3:.1f} kB ({self.float_bytes / size:.1f}x)"]
        if self.before is not None and self.after is not None:
            parts.append(f"top1 {100 * self.before:.2f} -> {100 * self.after:.2f}")
        if self.exact is not None:
            parts.append("engine = trained network, bit for bit" if self.exact else "ENGINE DIFFERS from the network")
        return f"{self.program.name}   " + "   ".join(parts)

    def as_json(self) -> dict[str, Any]:
        from netsuke.program import to_bytes

        keys = ("float_bytes", "before", "after", "exact", "losses", "notes")
        size = len(to_bytes(self.program))
        return {"schema": "netsuke.train/1", "name": self.program.name, "bytes": size} | {
            k: getattr(self, k) for k in keys
        }


def trainers() -> dict[str, Method]:
    """The methods that `train_network` takes, by name."""
    return {name: m for name, m in methods().items() if set(m.tags) & set(TAGS)}


def train_network(request: TrainRequest, progress: Progress = lambda _text, _share: None) -> TrainedNetwork:
    """Train, compile, compare. The network given is not changed. Raises UsageError with everything that is wrong."""
    import copy

    record = _checked(request)
    model = _network(request)
    x, y = _tensors(request.data, "calib", request)
    shape = (1, *x.shape[1:]) if request.shape is None else tuple(request.shape)
    notes: list[str] = []
    if "rules" in record.tags:
        trained, losses = _with_quantizers(request, model, x, y, shape, progress, notes)
        graph = trained.export()
    else:
        trained, losses = _with_arithmetic(request, copy.deepcopy(model), x, y, progress, notes)
        graph, trained = _captured(trained, shape)
        notes += _served_as(trained)
    from netsuke.passes import compile_program

    name = request.model if isinstance(request.model, str) else type(model).__name__
    program = compile_program(graph, name=Path(name.removeprefix("models:")).name.replace(":", "_"))
    return _judged(request, program, model, trained, x, losses, notes, exact="rules" in record.tags)


def _checked(request: TrainRequest) -> Method:
    """The record of the method; UsageError lists unknown names and bad numbers at once."""
    known, problems = trainers(), []
    if request.method not in known:
        allowed = near(request.method, known)
        problems.append(Problem("not a method that trains a network", "method", request.method, allowed))
    elif request.method == "qat/double_rounding":
        hint = "netsuke.methods.qat.double_rounding.Views"
        problems.append(Problem("several widths are trained from Python", "method", request.method, hint=hint))
    elif request.method == "integer/one_bit_fqt":
        hint = "netsuke.train in Python"
        problems.append(Problem("one-bit training has no served form yet", "method", request.method, hint=hint))
    steps = [n for n, m in methods().items() if "step" in m.tags]
    if request.step and request.step not in steps:
        problems.append(Problem("no such training step", "step", request.step, near(request.step, steps)))
    if request.step and request.method in known and "rules" not in known[request.method].tags:
        problems.append(Problem("a step needs quantizers", "step", request.step, hint="a method of the room qat"))
    if request.method in known and "rules" not in known[request.method].tags:
        problems += _without_quantizers(request)
    for key, low in (("epochs", 1), ("batch", 1), ("rate", 1e-9), ("minutes", 0), ("distill", 0)):
        if getattr(request, key) is not None and not getattr(request, key) >= low:
            problems.append(Problem(key, "training", str(getattr(request, key)), f"at least {low:g}"))
    if problems:
        raise UsageError(problems)
    return known[request.method]


def _without_quantizers(request: TrainRequest) -> list[Problem]:
    """Settings of the room `qat` that a method of another room would not see."""
    given = {
        "bits": request.bits,
        "stream bits": request.stream_bits,
        "minutes": request.minutes or None,
        "distill": request.distill,
    }
    hints = {"bits": f"--method {request.method}:weight_bits=6,activation_bits=6", "minutes": "epochs"}
    return [
        Problem("only methods with quantizers take this", name, str(value), hint=hints.get(name, ""))
        for name, value in given.items()
        if value is not None
    ]


def _network(request: TrainRequest) -> nn.Module:
    """A float network in eval mode."""
    if not isinstance(request.model, str):
        return request.model.eval()  # type: ignore[no-any-return]
    from netsuke.capture.torch_export import load_factory
    from netsuke.models import build, load_weights

    file, _, name = request.model.rpartition(":")
    if file.endswith(".py") and name.isidentifier():
        made: nn.Module = load_factory(request.model)
        if request.weights:
            load_weights(made, Path(request.weights))
        return made.eval()
    if request.model.endswith((".onnx", ".pt2", ".nsk")):
        hint = "file.py:factory that makes the PyTorch network; compress takes ONNX files"
        raise UsageError(Problem("training needs a PyTorch network", "MODEL", request.model, hint=hint))
    return build(request.model.removeprefix("models:"), weights=request.weights or None)


def _tensors(data: Any, role: str, request: TrainRequest) -> tuple[Tensor, Tensor]:
    """All samples and labels in memory."""
    import torch

    from netsuke.data import load_data

    found = load_data(data, request.data_root, role=role, preprocess=request.preprocess)
    parts = list(found.batches(256))
    if not parts or len(parts[0]) < 2 or parts[0][1] is None:
        raise UsageError(Problem("training needs labels", where=str(data)[:80], hint="an .npz with x and y"))
    if not isinstance(parts[0][0], np.ndarray):
        raise UsageError(Problem("networks of one input only", where=str(data)[:80], hint="prepare and train, Python"))
    x = torch.from_numpy(np.concatenate([np.asarray(p[0], np.float32) for p in parts]))
    return x, torch.from_numpy(np.concatenate([np.asarray(p[1], np.int64) for p in parts]))


def _with_quantizers(
    request: TrainRequest, model: nn.Module, x: Tensor, y: Tensor, shape: tuple[int, ...], progress: Progress,
    notes: list[str],
) -> tuple[Any, list[float]]:  # fmt: skip
    """The room `qat`: its loop, with the float network as teacher."""
    import torch

    from netsuke.methods.qat import Samples, TrainConfig, plain_step, prepare, train

    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(request.seed))[:256]
    widths, distill = request.bits or (4, 4), 0.9 if request.distill is None else request.distill
    network = prepare(
        model, shape=shape, method=request.method, options=request.options, weight_bits=widths[0],
        activation_bits=widths[1], stream_bits=request.stream_bits, calib=x[rows],
    )  # fmt: skip
    step: Any = plain_step
    if request.step:
        record = methods()[request.step]
        step = record.apply(network, configure(record.config, dict(request.step_options), request.step))
    config = TrainConfig(
        epochs=request.epochs, batch=min(request.batch, len(x)), rate=request.rate, minutes=request.minutes,
        distill=distill, seed=request.seed,
    )  # fmt: skip
    teacher = model if distill else None
    done = train(
        network, Samples(x, y), teacher=teacher, config=config, step=step, checkpoint=request.checkpoint,
        progress=progress,
    )  # fmt: skip
    if hasattr(step, "finish"):
        notes.append(step.finish())
    notes += network.plan.notes
    if done.stopped:
        notes.append(done.stopped)
    return network.eval(), done.losses


def _with_arithmetic(
    request: TrainRequest, model: nn.Module, x: Tensor, y: Tensor, progress: Progress, notes: list[str]
) -> tuple[Any, list[float]]:
    """The room `integer`: an ordinary loop around layers of another arithmetic."""
    import torch

    from netsuke.pipeline.train import train

    def finished(epoch: int, loss: float) -> None:
        progress(f"{request.method}: epoch {epoch} of {request.epochs}, loss {loss:.4f}", epoch / request.epochs)

    progress(f"{request.method}: {request.epochs} epochs", 0.0)
    result = train(
        model, (x, y), method=request.method, options=dict(request.options), epochs=request.epochs,
        batch=min(request.batch, len(x)), checkpoint=request.checkpoint, seed=request.seed, progress=False,
        notify=finished, optimizer=lambda p: torch.optim.SGD(p, lr=request.rate, momentum=0.9, weight_decay=1e-4),
    )  # fmt: skip
    notes += result.notes
    return result.model.eval(), [row["loss"] for row in result.history]


def _captured(model: nn.Module, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """The graph to compile, and the network it equals (normalizations folded into integer layers)."""
    from netsuke.methods.integer._graph import served_graph

    return served_graph(model, shape)


def _served_as(trained: nn.Module) -> list[str]:
    """A word where the file computes in another arithmetic than the training did."""
    from netsuke.nn.integer_train import IntegerLayer

    if any(isinstance(m, IntegerLayer) for m in trained.modules()):
        return []
    return [
        "the file computes in float32, with the weights of training; `netsuke compress` makes it integers of 8 bits"
    ]


def _judged(
    request: TrainRequest, program: Program, model: nn.Module, trained: Any, x: Tensor, losses: list[float],
    notes: list[str], *, exact: bool,
) -> TrainedNetwork:  # fmt: skip
    """Accuracies, and whether the engine gives what the trained network gives."""
    import torch

    from netsuke import engine

    run = engine.load(program)
    with torch.no_grad():
        part = x[:32]
        same = bool(np.array_equal(np.asarray(run(part.numpy())), trained(part).numpy())) if exact else None
        before = after = None
        if request.evaluate:
            test, labels = _tensors(request.evaluate, "eval", request)
            before = _top1(lambda a: model(a).numpy(), test, labels)
            after = _top1(lambda a: np.asarray(run(a.numpy())), test, labels)
    size = 4 * sum(p.numel() for p in model.parameters())
    return TrainedNetwork(program, size, before, after, same, losses, notes)


def _top1(run: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> float:
    right = sum(int((run(a).argmax(1) == b.numpy()).sum()) for a, b in zip(x.split(256), y.split(256), strict=True))
    return right / len(x)
