"""Reference networks, in PyTorch, one family a file.

Belongs here: architectures used by tests, benchmarks and claims, written from their papers, with the usual module
names, so that a public state dict loads where one exists. Does not belong here: methods, training loops, data.

Contract: every entry of `MODELS` names a factory without required arguments that returns an `nn.Module` in eval mode
with random weights, and the shape of one input batch. `build(name)` is deterministic under its seed and gives
BatchNorm statistics of random inputs, so that activations stay in range as in a trained network. To add one: write
the file, add a line to `MODELS`.

Importing this room loads no torch; `build` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsuke.core.errors import FileError, Problem, UsageError, near

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """Where a network is defined, the shape of its (first) input, batch first, and its dtype ("f32" or "i64" token
    ids)."""

    factory: str
    shape: tuple[int, ...]
    dtype: str = "f32"
    purpose: str = ""
    weights: str = ""  # file beside this one with trained weights that ship
    inputs: tuple[tuple[str, tuple[int, ...], str], ...] = ()  # of networks with several: name, shape, dtype

    @property
    def shapes(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """What `capture` takes: the shape of the only input, or shapes by input name."""
        return {name: shape for name, shape, _ in self.inputs} or self.shape

    @property
    def dtypes(self) -> str | dict[str, str]:
        """The dtype of the only input, or dtypes by input name."""
        return {name: dtype for name, _, dtype in self.inputs} or self.dtype


_IMAGE = (1, 3, 224, 224)
_DENOISER = (("image", (1, 1, 8, 8), "f32"), ("time", (1,), "f32"), ("label", (1,), "i64"))
_DENOISER_28 = (("image", (1, 1, 28, 28), "f32"), *_DENOISER[1:])

MODELS: Mapping[str, ModelEntry] = {
    "bert_tiny": ModelEntry("bert:bert_tiny", (1, 64), "i64", "text encoder, 2 layers of width 128"),
    "char_lm": ModelEntry("char_lm:char_lm", (1, 128), "i64", "decoder over characters, 1.3 M parameters"),
    "char_lm_tiny": ModelEntry("char_lm:char_lm_tiny", (1, 32), "i64", "the same for tests"),
    "bireal_resnet18": ModelEntry(
        "binary:bireal_resnet18", _IMAGE, purpose="one-bit 3x3 convolutions, INT8 stem and head"
    ),
    "binary_densenet": ModelEntry(
        "binary_mobile:binary_densenet", _IMAGE, purpose="dense blocks of one-bit layers, INT8 transitions"
    ),
    "binary_densenet_small": ModelEntry("binary_mobile:binary_densenet_small", (1, 3, 32, 32), purpose="for tests"),
    "reactnet_a": ModelEntry("binary_mobile:reactnet_a", _IMAGE, purpose="MobileNet of one-bit layers"),
    "reactnet_small": ModelEntry("binary_mobile:reactnet_small", (1, 3, 32, 32), purpose="the same for tests"),
    "bireal_small": ModelEntry("binary:bireal_small", (1, 3, 32, 32), purpose="nine one-bit layers"),
    "convnext_t": ModelEntry("convnext:convnext_t", _IMAGE),
    "densenet121": ModelEntry("densenet:densenet121", _IMAGE),
    "digits_cnn": ModelEntry(
        "digits:digits_cnn",
        (1, 1, 8, 8),
        purpose="the demo: trained on scikit-learn's digits",
        weights="digits_cnn.safetensors",
    ),
    "digits_dit": ModelEntry(
        "dit:digits_dit",
        (1, 1, 8, 8),
        purpose="diffusion transformer, trained on scikit-learn's digits",
        weights="digits_dit.safetensors",
        inputs=_DENOISER,
    ),
    "digits_prompt_unet": ModelEntry(
        "diffusion_unet:digits_prompt_unet",
        (1, 1, 8, 8),
        purpose="digits_unet with the class as a prompt of tokens",
        weights="digits_prompt_unet.safetensors",
        inputs=_DENOISER,
    ),
    "digits_unet": ModelEntry(
        "diffusion_unet:digits_unet",
        (1, 1, 8, 8),
        purpose="diffusion U-Net, trained on scikit-learn's digits",
        weights="digits_unet.safetensors",
        inputs=_DENOISER,
    ),
    "efficientnet_b0": ModelEntry("efficientnet:efficientnet_b0", _IMAGE),
    "espcn": ModelEntry("espcn:espcn", (1, 1, 64, 64), purpose="super-resolution x3"),
    "fashion_cnn": ModelEntry("fashion:fashion_cnn", (1, 1, 28, 28)),
    "fashion_dit": ModelEntry(
        "dit:fashion_dit", (1, 1, 28, 28), purpose="diffusion transformer for 28x28 images", inputs=_DENOISER_28
    ),
    "fashion_unet": ModelEntry(
        "diffusion_unet:fashion_unet", (1, 1, 28, 28), purpose="diffusion U-Net for 28x28 images", inputs=_DENOISER_28
    ),
    "mobilenetv2": ModelEntry("mobilenetv2:mobilenetv2", _IMAGE),
    "mobilenetv3_large": ModelEntry("mobilenetv3:mobilenetv3_large", _IMAGE),
    "resnet18": ModelEntry("resnet:resnet18", _IMAGE),
    "resnet50": ModelEntry("resnet:resnet50", _IMAGE),
    "resnet20": ModelEntry("cifar_resnet:resnet20", (1, 3, 32, 32)),
    "resnet32": ModelEntry("cifar_resnet:resnet32", (1, 3, 32, 32)),
    "resnet44": ModelEntry("cifar_resnet:resnet44", (1, 3, 32, 32)),
    "resnet56": ModelEntry("cifar_resnet:resnet56", (1, 3, 32, 32)),
    "shufflenetv2": ModelEntry("shufflenetv2:shufflenetv2", _IMAGE),
    "squeezenet": ModelEntry("squeezenet:squeezenet", _IMAGE),
    "swin_t": ModelEntry("swin:swin_t", _IMAGE),
    "text_classifier": ModelEntry(
        "text_classifier:text_classifier", (1, 32), "i64", "transformer over words, for SST-2"
    ),
    "text_classifier_tiny": ModelEntry(
        "text_classifier:text_classifier_tiny", (1, 16), "i64", "the same for the toy sentences"
    ),
    "unet": ModelEntry("unet:unet", (1, 3, 128, 128)),
    "vgg16": ModelEntry("vgg:vgg16", _IMAGE),
    "digits_vit": ModelEntry("digits_vit:digits_vit", (1, 1, 8, 8), purpose="transformer of 16 tokens for digits"),
    "vit_tiny": ModelEntry("vit:vit_tiny", _IMAGE),
    "yolov8n": ModelEntry("yolov8:yolov8n", (1, 3, 256, 256), purpose="detector without its box decoding"),
}


def entry(name: str) -> ModelEntry:
    """The entry of a network; UsageError with near names when there is none."""
    if name not in MODELS:
        raise UsageError(Problem("unknown network", got=name, allowed=near(name, MODELS)))
    return MODELS[name]


def build(name: str, *, weights: str | Path | None = None, seed: int = 0) -> nn.Module:
    """The network `name` in eval mode.

    weights   a file (`.safetensors`, or `.pth` loaded with weights_only), "random", or None: what ships, else random
    seed      of random weights

    Raises UsageError for an unknown name and FileError when the weights do not fit.
    """
    import torch

    item = entry(name)
    if weights is None and item.weights:
        weights = Path(__file__).with_name(item.weights)
    module_name, _, factory = item.factory.partition(":")
    module = importlib.import_module(f"netsuke.models.{module_name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = getattr(module, factory)()
        if weights is not None and str(weights) != "random":
            load_weights(network, Path(weights))
        else:
            settle_batchnorm(network, item)
    return network.eval()


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict into `network`; every missing, unexpected or misshapen tensor is listed in one FileError."""
    state = read_state_dict(path)
    own = network.state_dict()
    problems = []
    for key, tensor in own.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in state:
            problems.append(Problem("missing tensor", where=key, got=str(path.name)))
        elif tuple(state[key].shape) != tuple(tensor.shape):
            problems.append(
                Problem("wrong shape", where=key, got=str(tuple(state[key].shape)), allowed=str(tuple(tensor.shape)))
            )
    problems += [Problem("unexpected tensor", where=key, allowed=near(key, own)) for key in state if key not in own]
    if problems:
        raise FileError(problems, f"{path.name} does not fit {type(network).__name__}")
    network.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> dict[str, Any]:
    """Tensors by name of a `.safetensors` or `.pth`/`.th`/`.pt` file; a `module.` prefix is dropped, code is never
    executed."""
    import torch

    if not path.is_file():
        raise FileError(Problem("no such weights file", got=str(path)))
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = " ".join(str(error).split())[:120].partition(". ")[
            0
        ]  # torch goes on with advice to run the file's code
        what = "not a state dict that can be loaded without running code"
        hint = "torch.save(module.state_dict(), path)"
        raise FileError(Problem(what, str(path), first, hint=hint)) from error
    return {key.removeprefix("module."): value for key, value in _tensors(state, path).items()}


CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")


def _tensors(state: Any, path: Path) -> dict[str, Any]:
    """The state dict itself, or the one under the name that training scripts keep it by."""
    import torch

    if isinstance(state, dict):
        state = next((state[k] for k in CHECKPOINT_KEYS if isinstance(state.get(k), dict)), state)
    if not isinstance(state, dict) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        got = ", ".join(map(str, state))[:120] if isinstance(state, dict) else type(state).__name__
        hint = "torch.save(module.state_dict(), path)"
        raise FileError(Problem("no state dict in the file", str(path), got, ", ".join(CHECKPOINT_KEYS), hint))
    return state


def settle_batchnorm(network: nn.Module, item: ModelEntry) -> None:
    """Set BatchNorm statistics from one random batch, so that random networks keep unit-scale activations."""
    import torch
    from torch import nn

    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    size = (4, item.shape[1], *(min(s, 96) for s in item.shape[2:]))
    with torch.no_grad():
        network(torch.randn(size), *(_zeros(torch, shape, dtype) for _, shape, dtype in item.inputs[1:]))
    for norm in norms:
        norm.momentum = 0.1


def _zeros(torch: Any, shape: tuple[int, ...], dtype: str) -> Any:
    return torch.zeros((4, *shape[1:]), dtype=torch.int64 if dtype == "i64" else torch.float32)
