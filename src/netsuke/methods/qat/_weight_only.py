"""Linear layers with trained codes of few bits and float activations: what weight-only kernels run packed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsuke.methods.qat._export import _op
from netsuke.nn.quantizer import Quantizer, QuantSpec

SCALE_BITS = 32


class WeightOnlyLinear(nn.Module):
    """y = x Q(W)^T + b with one learned step a row (LSQ); `stored` makes the layer that is served."""

    def __init__(self, layer: nn.Linear, bits: int) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        spec = QuantSpec(
            role="weight", bits=bits, signed=True, wide=True, granularity="channel", statistic="mse",
            schedule="learned", gradient="lsq",
        )  # fmt: skip
        self.quantizer = Quantizer(spec, layer.weight.shape)
        with torch.no_grad():
            self.quantizer(self.layer.weight)  # the first range

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantizer(self.layer.weight), self.layer.bias)

    def stored_bits(self) -> int:
        """Bits of the matrix in a file: codes, and a float32 step per row."""
        weight = self.layer.weight
        return weight.numel() * self.quantizer.spec.bits + SCALE_BITS * len(weight)

    def stored(self) -> StoredLinear:
        with torch.no_grad():
            codes = self.quantizer.codes(self.layer.weight).to(torch.int8)
            scale = self.quantizer.steps()[0].reshape(-1).detach().clone()
        bias = None if self.layer.bias is None else self.layer.bias.detach().clone()
        return StoredLinear(codes, scale, bias)


class StoredLinear(nn.Module):
    """A linear layer with int8 codes and one scale per row; exports as DequantizeLinear in front of the product."""

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int8))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            w = _op("DequantizeLinear", self.codes, self.scale, self.zero, axis=0)
        else:
            w = self.codes.float() * self.scale[:, None]
        return F.linear(x, w, self.bias)


def weight_only(network: nn.Module, bits: int) -> nn.Module:
    """A copy whose linear layers have weights of that many bits, ready to be trained or stored."""
    made = copy.deepcopy(network)
    for name in [n for n, m in made.named_modules() if isinstance(m, nn.Linear)]:
        _put(made, name, WeightOnlyLinear(made.get_submodule(name), bits))  # type: ignore[arg-type]
    return made


def stored(network: nn.Module) -> nn.Module:
    """A copy with stored codes, in eval mode; it can be captured."""
    made = copy.deepcopy(network).eval()
    for name, layer in list(made.named_modules()):
        if isinstance(layer, WeightOnlyLinear):
            _put(made, name, layer.stored())
    return made


def matrix_bits(network: nn.Module) -> int:
    """Bits of all weight matrices of linear layers: float32, or codes and steps."""
    layers = [m for m in network.modules() if isinstance(m, WeightOnlyLinear)]
    if layers:
        return sum(layer.stored_bits() for layer in layers)
    return sum(32 * m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))


def _put(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, layer)
