"""`netsuke.train`: a training loop around a method of integer training.

Any torch optimizer and schedule; checkpoints hold everything that decides the next bit (weights, ranges, optimizer,
schedule, generators, position), so a resumed run gives the bytes of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.core.method import find
from netsuke.core.options import configure

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CHECKPOINT_SCHEMA = 1


@dataclass
class TrainResult:
    """model: trained, in eval mode. history: one row an epoch: epoch, loss, seconds; accuracy when evaluated; with
    integer layers the means over layers, on the epoch's last batch, of `netsuke.nn.integer_probe`. notes: on how it was
    computed."""

    model: nn.Module
    history: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line on the last epoch, then the notes."""
        last = self.history[-1] if self.history else {}
        return "\n".join(["  ".join(f"{k} {v:.4g}" for k, v in last.items()), *self.notes])


def samples(data: Any, where: str) -> tuple[Tensor, Tensor]:
    """All inputs and labels in memory, from a pair of arrays or tensors, a Dataset, or a name like "digits:train"."""
    import torch

    from netsuke.data import load_data

    if isinstance(data, tuple) and len(data) == 2:
        return _checked(torch.as_tensor(data[0]), torch.as_tensor(data[1]), where)
    parts = list(load_data(data).batches(256))
    if not parts or len(parts[0]) < 2 or parts[0][1] is None:
        raise UsageError(Problem("training needs labels", where=where, hint="pass (inputs, labels)"))
    x = torch.from_numpy(np.concatenate([np.asarray(p[0]) for p in parts]))
    return _checked(x, torch.from_numpy(np.concatenate([np.asarray(p[1], np.int64) for p in parts])), where)


def _checked(x: Tensor, y: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Inputs (other float types as f32) and labels that belong together."""
    import torch

    problems = []
    if len(x) == 0:
        problems.append(Problem("no samples", where))
    if len(x) != len(y):
        problems.append(Problem("inputs and labels differ in number", where, f"{len(x)} and {len(y)}"))
    if x.dtype == torch.uint8:
        hint = "x.astype(numpy.float32) / 255, channels first"
        problems.append(Problem("inputs are bytes", where, "uint8", "what the network takes, f32", hint))
    if problems:
        raise UsageError(problems)
    return (x.float() if x.is_floating_point() else x), (y if y.is_floating_point() else y.long())


@dataclass
class _Run:
    """What a checkpoint restores."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    order: torch.Generator
    identity: dict[str, Any]
    forward: Callable[[Tensor], Any]  # of the model, in training
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        import torch

        state = {
            "schema": CHECKPOINT_SCHEMA,
            "identity": self.identity,
            "epoch": self.epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "order": self.order.get_state(),
            "torch": torch.get_rng_state(),
        }
        part = path.with_name(path.name + ".part")
        torch.save(state, part)
        part.replace(path)  # a reader sees the old file or the new one

    def load(self, path: Path) -> None:
        import torch

        try:
            state = torch.load(path, weights_only=True)
            found, schema = state["identity"], state["schema"]
        except Exception as error:
            raise FileError(Problem("not a checkpoint of netsuke.train", where=str(path), got=str(error))) from error
        if schema != CHECKPOINT_SCHEMA:
            raise FileError(Problem("checkpoint of another version", str(path), str(schema), str(CHECKPOINT_SCHEMA)))
        theirs, ours = _flat(found), _flat(self.identity)
        wrong = [
            Problem(f"the checkpoint was trained with another {key}", str(path), str(theirs.get(key)), str(value))
            for key, value in ours.items()
            if theirs.get(key, None if key not in _LATER else value) != value
        ]
        if wrong:
            raise UsageError(wrong, "this run cannot continue that checkpoint: remove the file or use its settings")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        torch.set_rng_state(state["torch"])
        self.epoch, self.history = state["epoch"], state["history"]


_LATER = ("optimizer", "normalizations")  # what checkpoints written before it was compared do not hold


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with its method's options one by one."""
    return {**{k: v for k, v in identity.items() if k != "options"}, **identity.get("options", {})}


@contextlib.contextmanager
def _progress(total: int, text: str, *, shown: bool) -> Iterator[Callable[[str], None]]:
    if not shown:
        yield lambda _text: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda note: bar.update(task, advance=1, description=note)


def accuracy(model: nn.Module, x: Tensor, y: Tensor, batch: int = 256) -> float:
    """Share of samples whose largest logit is the label, in eval mode; the mode is restored."""
    import torch

    training = model.training
    model.eval()
    with torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(batch), y.split(batch), strict=True))
    model.train(training)
    return right / len(x)


def _epoch(
    run: _Run, x: Tensor, y: Tensor, batch: int, loss_of: Any, augment: Any, *, shown: bool
) -> tuple[float, dict[str, float]]:
    """Mean loss, and what the integer layers lost on the last batch."""
    import torch

    from netsuke.nn.integer_master import settle_all
    from netsuke.nn.integer_train import probed

    run.model.train()
    groups = torch.randperm(len(x), generator=run.order).split(batch)
    losses = []
    with _progress(len(groups), f"epoch {run.epoch + 1}", shown=shown) as step:
        for index, rows in enumerate(groups):
            images = augment(x[rows], run.order) if augment is not None else x[rows]
            last = index == len(groups) - 1
            with probed(run.model) if last else contextlib.nullcontext() as probe:
                loss = loss_of(run.forward(images), y[rows])
                run.optimizer.zero_grad()
                loss.backward()
            run.optimizer.step()
            if run.schedule is not None:
                run.schedule.step()
            losses.append(float(loss.detach()))
            step(f"epoch {run.epoch + 1}  loss {losses[-1]:.4f}")
    settle_all(run.model)
    return float(np.mean(losses)), probe.means() if probe is not None else {}


def _training_pass(
    model: nn.Module, x: Tensor, config: Any, *, fuse: bool
) -> tuple[Callable[[Tensor], Any], list[str]]:
    """The pass that trains: with normalizations in one kernel with what stands behind them where the method computes
    with the kernels, and a word on it."""
    import torch

    from netsuke.core.errors import UnsupportedError
    from netsuke.nn.l1_norm import L1Norm2d
    from netsuke.nn.norm_fusion import fuse_norms

    found = any(isinstance(m, torch.nn.BatchNorm2d | L1Norm2d) for m in model.modules())
    if not (fuse and found and config is not None and getattr(config, "products", "kernels") == "kernels"):
        return model, []
    try:
        fused = fuse_norms(model, x[:2])
    except UnsupportedError as error:
        why = "; ".join(str(problem.what) for problem in error.problems)
        return model, [f"normalizations are computed by torch, one operator after the other: {why}"]
    return fused, [fused.summary()]


def train(
    model: nn.Module,
    data: Any,
    *,
    method: str = "integer/shiftquant",
    options: dict[str, Any] | None = None,
    epochs: int = 1,
    batch: int = 128,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    schedule: Callable[[torch.optim.Optimizer, int], Any] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    evaluate: Any = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    keep_memory: bool = True,
    fuse: bool = True,
    notify: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train a network in place with an integer method ("" trains in float) and return it with its history.

    data, evaluate   (inputs f32 [N, ...] or token ids, labels [N]), a Dataset, or a name like "digits:train"
    options          of the method, e.g. {"weight_bits": 6, "keep_float": "conv1|fc"}
    optimizer        parameters -> torch optimizer; SGD with lr 0.05, momentum 0.9 and weight decay 1e-4 by default
    schedule         (optimizer, steps in all) -> a schedule that is stepped after every batch
    augment          (images, generator) -> images; draws from that generator only
    checkpoint       written after every epoch; an existing one is continued, refused when method, options, data size,
                     batch, seed, epochs or the optimizer's settings differ
    keep_memory      freed memory stays for the next step while this runs (`netsuke.nn.kept_memory`) and goes back to
                     the system at the end; False, or NETSUKE_KEEP_MEMORY=0: left to the C library
    fuse             batch normalization, the addition and the ReLU behind it are one kernel while an integer method
                     trains (`netsuke.nn.norm_fusion`); a network that cannot be taken trains as it is, `notes` say why
    notify           called after every epoch with its number and loss
    """
    import torch

    from netsuke.nn import kept_memory as memory

    problems = [
        Problem(f"{name} must be at least 1", got=str(value))
        for name, value in (("epochs", epochs), ("batch", batch))
        if value < 1
    ]
    if problems:
        raise UsageError(problems)
    x, y = samples(data, "data")
    config, record = None, None
    if method:
        record = find(method)
        if "train" not in record.tags:
            raise UsageError(Problem("the method does not train", got=method, allowed="methods tagged 'train'"))
        config = configure(record.config, options or {}, method)
    elif options:
        raise UsageError(Problem("training in float has no options", "options", ", ".join(options)))
    identity = {
        "method": method,
        "options": {} if config is None else {k: str(v) for k, v in dataclasses.asdict(config).items()},
        "samples": len(x),
        "batch": batch,
        "seed": seed,
        "epochs": epochs,
        "network": type(model).__name__,
    }
    held = samples(evaluate, "evaluate") if evaluate is not None else None
    with memory.kept_memory(keep_memory):
        if record is not None:
            record.apply(model, config)
            memory.keep_memory(keep_memory)  # methods keep it, whatever was asked for here
        made = (optimizer or _default_optimizer)(model.parameters())
        plan = schedule(made, epochs * -(-len(x) // batch)) if schedule else None
        settings = (f"{k} {v}" for k, v in made.defaults.items() if isinstance(v, int | float | tuple))
        identity["optimizer"] = f"{type(made).__name__}: {', '.join(settings)}"
        forward, notes = _training_pass(model, x, config, fuse=fuse)
        identity["normalizations"] = "torch" if forward is model else "fused"
        run = _Run(model, made, plan, torch.Generator().manual_seed(seed), identity, forward)
        path = Path(checkpoint) if checkpoint else None
        if path is not None and path.is_file():
            run.load(path)
        while run.epoch < epochs:
            started = time.perf_counter()
            mean, lost = _epoch(run, x, y, batch, loss or torch.nn.functional.cross_entropy, augment, shown=progress)
            run.epoch += 1
            row = {"epoch": float(run.epoch), "loss": mean, "seconds": time.perf_counter() - started, **lost}
            if held is not None:
                row["accuracy"] = accuracy(model, *held)
            run.history.append(row)
            if path is not None:
                run.save(path)
            if notify is not None:
                notify(run.epoch, mean)
    return TrainResult(model.eval(), run.history, notes)


def _default_optimizer(parameters: Any) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)
