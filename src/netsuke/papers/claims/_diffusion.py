"""The shipped diffusion networks and what their samples are worth: shared by the claims of quantized generators.

Distances are Frechet distances on features of the shipped digits classifier: "distance" to 500 samples of the float
network from the same noise (noise of sampling cancels, what quantization moves remains), "real" to the 1,797 digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine, models
from netsuke.measure.samples import digit_quality
from netsuke.nn.diffusion import sample, starts
from netsuke.passes import compile_program

COUNT = 500


def network(name: str) -> Any:
    """A shipped network, with one thread: small layers gain nothing from more."""
    import torch

    torch.set_num_threads(1)
    return models.build(name)


class Judge:
    """Samples `steps` images' worth of calls from noise that no method has seen.

    model  the float network
    """

    def __init__(self, model: Any, steps: int, seed: int) -> None:
        import torch

        noise, labels = starts(COUNT, (1, 8, 8), seed=1_000_003 + seed)
        self.noise, self.labels = torch.from_numpy(noise), torch.from_numpy(labels)
        with torch.no_grad():
            self.real = sample(model, self.noise, self.labels, steps).numpy()
        self.figures: dict[str, float] = {}
        self._note("float", self.real)

    def __call__(self, name: str, made: Any) -> float:
        """Sample from a quantized network and note its figures; returns the distance to the float samples."""
        return self._note(name, made.images(self.noise, self.labels).numpy())

    def _note(self, name: str, images: Any) -> float:
        found = digit_quality(images, self.labels.numpy())
        self.figures[f"real_{name}"], self.figures[f"accuracy_{name}"] = found.distance, found.accuracy
        if name == "float":
            return 0.0
        distance = digit_quality(images, self.labels.numpy(), self.real).distance
        self.figures[f"distance_{name}"] = distance
        self.figures[f"error_{name}"] = float(((images - self.real) ** 2).mean())
        return distance


def engine_equals_training(graph: Any, trained: Any, step: int, steps: int, count: int = 16) -> bool:
    """The compiled program of one sampling step gives the trained network's output: bit for bit on 7 of 8 samples.

    LayerNorm and softmax stand between codes and are floats: where PyTorch's last bit differs a code may, too.
    """
    import torch

    from netsuke.nn.diffusion import times

    noise, labels = starts(count, (1, 8, 8), seed=7)
    t = np.full(count, times(steps)[step], np.float32)
    run = engine.load(compile_program(graph), threads=1)
    found = np.asarray(next(iter(run.run({"image": noise, "time": t, "label": labels}).values())))
    with torch.no_grad():
        wanted = trained(torch.from_numpy(noise), torch.from_numpy(t), torch.from_numpy(labels)).numpy()
    same = (found == wanted).reshape(count, -1).all(1)
    return bool(same.mean() >= 7 / 8 and np.abs(found - wanted).max() < 0.2)
