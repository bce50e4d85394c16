"""ResNet-20 on CIFAR-10, trained with quantizers and measured in the engine: shared by the claims of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netsuke import engine, models
from netsuke.core.errors import FileError, Problem
from netsuke.data import load_data
from netsuke.methods.qat import QatNetwork, Samples, Step, TrainConfig, flip_and_shift, plain_step, prepare, train
from netsuke.papers.claim import Context, Outcome
from netsuke.passes import compile_program

SHAPE = (1, 3, 32, 32)
CONFIG = TrainConfig(epochs=3, rate=0.02, scale_rate=0.005)


def weights_file(data_root: Path | None, name: str = "resnet20") -> Path:
    """The public checkpoint: `cifar10_resnet/NAME.safetensors` in the data root, or in `models` beside it."""
    places = [] if data_root is None else [data_root, data_root.parent / "models"]
    for place in places:
        path = place / "cifar10_resnet" / f"{name}.safetensors"
        if path.is_file():
            return path
    looked = ", ".join(str(p / "cifar10_resnet") for p in places) or "no data root was given"
    raise FileError(Problem("the claim starts from the public checkpoint", f"{name}.safetensors", looked))


def tensors(spec: str, root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """All samples (prepared as the network wants them) and labels."""
    parts = list(load_data(spec, root).batches(256))
    labels = np.concatenate([np.asarray(part[1], np.int64) for part in parts])
    return torch.from_numpy(np.concatenate([part[0] for part in parts])), torch.from_numpy(labels)


def trained(
    context: Context,
    seed: int,
    *,
    config: TrainConfig = CONFIG,
    step: Callable[[QatNetwork], Step] = lambda _: plain_step,
    **options: Any,
) -> tuple[QatNetwork, torch.nn.Module]:
    """A network trained with a method, and the float one it came from. options go to `prepare`."""
    model = models.build("resnet20", weights=weights_file(context.data_root))
    x, y = tensors("cifar10:train", context.data_root)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:256]
    network = prepare(model, shape=SHAPE, calib=x[rows], **options)
    config = replace(config, seed=seed)
    samples = Samples(x, y, augment=flip_and_shift, prepare=_channels_last)
    report = _every(context, seed)
    for weights in (p for p in (*network.parameters(), *model.parameters()) if p.ndim == 4):
        weights.data = _channels_last(weights.data)
    train(network, samples, teacher=model, config=config, step=step(network), progress=report)
    return network, model


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """A step of ResNet-20 takes 25 % less time in this order on a CPU."""
    return x.contiguous(memory_format=torch.channels_last)


def _every(context: Context, seed: int) -> Callable[[str, float], None]:
    return lambda text, share: context.progress(f"seed {seed}: {text}  {100 * share:.0f}%")


def measured(
    network: QatNetwork, model: torch.nn.Module, root: Path | None, figures: Mapping[str, float] = {}
) -> Outcome:
    """Top-1 of engine and float network on the lossless test images, agreement on the others, exactness."""
    program = compile_program(network.export(), name="resnet20")
    run = engine.load(program)
    x, y = tensors("cifar10:test", root)
    served = _logits(lambda part: torch.from_numpy(np.asarray(run(part.numpy()))), x)
    with torch.no_grad():
        emulated, real = _logits(network.eval(), x), _logits(model, x)
    limits = [int(np.abs(program.constants[n.inputs[1]].astype(int)).max()) for n in program.nodes if n.op == "qconv"]
    return Outcome(
        exact={
            "engine equals the trained network, every logit": torch.equal(served, emulated),
            "every convolution is packed": len(limits) == 19 and not any(n.op == "conv" for n in program.nodes),
        },
        figures={
            "top1": float((served.argmax(1) == y).float().mean()),
            "top1_float": float((real.argmax(1) == y).float().mean()),
            "agreement": float((served.argmax(1) == real.argmax(1)).float().mean()),
            "largest_code": float(max(limits[1:])),
            **figures,
        },
    )


def _logits(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return torch.cat([run(part) for part in x.split(100)])
