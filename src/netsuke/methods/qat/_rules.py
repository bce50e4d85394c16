"""What a method decides about quantizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netsuke.nn.quantizer_spec import QuantSpec


@dataclass(frozen=True)
class Rules:
    """weight      bits -> spec of a layer's weights (the channel axis is 0)
    activation  (bits, nonnegative) -> spec of a tensor; nonnegative: nothing below zero can occur
    transform   of the float weights before they are quantized, bits -> function of a tensor; None: as they are
    fold        batch norm is folded into the weights before quantizing instead of into the multipliers
    quantizer   (spec, shape) -> weight quantizer; None: `netsuke.nn.quantizer.Quantizer`
    """

    weight: Callable[[int], QuantSpec]
    activation: Callable[[int, bool], QuantSpec]
    transform: Callable[[int], Callable[[Any], Any]] | None = None
    fold: bool = False
    quantizer: Callable[[QuantSpec, Any], Any] | None = None


def channel_weights(bits: int, *, statistic: str, schedule: str, gradient: str) -> QuantSpec:
    """Symmetric weights with one scale per output channel."""
    return QuantSpec(
        role="weight",
        bits=bits,
        signed=True,
        granularity="channel",
        statistic=statistic,
        schedule=schedule,
        gradient=gradient,
    )


def moving_activations(bits: int, nonnegative: bool, *, momentum: float, gradient: str = "clipped") -> QuantSpec:
    """Affine activations by a moving average of batch extremes."""
    return QuantSpec(bits=bits, affine=not nonnegative, statistic="minmax", momentum=momentum, gradient=gradient)


def input_spec() -> QuantSpec:
    """The network's input: 8 bits with a zero point, extremes of the data."""
    return QuantSpec(bits=8, affine=True, statistic="minmax", schedule="moving")
