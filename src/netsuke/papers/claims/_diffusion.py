"""Diffusion networks and what their samples are worth: shared by the claims of quantized generators.

Distances are Frechet distances on features of the shipped digits classifier: "distance" to 500 samples of the float
network from the same noise (noise of sampling cancels, what quantization moves remains), "real" to the 1,797 digits.
At 28x28 networks and classifier are trained by us on Fashion-MNIST, and "real" is the distance to its 10,000 test
images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine, models
from netsuke.measure.samples import Reader, digits_reader, fashion_reader, features, sample_quality
from netsuke.nn.diffusion import sample, starts
from netsuke.papers.claim import Context
from netsuke.passes import compile_program

COUNT = 500


def network(name: str) -> Any:
    """A shipped network, with one thread: small layers gain nothing from more."""
    import torch

    torch.set_num_threads(1)
    return models.build(name)


def fashion_network(context: Context, name: str) -> Any:
    """A network of `train_diffusion`: from the data root, an earlier run, or trained now (20 minutes, two cores)."""
    from netsuke.models import train_diffusion
    from netsuke.papers.runner import state_folder

    file = f"{name}/{name}.safetensors"
    places = [*([] if context.data_root is None else [context.data_root / file]), state_folder() / file]
    for place in places:
        if place.is_file():
            return models.build(name, weights=place)
    context.progress(f"training {name}")
    made = train_diffusion.train(name, root=context.data_root)
    places[-1].parent.mkdir(parents=True, exist_ok=True)
    train_diffusion.save(made, places[-1], half=False)
    return made


def fashion_judge(context: Context, model: Any, steps: int, seed: int) -> Judge:
    """Judges 28x28 samples by a classifier trained on Fashion-MNIST."""
    from netsuke.models.train_diffusion import images
    from netsuke.papers.claims._fashion import network as classifier

    reader = fashion_reader(classifier(context))
    real = images("fashion-mnist:test", context.data_root)[0].numpy()
    return Judge(model, steps, seed, reader=reader, known=features(real, reader)[0])


class Judge:
    """Samples `steps` images' worth of calls from noise that no method has seen.

    model   the float network
    reader  of its images (default: digits); known: its features of real images (default: all digits)
    """

    def __init__(self, model: Any, steps: int, seed: int, *, reader: Reader | None = None, known: Any = None) -> None:
        import torch

        self.reader = reader or digits_reader()
        self.known = features(_digits())[0] if known is None else known
        noise, labels = starts(COUNT, self.reader.shape, seed=1_000_003 + seed)
        self.noise, self.labels = torch.from_numpy(noise), torch.from_numpy(labels)
        with torch.no_grad():
            self.real = sample(model, self.noise, self.labels, steps).numpy()
        self.floats = features(self.real, self.reader)[0]
        self.figures: dict[str, float] = {}
        self._note("float", self.real)

    def __call__(self, name: str, made: Any) -> float:
        """Sample from a quantized network and note its figures; returns the distance to the float samples."""
        return self._note(name, made.images(self.noise, self.labels).numpy())

    def _note(self, name: str, images: Any) -> float:
        found = sample_quality(images, self.labels.numpy(), self.known, self.reader)
        self.figures[f"real_{name}"], self.figures[f"accuracy_{name}"] = found.distance, found.accuracy
        if name == "float":
            return 0.0
        distance = sample_quality(images, self.labels.numpy(), self.floats, self.reader).distance
        self.figures[f"distance_{name}"] = distance
        self.figures[f"error_{name}"] = float(((images - self.real) ** 2).mean())
        return distance


def _digits() -> Any:
    from netsuke.models.train_diffusion import images

    return images("digits:all")[0].numpy()


def engine_equals_training(
    graph: Any, trained: Any, step: int, steps: int, count: int = 16, *, shape: tuple[int, ...] = (1, 8, 8)
) -> bool:
    """The compiled program of one sampling step gives the trained network's output: bit for bit on 7 of 8 samples.

    LayerNorm and softmax stand between codes and are floats: where PyTorch's last bit differs a code may, too.
    """
    import torch

    from netsuke.nn.diffusion import times

    noise, labels = starts(count, shape, seed=7)
    t = np.full(count, times(steps)[step], np.float32)
    run = engine.load(compile_program(graph), threads=1)
    found = np.asarray(next(iter(run.run({"image": noise, "time": t, "label": labels}).values())))
    with torch.no_grad():
        wanted = trained(torch.from_numpy(noise), torch.from_numpy(t), torch.from_numpy(labels)).numpy()
    same = (found == wanted).reshape(count, -1).all(1)
    return bool(same.mean() >= 7 / 8 and np.abs(found - wanted).max() < 0.2)
