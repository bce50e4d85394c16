"""GPTQ: round the columns of a weight one after the other, each error compensated by the columns that follow.

Paper: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022
(arXiv 2210.17323).
Idea: with H = 2 X X^T / n the layer's squared output error is (w - q) H (w - q)^T per row; having fixed a column's
code, the best change of the free columns is known in closed form.
Equations: H += damp * mean(diag H) * I; U the upper Cholesky factor of H^-1 (H^-1 = U^T U). For each column j: q_j
= s clip(rne(w_j / s)), e = (w_j - q_j) / U_jj, w_k -= e U_jk for k >= j. Columns with H_jj = 0 are dead: their
weight is set to 0. With groups, the scale of a group is chosen from the updated weights when its first column is
reached (at the start when the order is not the natural one). `act_order` takes columns by falling H_jj.
Differences: symmetric codes (docs/numerics.md section 1) instead of affine; inputs come from the network as
quantized so far (activations included) unless inputs=float; convolutions use their unfolded inputs, one H per group
of channels. In the pipeline scales are one per output channel, those of the plan's rule.
Cost: one run over the samples per layer, one Cholesky factorization of size columns^2, rows x columns^2 operations.
Limits: H is held in float64, columns^2 x 8 bytes per group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.quantize._codes import SMALLEST, weight_scales
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._graph import Array
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._units import layer_units, prefix, weighted

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gptq:
    """Options.

    damp       share of the mean diagonal added to the diagonal of H
    act_order  columns by falling H_jj instead of their own order
    block      columns between two updates of the rest
    samples    calibration samples used, at most
    inputs     "quantized" (by the layers in front) or "float"
    """

    damp: float = 0.01
    act_order: bool = True
    block: int = 128
    samples: int = 256
    inputs: str = "quantized"

    def __post_init__(self) -> None:
        check("quantize/gptq", self)


def gptq(
    weight: npt.NDArray[np.floating],
    hessian: Matrix,
    *,
    bits: int,
    scales: Array | None = None,
    group: int = 0,
    rule: str = "mse",
    damp: float = 0.01,
    act_order: bool = False,
    block: int = 128,
) -> tuple[npt.NDArray[np.int8], Array]:
    """Codes [rows, columns] and scales [rows, groups] of a weight [rows, columns] for H [columns, columns].

    scales  per row, float32 [rows]; None: chosen by `rule` ("maxabs", "mse") per row, or per group of `group` columns
    group   columns with one scale; 0: the whole row

    Raises UsageError for impossible shapes, bits or groups, or an H that is not positive definite even when damped.
    """
    rows, columns = weight.shape
    _check(weight, hessian, bits, group, scales, damp)
    hessian = np.array(hessian, np.float64)
    exact = np.array(weight, np.float64)
    dead = np.diag(hessian) <= 0
    hessian[dead, dead] = 1.0
    exact[:, dead] = 0.0
    order = np.argsort(-np.diag(hessian), kind="stable") if act_order else np.arange(columns)
    width = group or columns
    steps = _first_scales(exact, width, bits, rule) if scales is None else np.array(scales, np.float32)[:, None]
    fixed = scales is not None or act_order
    work, factor = exact[:, order], _factor(hessian[np.ix_(order, order)], damp)
    codes = np.zeros((rows, columns), np.int8)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        errors = np.zeros((rows, last - first))
        for j in range(first, last):
            column = int(order[j])
            if not fixed and column % width == 0 and column:
                part = _group_now(work, errors, factor, j, min(column + width, columns), first, last)
                steps[:, column // width] = weight_scales(np.asarray(part, np.float32), 0, bits, rule)
            codes[:, column] = _round(work[:, j], steps[:, column // width], bits)
            rounded = codes[:, column] * steps[:, column // width].astype(np.float64)
            errors[:, j - first] = (work[:, j] - rounded) / factor[j, j]
            work[:, j:last] -= np.outer(errors[:, j - first], factor[j, j:last])
        work[:, last:] -= errors @ factor[first:last, last:]
    return codes, steps


def _first_scales(exact: Matrix, width: int, bits: int, rule: str) -> Array:
    """Scale per row and group of columns of the weights as they are given."""
    parts = [np.asarray(exact[:, i : i + width], np.float32) for i in range(0, exact.shape[1], width)]
    return np.stack([weight_scales(part, 0, bits, rule) for part in parts], axis=1)


def _group_now(work: Matrix, errors: Matrix, factor: Matrix, start: int, stop: int, first: int, last: int) -> Matrix:
    """Columns start..stop with every error so far taken in (those beyond the block have not seen the block's yet)."""
    part = work[:, start:stop].copy()
    if stop > last:
        beyond = max(start, last)
        part[:, beyond - start :] -= errors @ factor[first:last, beyond:stop]
    return part


def _round(values: Matrix, steps: Array, bits: int) -> npt.NDArray[np.int8]:
    top = 2 ** (bits - 1) - 1
    return np.asarray(np.clip(np.rint(values / np.maximum(steps.astype(np.float64), SMALLEST)), -top, top), np.int8)


def _factor(hessian: Matrix, damp: float) -> Matrix:
    """The upper triangular U with H^-1 = U^T U of the damped H."""
    from scipy.linalg import solve_triangular

    size = len(hessian)
    damped = hessian + damp * float(np.mean(np.diag(hessian))) * np.eye(size)
    try:
        # H = R R^T with R upper triangular, by factoring H with rows and columns reversed; then U = R^-1.
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        inverse: Matrix = solve_triangular(upper, np.eye(size), lower=False)
    except np.linalg.LinAlgError:
        inverse = np.full((size, size), np.nan)
    if not np.isfinite(inverse).all():
        raise UsageError(Problem("the Hessian is not positive definite", got=f"damp {damp:g}", hint="a larger damp"))
    return inverse


def _check(
    weight: npt.NDArray[np.floating], hessian: Matrix, bits: int, group: int, scales: Array | None, damp: float
) -> None:
    problems, columns = [], weight.shape[1]
    if hessian.shape != (columns, columns):
        problems.append(Problem("shape of H", got=str(hessian.shape), allowed=f"({columns}, {columns})"))
    if not 2 <= bits <= 8:
        problems.append(Problem("bits", got=str(bits), allowed="2 to 8"))
    if group < 0 or (group and columns % group):
        problems.append(Problem("group", got=str(group), allowed=f"0, or a divisor of {columns} columns"))
    if scales is not None and (group or scales.shape != (len(weight),)):
        problems.append(Problem("scales", got=str(scales.shape), allowed=f"({len(weight)},) and no group"))
    if not damp >= 0:
        problems.append(Problem("damp", got=str(damp), allowed="at least 0"))
    if not (np.isfinite(weight).all() and np.isfinite(hessian).all()):
        problems.append(Problem("NaN or infinity in the weight or in H"))
    if problems:
        raise UsageError(problems)


@dataclass
class Part:
    """A layer on its way: weights and scales per group of channels, H of each; whoever walks sets `codes`."""

    rows: list[Array]
    scales: list[Array]
    hessians: list[Matrix]
    bits: int
    per_channel: bool
    codes: list[npt.NDArray[np.int8]] = field(default_factory=list)


def each_layer(context: Context, config: Gptq, name: str) -> Iterator[Part]:
    """Every quantized layer with weights in graph order, behind the layers already done; keeps what was set."""
    require_torch(f"quantize/{name}")
    from netsuke.methods.quantize._hessian import by_rows, hessians, restored

    layers = weighted(context.placement)
    settled = set(context.ranges)
    for index, (layer, unit) in enumerate(zip(layers, layer_units(context.placement), strict=True)):
        model, names = context.model, [v.name or "" for v in unit.inputs]
        if config.inputs == "quantized":
            model, names = prefix(context, unit, settled)
        source = names[unit.inputs.index(layer.inputs[0])]
        rows, scales, bits = by_rows(context, layer)
        per_channel = context.plan[layer.name].rows[0].granularity == "channel"
        part = Part(rows, scales, hessians(context, layer, model, source, config.samples), bits, per_channel)
        yield part
        context.scales[layer.name], context.codes[layer.name] = restored(layer, part.scales, part.codes, per_channel)
        context.progress(name, index + 1, len(layers))


def apply(context: Context, config: Gptq) -> None:
    """Choose the codes of every quantized layer with weights, in graph order."""
    for part in each_layer(context, config, "gptq"):
        part.codes = [
            gptq(w, h, bits=part.bits, scales=s, damp=config.damp, act_order=config.act_order, block=config.block)[0]
            for w, s, h in zip(part.rows, part.scales, part.hessians, strict=True)
        ]


METHOD = register(
    Method(
        name="quantize/gptq",
        purpose="round columns one by one, the rest of the row compensating each error",
        paper="odysseyllm",
        config=Gptq,
        apply=apply,
        needs=("data",),
        touches=("weights",),
        exports=("qconv", "qlinear"),
        cost="one run and one Cholesky factorization a layer",
        tags=("weights", "learned"),
    )
)
