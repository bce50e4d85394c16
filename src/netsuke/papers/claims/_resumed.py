"""Trainings of a claim that go on after an interrupt: from the last finished epoch of each, until the seed is done."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsuke.papers.claim import Context

if TYPE_CHECKING:
    from torch import Tensor, nn


class Trainings:
    """Checkpoints of one seed of one claim, named after the claim, the seed and the claim's source.

    `run` trains or takes up what an interrupted run left; `forget` removes the files when the seed has its figures.
    """

    def __init__(self, context: Context, claim: str, module: str, seed: int) -> None:
        from netsuke.papers.runner import state_folder

        source = Path(str(sys.modules[module].__file__)).read_bytes()
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self.stem = folder / f"{claim.replace('/', '--')}-{seed}-{hashlib.sha256(source).hexdigest()[:8]}"
        self.context, self.seed = context, seed

    def path(self, name: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{name.replace(' ', '-')}.pt")

    def run(
        self,
        name: str,
        model: nn.Module,
        data: tuple[Tensor, Tensor],
        *,
        epochs: int,
        batch: int,
        rate: float,
        augment: Callable[..., Tensor] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Any:
        """The model after AdamW with a one-cycle rate; surrogates sharpen with the steps."""
        import torch

        import netsuke

        result = netsuke.train(
            model,
            data,
            method="",
            epochs=epochs,
            batch=batch,
            optimizer=lambda p: torch.optim.AdamW(p, lr=rate, weight_decay=0.0),
            schedule=lambda optimizer, steps: sharpening(model, optimizer, rate, steps),
            augment=augment,
            loss=loss,
            checkpoint=self.path(name),
            seed=self.seed,
            progress=False,
        )
        self.context.progress(f"seed {self.seed}: {name}: {result.summary()}")
        return result.model

    def forget(self) -> None:
        """The seed is done: remove its checkpoints."""
        for path in self.stem.parent.glob(f"{self.stem.name}-*.pt"):
            path.unlink()


def sharpening(model: nn.Module, optimizer: Any, rate: float, steps: int) -> Any:
    """A one-cycle schedule that tells binarizers how far training is at every step."""
    import torch

    from netsuke.nn.binary_layers import set_progress

    class Schedule(torch.optim.lr_scheduler.OneCycleLR):
        def step(self, epoch: int | None = None) -> None:
            super().step(epoch)
            set_progress(model, min(self.last_epoch / steps, 1.0))

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            set_progress(model, min(self.last_epoch / steps, 1.0))

    return Schedule(optimizer, rate, total_steps=steps)
