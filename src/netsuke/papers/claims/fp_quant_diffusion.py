"""Chen et al. 2024, "Low-Bitwidth Floating Point Quantization for Diffusion Models".

Paper: 8-bit floats lossless, 4-bit weights with learned rounding nearly so, both better than integers of as many bits.
Checked: the shipped digits U-Net, 8 sampling steps, weights of 4 and 8 bits with activations of 8. Convolutions on
minifloat grids have no kernel: these networks are simulated, and refused without being allowed. What runs packed is
checked on the shipped DiT: FP4 weights of its linear layers. Exact: the U-Net is refused by name unless simulation is
allowed; the DiT's 20 matrices run as packed e2m1 and the engine computes what PyTorch does to 1e-3. Statistical: 500
samples are nearer to the float network's than with integers of as many bits (weights per channel), at 4 and at 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke import engine
from netsuke.core.errors import UsageError
from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import Judge, network


def measure(context: Context, seed: int) -> Outcome:
    """Integers, floats rounded to nearest, floats with learned rounding."""
    from netsuke.methods.diffusion import float_ptq
    from netsuke.methods.diffusion._sampling import Sampling
    from netsuke.methods.diffusion._tuned import quantized

    model, sampling = network("digits_unet"), Sampling(seed=seed)
    judge = Judge(model, sampling.steps, seed)
    for bits in (4, 8):
        judge(f"int{bits}", quantized(model, sampling, weight_bits=bits, activation_bits=8, per_step=False))
        for name, iterations in ((f"fp{bits}_nearest", 0), (f"fp{bits}", 150)):
            config = float_ptq.FloatPtq(
                weight_bits=bits, activation_bits=8, packed=False, iterations=iterations, allow_simulated=True
            )
            judge(name, float_ptq.apply(model, sampling, config))
    context.progress(f"seed {seed}: {judge.figures}")
    packed, near = _served(sampling)
    return Outcome(
        exact={
            "simulation is refused unless allowed": _refused(model, sampling),
            "20 matrices run as packed e2m1": packed,
            "the engine computes what PyTorch does": near,
        },
        figures=judge.figures,
    )


def _refused(model: Any, sampling: Any) -> bool:
    from netsuke.methods.diffusion import float_ptq

    try:
        float_ptq.apply(model, sampling)
    except UsageError as error:
        return "stem" in str(error)
    return False


def _served(sampling: Any) -> tuple[bool, bool]:
    """FP4 weights of the DiT: whether they run packed, and engine and PyTorch agree."""
    import torch

    from netsuke.methods.diffusion import float_ptq
    from netsuke.nn.diffusion import starts
    from netsuke.passes import compile_program

    config = float_ptq.FloatPtq(layers="blocks.*", iterations=20)
    made = float_ptq.apply(network("digits_dit"), sampling, config)
    program = compile_program(made.export())
    forms = [n.attrs["format"] for n in program.nodes if n.op == "wlinear"]
    noise, labels = starts(8, (1, 8, 8), seed=7)
    given = {"image": noise, "time": np.full(8, 500, np.float32), "label": labels}
    found = np.asarray(next(iter(engine.load(program, threads=1).run(given).values())))
    with torch.no_grad():
        wanted = made.network(*(torch.from_numpy(a) for a in given.values())).numpy()
    return forms == ["e2m1"] * 20, bool(np.allclose(found, wanted, atol=1e-3))


CLAIM = register(
    Claim(
        id="fp-quant-diffusion/digits",
        paper="fp-quant-diffusion",
        sentence="Floats of 4 and 8 bits with searched formats and learned rounding beat integers of as many bits.",
        baseline="integers of as many bits, weights per channel, least-squares ranges, nearest rounding",
        measure=measure,
        compares=(Compare("distance_int4", "distance_fp4"), Compare("distance_int8", "distance_fp8")),
        seeds=(0, 1),
        minutes=4,
        methods=("diffusion/float_ptq",),
    )
)
