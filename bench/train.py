"""A whole training step, interleaved: integers of 8, 6 and 4 bits beside torch float32 and bfloat16 autocast.

    python bench/train.py [--networks resnet18,resnet20] [--batch 128] [--threads 2] [--rounds 5] [--memory kept]
    python bench/train.py --layers norm [--batch 128] [--threads 2] [--rounds 5]

"integer" keeps batch normalization in float, in one kernel with the addition and ReLU behind it (nn/norm_fusion.py;
"unfused": in torch's operators), "shiftquant" replaces it by the fully quantized L1 normalization.
--layers norm times normalization layers alone, forward and backward, beside torch's batch normalization, both without
and both with the ReLU behind them (torch's in place; the quantized layer has it in its kernels, as in networks).

One round times one step (forward, loss, backward, SGD with momentum) of every variant; all variants see the same
images, all networks and images are channels_last, every optimizer is torch's SGD in one pass (fused=True). --memory
says for all of them, torch's own too, whether freed memory is kept for the next operator ("kept", what netsuke.train
and integer_ set) or left to the C library ("default"). The table splits the integer step into tiles, preparation of
operands (padding, transposes, packing), quantization (codes, ranges, weight codes, where they are calls of their own:
behind a fused normalization they are not) and the rest. Stem and classifier stay float in the integer variants.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rows as result_rows
import torch
from torch import nn
from torch.nn import functional

from netsuke import models
from netsuke.methods.integer import one_bit_fqt
from netsuke.nn.fused_norm import norm_activation
from netsuke.nn.integer_config import IntegerConfig
from netsuke.nn.integer_products import Kernels, products
from netsuke.nn.integer_swap import integer_
from netsuke.nn.kept_memory import keep_memory
from netsuke.nn.l1_norm import L1Norm2d, use_l1_norm_
from netsuke.nn.norm_fusion import fuse_norms

# Layers that stay float: the stem and the classifier, as the papers do.
FLOAT = {"resnet18": ("conv1", "fc"), "resnet20": ("conv1", "linear"), "vgg": ("0", "head")}
VGG = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


def network(name: str) -> nn.Module:
    """The CIFAR form: ResNet-18 has a 3x3 stem of stride 1 and no pooling behind it."""
    if name == "vgg":
        return vgg().train().to(memory_format=torch.channels_last)
    net = models.build(name)
    if name == "resnet18":
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
        net.fc = nn.Linear(512, 10)
    return net.train().to(memory_format=torch.channels_last)


def vgg() -> nn.Module:
    """The thirteen convolutions of VGG-16 for 32x32 images, with normalization."""
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.add_module("head", nn.Linear(channels, 10))
    return net


def step(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, *, bfloat16: bool = False, fused: bool = False
) -> Callable[[], None]:
    forward = fuse_norms(net, x[:2]) if fused else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = functional.cross_entropy(forward(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


class Quantization:
    """Adds up the seconds of the calls that make codes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, function: Any) -> Any:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def set_memory(memory: str) -> None:
    if keep_memory(memory == "kept") != (memory == "kept"):
        raise SystemExit("--memory: this C library, or the environment, does not allow it")


def variants(
    name: str, x: torch.Tensor, y: torch.Tensor, bits: list[int], skip: list[str]
) -> dict[str, Callable[[], None]]:
    def integer(width: int) -> nn.Module:
        return integer_(network(name), IntegerConfig(width, width, width), keep_float=FLOAT[name])

    makers: dict[str, Callable[[], Callable[[], None]]] = {
        "torch float32": lambda: step(network(name), x, y),
        "torch bfloat16": lambda: step(network(name), x, y, bfloat16=True),
    }
    if name == "vgg":
        makers["one-bit fused"] = lambda: step(one_bit_fqt.apply(network(name)), x, y, fused=True)
        makers["one-bit"] = lambda: step(one_bit_fqt.apply(network(name)), x, y)
    for w in bits:
        makers |= {
            f"integer {w}-bit": lambda w=w: step(integer(w), x, y, fused=True),  # type: ignore[misc]
            f"integer {w}-bit unfused": lambda w=w: step(integer(w), x, y),  # type: ignore[misc]
            f"shiftquant {w}-bit": lambda w=w: step(use_l1_norm_(integer(w), IntegerConfig(w, w, w)), x, y, fused=True),  # type: ignore[misc]
        }
    return {key: make() for key, make in makers.items() if key not in skip}


def measure(name: str, batch: int, rounds: int, bits: list[int], skip: list[str], memory: str) -> list[dict[str, Any]]:
    from netsuke.nn import integer_train

    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=rng).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), generator=rng)
    kit = products("kernels")
    assert isinstance(kit, Kernels)
    coding = Quantization()
    layer = integer_train.IntegerLayer
    for method in ("quantize_weight", "quantize_input", "quantize_gradient"):
        setattr(layer, method, coding.watch(getattr(layer, method)))
    table = variants(name, x, y, bits, skip)
    set_memory(memory)
    seconds: dict[str, list[float]] = {key: [] for key in table}
    parts: dict[str, list[tuple[float, float, float]]] = {key: [] for key in table}
    for turn in range(rounds + 1):
        for key, run in table.items():
            kit.trainer.times()
            coding.seconds = 0.0
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            prepare, tiles = kit.trainer.times()
            if turn:
                seconds[key].append(elapsed)
                parts[key].append((tiles / 1e9, prepare / 1e9, coding.seconds))
        print(f"{name}: round {turn} of {rounds}", flush=True)
    out = []
    for key, times in seconds.items():
        tiles, prepare, quantize = (float(v) for v in np.median(np.array(parts[key]), axis=0))
        ratio = {base: float(np.median(np.divide(seconds[base], times))) for base in table if base.startswith("torch")}
        out.append(
            {
                "network": name,
                "batch": batch,
                "threads": torch.get_num_threads(),
                "variant": key,
                "memory": memory,
                "ms": round(float(np.median(times)) * 1e3, 1),
                "images_per_s": round(batch / float(np.median(times)), 1),
                "best_ms": round(min(times) * 1e3, 1),
                "tiles_ms": round(tiles * 1e3, 1),
                "prepare_ms": round(prepare * 1e3, 1),
                "quantize_ms": round(quantize * 1e3, 1),
                "rest_ms": round((float(np.median(times)) - tiles - prepare - quantize) * 1e3, 1),
                **{f"vs_{base.split()[1]}": round(v, 2) for base, v in ratio.items()},
            }
        )
    return out


# Images and channels of ResNet-18's normalizations.
NORMS = ((32, 64), (16, 128), (8, 256), (4, 512))


class Activated(nn.Module):
    """A normalization and the ReLU behind it: torch's two operators, or netsuke's one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.relu = norm, nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = norm_activation(x, self.norm) if isinstance(self.norm, L1Norm2d) else self.relu(self.norm(x))
        return y


def norm_pass(norm: nn.Module, x: torch.Tensor, g: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        norm.zero_grad()
        norm(x.detach().requires_grad_()).backward(g)

    return run


def measure_norms(batch: int, rounds: int, bits: list[int], memory: str) -> list[dict[str, Any]]:
    """Forward and backward of one layer, ten times a round, beside torch's of the same work."""
    out = []
    set_memory(memory)
    rng = torch.Generator().manual_seed(0)
    for size, channels in NORMS:
        shape = (batch, channels, size, size)
        x, g = (torch.randn(shape, generator=rng).contiguous(memory_format=torch.channels_last) for _ in range(2))
        norms: dict[str, Callable[[], nn.Module]] = {"torch batch norm": lambda c=channels: nn.BatchNorm2d(c)}  # type: ignore[misc]
        for width in bits:
            norms[f"L1 {width}-bit"] = lambda c=channels, w=width: L1Norm2d(c, IntegerConfig(w, w, w))  # type: ignore[misc]
        table = {key: norm_pass(make(), x, g) for key, make in norms.items()}
        table |= {f"{key} + ReLU": norm_pass(Activated(make()), x, g) for key, make in norms.items()}
        seconds: dict[str, list[float]] = {key: [] for key in table}
        for turn in range(rounds + 1):
            for key, run in table.items():
                start = time.perf_counter()
                for _ in range(10):
                    run()
                if turn:
                    seconds[key].append((time.perf_counter() - start) / 10)
        for key, times in seconds.items():
            base = "torch batch norm" + " + ReLU" * key.endswith("ReLU")
            out.append(
                {
                    "network": f"norm {size}x{size}x{channels}",
                    "batch": batch,
                    "threads": torch.get_num_threads(),
                    "variant": key,
                    "memory": memory,
                    "ms": round(float(np.median(times)) * 1e3, 3),
                    "best_ms": round(min(times) * 1e3, 3),
                    "vs_float32": round(float(np.median(np.divide(seconds[base], times))), 2),
                }
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18,resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bits", default="8,6,4")
    parser.add_argument("--layers", default="", choices=["", "norm"], help="time layers of this kind, not networks")
    parser.add_argument("--skip", default="", help="variants to leave out, as named in the table")
    parser.add_argument("--memory", default="kept", choices=["kept", "default"], help="of the whole process")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table: list[dict[str, Any]] = []
    bits = [int(b) for b in options.bits.split(",") if b]
    if options.layers:
        table = measure_norms(options.batch, options.rounds, bits, options.memory)
        for row in table:
            print(row, flush=True)
    for name in options.networks.split(",") if not options.layers else ():
        table += measure(name, options.batch, options.rounds, bits, options.skip.split(","), options.memory)
        for row in table:
            print(row, flush=True)
    if options.no_write:
        return
    what = f"--layers {options.layers}" if options.layers else f"--networks {options.networks}"
    command = f"python bench/train.py {what} --batch {options.batch}"
    command += f" --threads {options.threads} --rounds {options.rounds} --memory {options.memory}"
    print(result_rows.write("train", command, table, keys=("network", "batch", "threads", "variant", "memory")))


if __name__ == "__main__":
    main()
