"""The torch emulation of a program: the same codes as the engine, bit for bit, with gradients.

net = Emulation(program)
outputs = net({"x": tensor})            # codes as integer-valued f32, differentiable
arrays = net.run({"x": array})          # NumPy in and out, dtypes of the program
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsuke.formats import bf16_to_f32
from netsuke.program.emulation import RULES, Call
from netsuke.program.interpreter import check_feeds, check_outputs, last_uses, resolve_taps
from netsuke.program.model import Node, Program
from netsuke.program.opset import attributes, output_dtypes
from netsuke.program.verify import constant_dtype, verify

Array = np.ndarray[Any, Any]
# Codes and weight codes travel as f32, so that gradients can flow; everything else keeps its dtype.
_AS_FLOAT = ("u8", "s8", "bf16", "f32")


class Emulation(nn.Module):
    """A program as a torch module. Constants are buffers c0, c1, ...; `constant(name)` gives that of a name."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        verify(program)
        self.program = program
        self._buffer_names = {name: f"c{index}" for index, name in enumerate(sorted(program.constants))}
        self.dtypes: dict[str, str] = {port.name: port.dtype for port in program.inputs}
        for name, buffer in self._buffer_names.items():
            array = program.constants[name]
            dtype = self.dtypes[name] = constant_dtype(program, name)
            plain = bf16_to_f32(array) if dtype == "bf16" else np.array(array)
            self.register_buffer(buffer, _tensor(plain, dtype))
        for node in program.nodes:
            kinds = output_dtypes(node, [self.dtypes.get(name, "") for name in node.inputs])
            self.dtypes.update(zip(node.outputs, kinds, strict=True))

    def constant(self, name: str) -> Tensor:
        """The buffer of a constant of the program."""
        return self.get_buffer(self._buffer_names[name])

    def forward(self, feeds: Mapping[str, Tensor] | Tensor, taps: Iterable[str] = ()) -> dict[str, Tensor]:
        """Outputs and taps by name. A single tensor is taken as the only input. Codes are integer-valued f32."""
        if isinstance(feeds, Tensor):
            feeds = {self.program.inputs[0].name: feeds}
        named = resolve_taps(self.program, taps)
        values: dict[str, Tensor] = {}
        for port in self.program.inputs:
            values[port.name] = feeds[port.name].float() if port.dtype in _AS_FLOAT else feeds[port.name]
        last_use = last_uses(self.program.nodes)
        for index, node in enumerate(self.program.nodes):
            values.update(zip(node.outputs, self._evaluate(node, values), strict=True))
            for name in {n for n in node.inputs if n in values and last_use[n] == index} - set(named.values()):
                del values[name]
        return {name: values[value] for name, value in named.items()}

    def _evaluate(self, node: Node, values: dict[str, Tensor]) -> list[Tensor]:
        inputs = [None if not n else values[n] if n in values else self.constant(n) for n in node.inputs]
        kinds = [self.dtypes[n] if n else "" for n in node.inputs]
        return RULES[node.op](Call(node, inputs, attributes(node), kinds, [self.dtypes[n] for n in node.outputs]))

    def run(self, feeds: Mapping[str, Array], taps: Iterable[str] = ()) -> dict[str, Array]:
        """Like `netsuke.program.interpreter.run`: arrays in, arrays out, with the dtypes of the program."""
        checked, sizes = check_feeds(self.program.inputs, feeds)
        tensors = {port.name: _tensor(np.array(checked[port.name]), port.dtype) for port in self.program.inputs}
        with torch.no_grad():
            results = self.forward(tensors, taps)
        named = resolve_taps(self.program, taps)
        arrays = {name: _array(tensor, self.dtypes[named[name]]) for name, tensor in results.items()}
        check_outputs(self.program, arrays, sizes)
        return arrays


def _tensor(array: Array, dtype: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape)).to(
        torch.float32 if dtype in _AS_FLOAT else None
    )


def _array(tensor: Tensor, dtype: str) -> Array:
    array = tensor.detach().cpu().contiguous().numpy()
    return array.astype(np.uint8 if dtype == "u8" else np.int8) if dtype in ("u8", "s8") else array
