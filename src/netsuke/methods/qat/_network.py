"""`prepare`: quantizers into a PyTorch network; `QatNetwork`: the network that trains, and exports what it trained.

Idea. One quantizer per tensor, placed as post-training quantization places them: demand starts at the inputs of
convolutions and linear layers and walks back through operators that move codes; a tensor nobody wants as codes stays
float. Inputs of a concat share one quantizer. Batch norm, residual add and clipping activation behind a layer are part
of it.
Limits: the network must be traceable by torch.fx; one that is not gets a quantizer in front of every layer instead
(nothing shared, nothing fused), and the plan says so.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from netsuke.core.errors import Problem, UsageError, near
from netsuke.core.method import find
from netsuke.core.options import configure
from netsuke.core.plan import Plan
from netsuke.methods.qat import _insert
from netsuke.methods.qat._export import served_network
from netsuke.methods.qat._request import BITS, LAYERS, Bits, Dtype, Request, Shape
from netsuke.methods.qat._rules import Rules
from netsuke.nn.qlayers import FoldedNorm, QuantLayer
from netsuke.nn.quantizer import Quantizer

if TYPE_CHECKING:
    import onnx_ir as ir

Batch = Tensor | tuple[Tensor, ...]


class QatNetwork(nn.Module):
    """A network with quantizers. Trains in any PyTorch loop; `eval()` computes the codes that are served.

    net    the rewritten network; plan: one row per layer, and notes
    shape  of one input batch, or shapes by input name; dtype: of inputs that are not f32
    edges  names of the first and the last layer
    banks  further quantizers and norms that methods switch between
    """

    def __init__(self, net: nn.Module, plan: Plan, shape: Shape, rules: Rules, dtype: Dtype = "f32") -> None:
        super().__init__()
        self.net, self.plan, self.shape, self.rules, self.dtype = net, plan, shape, rules, dtype
        self.edges = (plan.rows[0].name, plan.rows[-1].name)
        self.banks = nn.ModuleDict()

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.net(*inputs)
        return out

    def layers(self) -> dict[str, QuantLayer]:
        """Quantized layers by name."""
        found = {name: m for name, m in self.net.named_modules() if isinstance(m, QuantLayer)}
        return {name.removesuffix(".inner"): layer for name, layer in found.items()}

    def quantizers(self) -> dict[str, Quantizer]:
        """All quantizers by name."""
        return {name: m for name, m in self.net.named_modules() if isinstance(m, Quantizer)}

    def activation_quantizers(self) -> dict[str, Quantizer]:
        return {name: q for name, q in self.quantizers().items() if q.spec.role == "activation"}

    def groups(self, rate: float, decay: float, scale_rate: float | None = None) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: no weight decay on scales, norms and biases.

        Scales are those of every quantizer the module holds, also of views that are not switched on (double_rounding).
        """
        scales = {id(p) for q in self.modules() if isinstance(q, Quantizer) for p in q.parameters()}
        named = list(self.named_parameters())
        heavy = [p for _, p in named if id(p) not in scales and p.ndim > 1]
        light = [p for _, p in named if id(p) not in scales and p.ndim <= 1]
        steps = [p for _, p in named if id(p) in scales]
        made: list[dict[str, Any]] = [
            {"params": heavy, "lr": rate, "weight_decay": decay, "name": "weights"},
            {"params": light, "lr": rate, "weight_decay": 0.0, "name": "norms and biases"},
        ]
        if steps:
            made.append({"params": steps, "lr": scale_rate or rate, "weight_decay": 0.0, "name": "scales"})
        return made

    @torch.no_grad()
    def calibrate(self, batches: Batch | Iterable[Tensor]) -> None:
        """Take first ranges from the float network's tensors: the first batch decides learned ranges.

        A tuple is one batch of a network with several inputs.
        """
        mode = self.training
        self.eval()
        quantizers, hooks, seen = self.quantizers(), [], dict[Quantizer, list[Tensor]]()

        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, Quantizer)
            seen.setdefault(module, []).append(inputs[0].detach())

        try:
            for quantizer in quantizers.values():
                quantizer.enabled = False
                if quantizer.spec.role == "activation":
                    hooks.append(quantizer.register_forward_pre_hook(look))
            first = batches if isinstance(batches, (Tensor, tuple)) else next(iter(batches))
            self(*(first if isinstance(first, tuple) else (first,)))
        finally:
            for hook in hooks:
                hook.remove()
            for quantizer in quantizers.values():
                quantizer.enabled = True
        for quantizer, parts in seen.items():  # inputs of a concat share one: its range is that of all of them
            single = len(parts) == 1 or quantizer.spec.granularity != "tensor"
            quantizer.calibrate(parts[0] if single else torch.cat([p.flatten() for p in parts]))
        for layer in self.layers().values():
            layer.weight.calibrate(layer.real_weight())
        self.train(mode)

    def freeze_norms(self) -> None:
        """Batch norm uses its moving statistics from here on, also in training mode (call after `train()`)."""
        for module in self.modules():
            if isinstance(module, FoldedNorm):
                module.frozen = True
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.eval()

    def fuse_norms(self, on: bool = True) -> None:
        """Train with batch norm, addition and ReLU behind a layer in one pass over memory; without gradients of
        gradients (forward and backward of ResNet-20 take about 5 % less time)."""
        for layer in self.layers().values():
            layer.fused = on

    def export(self) -> ir.Model:
        """The canonical ONNX graph with QuantizeLinear/DequantizeLinear; `compile_program` takes it."""
        from netsuke.capture import capture

        return capture(served_network(self.net), shape=self.shape, dtype=self.dtype)

    __captured__ = export  # `netsuke.compress(network)` and kin take the network as it is


def prepare(
    model: nn.Module,
    *,
    shape: Sequence[int] | Mapping[str, Sequence[int]],
    dtype: Dtype = "f32",
    method: str = "qat/lsq",
    options: Mapping[str, Any] | None = None,
    weight_bits: int = 4,
    activation_bits: int = 4,
    first_last: int | None = 8,
    stream_bits: int | None = None,
    bits: Mapping[str, tuple[int, int]] | None = None,
    keep: Sequence[str] = (),
    calib: Batch | None = None,
) -> QatNetwork:
    """A copy of the network with quantizers; the network given is not changed.

    shape       of one input batch; of a network with several inputs shapes by name, in forward's order
    dtype       of inputs by name, where they are not "f32" ("i64", "i32", "bool")
    method      a record of this room with the tag "rules"; options: its config
    first_last  bits of the first and the last layer (weights and what they read); None: like the others
    stream_bits bits of tensors that additions, means and other operators without weights read; a layer that wants
                fewer reads codes made from them (worth it at 2 bits). None: one quantizer for all readers
    bits        (weights, activations) by layer name or pattern, applied in order, over everything else
    keep        layers that stay float, by name or pattern
    calib       a batch (a tuple for several inputs) to take first ranges from; None: from the first training batch

    Raises UsageError that lists every pattern that matches nothing, with near names, and every impossible width.
    """
    rules = _rules(method, options)
    names = [name for name, m in model.named_modules() if isinstance(m, LAYERS)]
    if not names:
        raise UsageError(Problem("the network has no layer to quantize", got=type(model).__name__))
    problems: list[Problem] = []
    default = Bits(weight_bits, activation_bits)
    kept = [n for pattern in keep for n in _match(pattern, names, "keep", problems)]
    table = dict.fromkeys(names, default)
    if first_last is not None:
        table |= {n: Bits(first_last, first_last) for n in (names[0], names[-1])}
    for pattern, pair in (bits or {}).items():
        table |= {n: Bits(*pair) for n in _match(pattern, names, "bits", problems)}
    for name, width in {"weight_bits / activation_bits": default, **table}.items():
        problems += [Problem("bits", name, str(b), "2 to 8") for b in (width.weight, width.activation) if b not in BITS]
    if stream_bits is not None and stream_bits not in BITS:
        problems.append(Problem("bits", "stream_bits", str(stream_bits), "2 to 8"))
    if problems:
        raise UsageError(problems)
    named: Shape = dict(shape) if isinstance(shape, Mapping) else tuple(shape)
    request = Request(rules, method, table, default, kept, named, dtype, stream_bits)
    copied = copy.deepcopy(model)
    net = _insert.insert(copied.eval(), request)
    network = QatNetwork(net, request.plan, request.shape, rules, dtype)
    if calib is not None:
        network.calibrate(calib)
    return network.train()


def _rules(method: str, options: Mapping[str, Any] | None) -> Rules:
    record = find(method)
    if record.room != "qat" or "rules" not in record.tags:
        raise UsageError(Problem("not a set of rules for training", got=method, hint="netsuke methods 'qat/*'"))
    found: Rules = record.apply(configure(record.config, dict(options or {}), method))
    return found


def _match(pattern: str, names: Sequence[str], where: str, problems: list[Problem]) -> Iterator[str]:
    found = [n for n in names if fnmatch.fnmatchcase(n, pattern)]
    if not found:
        problems.append(Problem("no layer matches", where=where, got=pattern, allowed=near(pattern, names)))
    yield from found
