"""Gradient-based PTQ: one recipe whose loss, variable, optimiser, grid, unit and inputs are switches.

Paper: "Gradient-Based Post-Training Quantization: Challenging the Status Quo", 2023 (arXiv 2308.07662), an ablation
of methods like AdaRound and BRECQ.
Idea: what these methods vary is small: which error, of which unit, over which variable, by which optimiser, from
which inputs. Made into switches, the choices can be compared at an equal budget, and the best combination is the
default.
Equations: see quantize/adaround (variable=rounding), quantize/adaquant (variable=weight), quantize/brecq
(unit=block, loss=fisher, drop).
Differences: the paper's list of guidelines is known from its abstract only. The default is a compromise of what the
methods above do: blocks, plain squared error, half of the inputs mixed in float, ranges and biases trained too; the
claim gptq-status-quo/rounding sets it beside AdaRound and BRECQ. Importance-based mixed precision is left to the
bit search.
With grid=codebook, layers below 8 bits get 2^bits entries on the 8-bit grid by k-means, and weights move between
neighbouring entries (codebook/jlcm's variable); entries are trained too, and stored as indices (docs/format.md 3).
Cost: as the method it stands for. Limits: codebooks are decoded at load, so they save bytes, not time.
"""

from __future__ import annotations

from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError
from netsuke.core.method import Method, register
from netsuke.methods.codebook._start import start
from netsuke.methods.quantize._context import Context
from netsuke.methods.quantize._learned import check, require_torch
from netsuke.methods.quantize._units import block_units, layer_units, weighted


@dataclass(frozen=True)
class GradientPtq:
    """Switches.

    unit       "layer" or "block": what is fitted at a time
    loss       "l2", "l1" or "fisher" (squared error weighted by the squared gradient of the task)
    grid       "uniform", or "codebook": 2^bits values found in the weights, whatever `variable` says
    variable   "rounding" (the code below or above) or "weight" (free, straight-through)
    optimiser  "adam" or "sgd" (momentum 0.9)
    inputs     "quantized" or "float"; drop: share of the former replaced by the latter
    rate       of the variable; ranges, bias: of activation scales and biases, 0 leaves them alone
    """

    unit: str = "block"
    loss: str = "l2"
    grid: str = "uniform"
    variable: str = "rounding"
    optimiser: str = "adam"
    inputs: str = "quantized"
    drop: float = 0.5
    rate: float = 1e-2
    ranges: float = 1e-3
    bias: float = 1e-3
    regular: float = 0.01
    iterations: int = 400
    batch: int = 32
    samples: int = 256

    def __post_init__(self) -> None:
        check("quantize/gradient_ptq", self)


def apply(context: Context, config: GradientPtq) -> None:
    """Fit all units as the switches say."""
    require_torch("quantize/gradient_ptq")
    from netsuke.methods.quantize._reconstruct import Fit, reconstruct

    table = config.grid == "codebook"
    if table:
        _tables(context)
    fit = Fit(
        variable="codebook" if table else config.variable,
        entries=1e-2 if table else 0.0,
        loss=config.loss,
        optimiser=config.optimiser,
        iterations=config.iterations,
        batch=config.batch,
        samples=config.samples,
        rate=config.rate,
        regular=config.regular if config.variable == "rounding" and not table else 0.0,
        drop=config.drop,
        ranges=config.ranges,
        biases=config.bias,
        inputs=config.inputs,
    )
    blocks = config.unit == "block"
    units = block_units(context.model.graph, context.placement) if blocks else layer_units(context.placement)
    reconstruct(context, units, fit, "gradient_ptq")


def _tables(context: Context) -> None:
    """A first table for every layer of fewer than 8 bits; layers of 8 bits keep all their codes as entries."""
    rows = {x.name: context.plan[x.name].rows[0] for x in weighted(context.placement)}
    tensor = [n for n, row in rows.items() if row.granularity != "channel"]
    if tensor:
        raise UsageError([Problem("granularity", n, "tensor", "channel") for n in tensor], "tables need channel scales")
    for layer in weighted(context.placement):
        start(context, layer, rows[layer.name].weight_bits or 8)


METHOD = register(
    Method(
        name="quantize/gradient_ptq",
        purpose="learned rounding with grid, loss, variable, optimiser, unit and inputs as switches",
        paper="gptq-status-quo",
        config=GradientPtq,
        apply=apply,
        needs=("data",),
        touches=("weights", "activations"),
        exports=("qconv", "qlinear"),
        cost="ten seconds a block, torch",
        tags=("weights", "learned"),
    )
)
