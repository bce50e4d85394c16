"""Quantization-aware training: a float PyTorch network becomes one that trains with its own quantization errors.

Belongs here: quantizers in a traced network (`prepare`), training methods for them, the loop around them (`train`), the
ONNX file that comes out.
Does not belong here: the quantizer itself and quantized layers (`netsuke.nn`), calibration without training
(`netsuke.methods.quantize`), running programs.
Contract, by the record's tag:
  rules   apply(config) -> Rules: which quantizers weights and activations get
  step    apply(network, config) -> Step: what the loop does with a batch; network is a QatNetwork
The result is the ONNX graph every other tool reads: QuantizeLinear/DequantizeLinear, a Clip in front where a tensor
has fewer than 8 bits, integer weights as int8. `network.eval()` computes the same codes as the compiled program.
To add: a file with a record of one of these tags. Importing this room loads no torch; the names below do when used.

    network = prepare(model, shape=(1, 3, 32, 32), method="qat/lsq", weight_bits=4, activation_bits=4, calib=x)
    ... any PyTorch loop, or train(network, data, teacher=model) ...
    onnx_model = network.export()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsuke.methods.qat._network import QatNetwork as QatNetwork
    from netsuke.methods.qat._network import prepare as prepare
    from netsuke.methods.qat._training import Samples as Samples
    from netsuke.methods.qat._training import Step as Step
    from netsuke.methods.qat._training import TrainConfig as TrainConfig
    from netsuke.methods.qat._training import flip_and_shift as flip_and_shift
    from netsuke.methods.qat._training import make_loss as make_loss
    from netsuke.methods.qat._training import plain_step as plain_step
    from netsuke.methods.qat._training import train as train

_PLACES = dict.fromkeys(("QatNetwork", "prepare"), "_network") | dict.fromkeys(
    ("Samples", "Step", "TrainConfig", "flip_and_shift", "make_loss", "plain_step", "train"), "_training"
)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
