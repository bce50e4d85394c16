"""The training loop: plain PyTorch with a cosine schedule, a float teacher, checkpoints, resume and a time limit.

    result = train(network, Samples(x, y, augment=flip_and_shift), teacher=model, config=TrainConfig(epochs=10))

Nothing here is needed to train a QatNetwork: any loop works. What this one adds is said in `TrainConfig` and `train`.
The same samples, config and seed give the same network (on one machine with one number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.methods.qat._network import QatNetwork
from netsuke.nn import fused_norm
from netsuke.nn.kept_memory import kept_memory

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TrainConfig:
    """epochs, batch    passes over the samples, samples a step (a last smaller batch is left out)
    rate, momentum      of SGD with Nesterov momentum, cosine to zero; scale_rate: of the quantizers' steps
    decay               weight decay of the weights; scales, norms and biases have none
    distill             weight of the teacher's soft labels against the true ones, 0 to 1
    temperature         of the soft labels
    freeze              share of the training after which batch norm keeps its moving statistics; 1: never
    minutes             stop after this time, with the schedule scaled to it; 0: no limit
    """

    epochs: int = 10
    batch: int = 128
    rate: float = 0.02
    scale_rate: float = 0.005
    momentum: float = 0.9
    decay: float = 1e-4
    distill: float = 0.9
    temperature: float = 2.0
    freeze: float = 0.8
    minutes: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "epochs": (1, 1e6),
            "batch": (1, 1e6),
            "rate": (1e-9, 1e3),
            "scale_rate": (0, 1e3),
            "momentum": (0, 0.9999),
            "decay": (0, 1),
            "distill": (0, 1),
            "temperature": (0.01, 100),
            "freeze": (0, 1),
            "minutes": (0, 1e6),
        }
        problems = [
            Problem(key, "training", str(getattr(self, key)), f"{low:g} to {high:g}")
            for key, (low, high) in limits.items()
            if not low <= getattr(self, key) <= high
        ]
        if problems:
            raise UsageError(problems)


@dataclass
class Samples:
    """Training data in memory.

    x, y     [N, ...] float32 (or uint8 with `prepare`), labels [N] int64
    augment  (batch, generator) -> batch; prepare: batch -> float32 input of the network
    """

    x: Tensor
    y: Tensor
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    prepare: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise UsageError(Problem("samples and labels", got=f"{len(self.x)} and {len(self.y)}", allowed="as many"))

    def batches(self, size: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled epoch."""
        for rows in torch.randperm(len(self.x), generator=rng).split(size):
            if len(rows) == size:
                x = self.x[rows]
                x = x if self.augment is None else self.augment(x, rng)
                yield (x if self.prepare is None else self.prepare(x)), self.y[rows]


def flip_and_shift(x: Tensor, rng: torch.Generator, reach: int = 4) -> Tensor:
    """Images [N, C, H, W], each mirrored with probability 1/2; the batch moved by up to `reach` pixels, zeros in."""
    turn = torch.rand(len(x), generator=rng) < 0.5
    x = torch.where(turn[:, None, None, None], x.flip(3), x)
    dy, dx = (int(v) for v in torch.randint(0, 2 * reach + 1, (2,), generator=rng))
    height, width = x.shape[2:]
    return F.pad(x, (reach,) * 4)[:, :, dy : dy + height, dx : dx + width]


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Step(Protocol):
    """One update: from a batch to changed parameters. Returns the loss."""

    def __call__(self, network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float: ...


def plain_step(network: QatNetwork, x: Tensor, y: Tensor, loss: Loss, optimizer: Any) -> float:
    """Forward, backward, step."""
    value = loss(network(x), x, y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return float(value.detach())


def make_loss(teacher: nn.Module | None, config: TrainConfig) -> Loss:
    """(outputs, inputs, labels) -> loss: cross-entropy, blended with the divergence from the teacher's outputs."""

    def loss(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if teacher is None or config.distill == 0:
            return F.cross_entropy(out, y)
        with torch.no_grad():
            soft = F.log_softmax(teacher(x) / config.temperature, 1)
        own = F.log_softmax(out / config.temperature, 1)
        apart = F.kl_div(own, soft, reduction="batchmean", log_target=True) * config.temperature**2
        return config.distill * apart + (1 - config.distill) * F.cross_entropy(out, y)

    return loss


@dataclass
class Trained:
    """What a run did: mean loss of each epoch, steps, seconds, and why it ended."""

    losses: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    stopped: str = ""


@kept_memory()
def train(
    network: QatNetwork,
    samples: Samples,
    *,
    teacher: nn.Module | None = None,
    config: TrainConfig = TrainConfig(),
    step: Step = plain_step,
    checkpoint: str | Path | None = None,
    progress: Progress = lambda _text, _share: None,
) -> Trained:
    """Train in place; leaves the network in eval mode.

    checkpoint  file written after every epoch; when it exists and belongs to the same run, training resumes there
    step        what happens with a batch; methods of this room bring their own

    Raises UsageError when the loss stops being a number: the network is left as it was at the last checkpoint.
    """
    network.fuse_norms(fused_norm.available())
    rng = torch.Generator().manual_seed(config.seed)
    groups = network.groups(config.rate, config.decay, config.scale_rate)
    optimizer = torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum, nesterov=config.momentum > 0)
    bases, state = [g["lr"] for g in optimizer.param_groups], Trained()
    path = Path(checkpoint) if checkpoint else None
    _resume(path, network, optimizer, rng, state, config)
    loss, begin = make_loss(teacher.eval() if teacher is not None else None, config), time.monotonic() - state.seconds
    total = config.epochs * (len(samples.x) // config.batch)
    if total == 0:
        raise UsageError(Problem("a batch is larger than the data", got=f"{config.batch} of {len(samples.x)}"))
    share = 0.0
    while len(state.losses) < config.epochs and share < 1:
        network.train()
        losses = []
        for x, y in samples.batches(config.batch, rng):
            share = _share(state.steps / total, time.monotonic() - begin, config)
            if share >= 1:
                state.stopped = f"time limit after {state.steps} steps"
                break
            if share >= config.freeze:
                network.freeze_norms()
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * 0.5 * (1 + math.cos(math.pi * share))
            losses.append(step(network, x, y, loss, optimizer))
            state.steps += 1
            if not math.isfinite(losses[-1]):
                what = "the loss is not a number"
                raise UsageError(Problem(what, "training", f"step {state.steps}", hint="a lower rate or scale_rate"))
            if state.steps % 10 == 0:
                progress(f"epoch {len(state.losses) + 1}/{config.epochs}  loss {losses[-1]:.4f}", share)
        state.losses.append(sum(losses) / max(1, len(losses)))
        state.seconds = time.monotonic() - begin
        _save(path, network, optimizer, rng, state, config)
    network.fuse_norms(False)
    network.eval()
    return state


def _share(steps: float, seconds: float, config: TrainConfig) -> float:
    """How much of the run is over: by steps, or by time where that is the limit."""
    return max(steps, seconds / (60 * config.minutes)) if config.minutes else steps


def _save(
    path: Path | None, network: QatNetwork, optimizer: Any, rng: torch.Generator, state: Trained, config: TrainConfig
) -> None:
    if path is None:
        return
    table = {
        "config": asdict(config),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": rng.get_state(),
        "state": asdict(state),
    }
    temporary = path.with_suffix(path.suffix + ".tmp")
    torch.save(table, temporary)
    temporary.replace(path)


def _resume(
    path: Path | None, network: QatNetwork, optimizer: Any, rng: torch.Generator, state: Trained, config: TrainConfig
) -> None:
    if path is None or not path.is_file():
        return
    try:
        table = torch.load(path, weights_only=True)
        same = table["config"] == asdict(config)
        if same:
            network.load_state_dict(table["network"])
            optimizer.load_state_dict(table["optimizer"])
            rng.set_state(table["rng"])
    except Exception as error:
        got = " ".join(str(error).split())[:200]
        raise FileError(Problem("not a checkpoint of this network", str(path), got, hint="delete it")) from None
    if not same:
        what = "the checkpoint belongs to a run with another config"
        raise UsageError(Problem(what, str(path), str(table["config"])[:200], hint="delete it, or name another file"))
    for key, value in table["state"].items():
        setattr(state, key, value)
