"""The small Fashion-MNIST network, trained by us, judged on the 10,000 test images: shared by claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from netsuke import engine
from netsuke.data import load_data
from netsuke.models import build
from netsuke.papers.claim import Context

SHAPE = (1, 1, 28, 28)
WEIGHTS = "fashion_cnn/fashion_cnn.safetensors"


def network(context: Context) -> Any:
    """The network of `python -m netsuke.models.train fashion`: from the data root, from an earlier run, or trained now
    (ten minutes on one core)."""
    from safetensors.torch import save_file

    from netsuke.models.train import RECIPES, train
    from netsuke.papers.runner import state_folder

    places = [*([] if context.data_root is None else [context.data_root / WEIGHTS]), state_folder() / WEIGHTS]
    for place in places:
        if place.is_file():
            return build("fashion_cnn", weights=place)
    context.progress("training the float network, six epochs")
    torch.manual_seed(0)  # dropout
    made, top1 = train(RECIPES["fashion"], str(context.data_root))
    context.progress(f"trained: {top1:.4f} on the test images")
    places[-1].parent.mkdir(parents=True, exist_ok=True)
    kept = {k: v.contiguous() for k, v in made.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(kept, str(places[-1]))
    return made


def tensors(context: Context, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All images [N, 1, 28, 28] in [0, 1] and labels."""
    parts = list(load_data(f"fashion-mnist:{split}", context.data_root).batches(500))
    labels = np.concatenate([np.asarray(part[1], np.int64) for part in parts])
    return torch.from_numpy(np.concatenate([part[0] for part in parts])), torch.from_numpy(labels)


def served(program: Any, x: torch.Tensor) -> torch.Tensor:
    """The engine's logits."""
    run = engine.load(program, threads=1)
    return torch.cat([torch.from_numpy(np.asarray(run(part.numpy()))) for part in x.split(250)])


def top1(logits: torch.Tensor, y: torch.Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean())


def real(model: Any, x: torch.Tensor) -> torch.Tensor:
    """The float network's logits."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(250)])
