"""Training a student beside its float teacher, in stages: the loop that the transformers' binarizers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Batches = Callable[[int], "tuple[Any, Tensor]"]  # x is what the loss takes: a tensor, or several
Loss = Callable[["nn.Module", Any, "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Training:
    """AdamW with a one-cycle rate over `steps` batches; gradients clipped to norm 1."""

    steps: int
    rate: float = 2e-3
    decay: float = 0.0
    warm: float = 0.1


def task_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the logits [N, classes] or [N, T, classes] with y; y below 0 does not count."""
    from torch.nn import functional

    logits = model(x)
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=-100)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """- sum softmax(target) log softmax(logits), mean over everything but the classes."""
    return -(target.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def fit(
    model: nn.Module, batches: Batches, training: Training, loss: Loss = task_loss, *, sharpen: bool = True
) -> nn.Module:
    """Train in place; `batches(step)` gives x and y. Surrogates sharpen with the steps. Returns the model in eval mode.

    For stages call it again with another loss, or with modules swapped in between; each call has its own optimizer.
    """
    import torch

    from netsuke.nn.binary_layers import set_progress

    values = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(values, lr=training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.rate, total_steps=training.steps, pct_start=training.warm
    )
    model.train()
    for step in range(training.steps):
        if sharpen:
            set_progress(model, step / training.steps)
        x, y = batches(step)
        value = loss(model, x, y)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()
