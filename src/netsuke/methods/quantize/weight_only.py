"""Weights of few bits in groups, activations in float or bfloat16: what makes matrix-vector work (decoding text) fast.

Paper: Gholami et al., "A Survey of Quantization Methods for Efficient Neural Network Inference", 2021 (arXiv
2103.13630), section III-E (group and sub-channel granularity); nearest rounding, nothing trained.
Idea: a layer that multiplies one vector reads every weight once, so its time is the time to read the weights: fewer
bits are faster, while activations stay what they are.
Equations: s = max|w| / (2^(bits-1) - 1) of a group (symmetric), or (max - min) / (2^bits - 1) with a zero point;
q = rne(w / s) (+ zero). Arithmetic: docs/numerics.md section 12.
Differences: the survey describes; group sizes and formats here are those the kernels have. compute = "s8" also
quantizes activations to 8 bits, by the same groups, on the fly; "bf16" rounds them to bfloat16 (8 significant bits).
Cost: none, no data are needed. Limits: MatMul and Gemm with constant matrices; convolutions, embeddings and everything
else stay float. Below 4 bits use a method that corrects the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from netsuke.capture.graph import Array, array_of, attr, constant, emit, operand
from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.core.options import configure
from netsuke.core.plan import KEEP, Plan, Row
from netsuke.core.recipe import Recipe
from netsuke.formats import packed_bytes, quantize_groups
from netsuke.formats.weight_only import WEIGHT_BLOCK
from netsuke.methods.quantize._graph import clone, macs

NAME = "quantize/weight_only"
ACTIVATION_BITS = {"f32": 32, "bf16": 16, "s8": 8}  # of what the products read


@dataclass(frozen=True)
class WeightOnly:
    """Options.

    bits       of the codes, 2 to 8; the file stores 2, 3, 4, 5, 6 or 8
    group      weights along k that share a scale: a multiple of 32, or 0 for the whole row
    symmetric  no zero points
    compute    "s8": activations are quantized to 8 bits on the fly, by the same groups; "bf16": they are rounded to
               bfloat16, sums are float32; "f32": they stay float
    """

    bits: int = 4
    group: int = 32
    symmetric: bool = False
    compute: str = "s8"

    def __post_init__(self) -> None:
        problems = []
        if not 2 <= self.bits <= 8:
            problems.append(Problem("bits", NAME, str(self.bits), "2 to 8"))
        if self.group < 0 or self.group % WEIGHT_BLOCK:
            problems.append(Problem("group", NAME, str(self.group), "32, 64, 128, ... or 0 for the whole row"))
        if self.compute not in ACTIVATION_BITS:
            problems.append(Problem("compute", NAME, self.compute, ", ".join(ACTIVATION_BITS)))
        if problems:
            raise UsageError(problems)


def is_weight_only(steps: list[str]) -> bool:
    """True when the steps of a recipe or plan are this method's."""
    return any(step.partition(":")[0] == NAME for step in steps)


def matrices(model: ir.Model) -> list[tuple[ir.Node, Array, bool]]:
    """Layers with a constant float matrix on the right: node, matrix [N, K], whether it stands transposed (Gemm)."""
    found = []
    for node in model.graph:
        if node.domain != "" or node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = array_of(operand(node, 1))
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or min(weight.shape) < 1:
            continue
        turned = node.op_type == "Gemm" and bool(int(attr(node, "transB", 0)))
        plain = node.op_type == "MatMul" or (
            float(attr(node, "alpha", 1.0)) == float(attr(node, "beta", 1.0)) == 1.0
            and not int(attr(node, "transA", 0))
        )
        if plain:
            found.append((node, weight if turned else weight.T, turned))
    return found


def make_plan(model: ir.Model, *, recipe: str | Recipe, seed: int = 0) -> Plan:
    """One row per matrix. Raises UsageError for a recipe with other steps, or a network without such layers."""
    steps = Recipe.make(recipe)
    config = _config([str(s) for s in steps.steps])
    plan = Plan(network=model.graph.name or "", recipe=steps.name, steps=[str(s) for s in steps.steps], seed=seed)
    plan.data = {"source": "none: the weights alone are rounded"}
    for node, weight, _ in matrices(model):
        row = Row(node.name or "", node.op_type, method=NAME, kernel="wlinear", status="packed")
        row.weight_bits, row.activation_bits = config.bits, ACTIVATION_BITS[config.compute]
        row.granularity = f"group {config.group}" if config.group else "channel"
        row.macs, row.bytes_before = macs(node, None), weight.nbytes
        groups = -(-weight.shape[1] // (config.group or weight.shape[1]))
        width = 5 if config.symmetric else 4 + (config.bits / 8)
        row.bytes_after = packed_bytes(weight.size, config.bits) + int(weight.shape[0] * groups * width)
        plan.rows.append(row)
    if not plan.rows:
        raise UsageError(Problem("no layer multiplies by a constant matrix", NAME, hint="recipe cpu-int8"))
    return plan


def quantize(model: ir.Model, *, plan: Plan) -> ir.Model:
    """The network with codes behind DequantizeLinear for every row of the plan that is not kept."""
    config = _config(plan.steps)
    made = clone(model)
    rows = {row.name: row for row in plan.rows}
    layers = {node.name or "": (node, weight, turned) for node, weight, turned in matrices(made)}
    unknown = [Problem("no such layer", name, hint="plan again") for name in rows if name not in layers]
    if unknown:
        raise UsageError(unknown)
    for name, (node, weight, turned) in layers.items():
        row = rows.get(name)
        if row is not None and row.method != KEEP:
            _insert(node, weight, row.weight_bits or config.bits, config, turned=turned)
    made.metadata_props["netsuke.compute"] = config.compute
    return made


def _insert(node: ir.Node, weight: Array, bits: int, config: WeightOnly, *, turned: bool) -> None:
    graph, depth = node.graph, weight.shape[1]
    assert graph is not None
    group = config.group or depth
    if not np.isfinite(weight).all():
        raise UsageError(Problem("a weight is NaN or infinite", node.name or ""))
    codes, scale, zero = quantize_groups(weight, bits, group, symmetric=config.symmetric)
    blocked = group < depth
    name = node.name or "layer"

    def oriented(array: Array) -> Array:
        return np.ascontiguousarray(array if turned else array.T)

    parts = [codes, *([scale] if zero is None else [scale, zero])]
    stored = [oriented(codes), *(oriented(a) if blocked else a.reshape(-1) for a in parts[1:])]
    words = ("codes", "scales", "zeros")
    inputs = [constant(graph, array, f"{name}.{word}") for array, word in zip(stored, words, strict=False)]
    k_axis = 1 if turned else 0
    attrs = {"axis": k_axis, "block_size": group} if blocked else {"axis": 1 - k_axis}
    dims = list(weight.shape) if turned else list(weight.shape[::-1])
    plain = emit(node, "DequantizeLinear", inputs, attrs, dtype=ir.DataType.FLOAT, dims=dims, name=f"{name}/weight")
    node.replace_input_with(1, plain)


def _config(steps: list[str]) -> WeightOnly:
    from netsuke.core.recipe import Step

    parsed = [Step.parse(step) for step in steps]
    others = [s.method for s in parsed if s.method != NAME]
    if others or len(parsed) != 1:
        hint = "activations are not calibrated here: no other step applies"
        raise UsageError(Problem("weight_only is a recipe of one step", NAME, ", ".join(others), hint=hint))
    config = configure(WeightOnly, parsed[0].options, NAME)
    assert isinstance(config, WeightOnly)
    return config


METHOD = register(
    Method(
        name=NAME,
        purpose="weights of 2 to 8 bits in groups, activations float, bfloat16 or quantized on the fly",
        paper="quant-survey",
        config=WeightOnly,
        apply=quantize,
        touches=("weights", "activations"),
        exports=("wlinear",),
        cost="none",
        tags=("weight-only",),
    )
)
