"""Nielsen and Schneider-Kamp 2024, "BitNet b1.58 Reloaded", text: a small encoder with ternary layers.

Paper: ternary weights (scale mean or median of |w|) and 8-bit activations train small networks; vision ones match 16
bits at the same width, language models need twice it. A classifier of sentences lies between. Checked: a two-layer
encoder on toy sentences whose sentiment a "not" and a "but" turn round, all linear layers of its blocks ternary,
trained from random weights with as many steps as float. Exact: these layers run as ternary `wlinear` on 8-bit
activations, take at most 1.7 bits a weight of the file, and each gives the numbers of the trained layer bit for bit.
Statistical: with either scale within 3 points of float, and at least 10 points above the float network rounded to the
same levels.
"""

from __future__ import annotations

import copy
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _text
from netsuke.papers.claims.bitnet158 import bits_per_weight, ternary_constants

STEPS, LAYERS = 500, 8
SCALES = ("median", "mean")


def ternary(model: Any, scale: str) -> Any:
    """The classifier with ternary blocks, in place; the head stays float."""
    from netsuke.methods.binarize import bitnet158

    return bitnet158.apply(model, bitnet158.Config(scale), keep=("head",))


def layers_are_exact(model: Any, x: Any) -> bool:
    """Every ternary layer, compiled alone, on what it reads in the network: engine and torch, bit for bit."""
    import numpy as np
    import torch

    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.nn.binary_layers import layers
    from netsuke.passes import compile_program

    seen: dict[str, tuple[Any, Any]] = {}

    def note(name: str) -> Any:
        return lambda _m, inputs, out: seen.__setitem__(name, (inputs[0], out))

    found = list(layers(model))
    handles = [layer.register_forward_hook(note(name)) for name, layer in found]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    same = []
    for name, layer in found:
        given, wanted = seen[name]
        program = compile_program(capture(layer, shape=(1, *given.shape[1:])), name="layer")
        got = next(iter(engine.load(program).run(given.numpy()).values()))
        same.append(np.array_equal(got, wanted.numpy()))
    return len(same) == LAYERS and all(same)


def served(model: Any, program: Any, x: Any) -> dict[str, bool]:
    """What must hold of the compiled network exactly."""
    names, nodes = ternary_constants(program, ("wlinear",)), [n for n in program.nodes if n.op == "wlinear"]
    return {
        "eight ternary layers on 8-bit activations": len(names) == LAYERS == len(nodes)
        and all(n.attrs["compute"] == "s8" for n in nodes),
        "a weight takes at most 1.7 bits of the file": bits_per_weight(program, names) <= 1.7,
        "every ternary layer is the trained one bit for bit in the engine": layers_are_exact(model, x),
    }


def measure(context: Context, seed: int) -> Outcome:
    """Float; ternary with either scale from the same random weights; float rounded to ternary afterwards."""
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.nn.binary_layers import freeze

    x, y = _text.tensors(_text.TRAIN, seed + 1)
    test, draw = _text.tensors(_text.TEST, _text.HELD_OUT), _text.batches(x, y, seed)
    floating = fit(_text.network(seed), draw, Training(STEPS))
    figures, exact = {"top1_float": _text.top1(floating, *test)}, dict[str, bool]()
    for scale in SCALES:
        model = fit(ternary(_text.network(seed), scale), draw, Training(STEPS))
        freeze(model)
        rounded = ternary(copy.deepcopy(floating), scale).eval()
        program = _text.compiled(model)
        figures |= {
            f"top1_{scale}": _text.top1(model, *test),
            f"top1_rounded_{scale}": _text.top1(rounded, *test),
            f"agreement_{scale}": _text.agreement(program, model, test[0]),
            f"bits_{scale}": bits_per_weight(program, ternary_constants(program, ("wlinear",))),
        }
        exact |= {f"{scale}: {what}": ok for what, ok in served(model, program, test[0][:64]).items()}
        context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="bitnet158-reloaded/toy-text",
        paper="bitnet158-reloaded",
        sentence="A ternary text classifier comes within three points of float at 1.6 bits a weight.",
        baseline="the float network, as many steps; the same rounded to ternary afterwards",
        measure=measure,
        compares=tuple(
            compare
            for s in SCALES
            for compare in (
                Compare(f"top1_{s}", "top1_float", -0.03),
                Compare(f"top1_{s}", f"top1_rounded_{s}", 0.10),
                Compare(f"agreement_{s}", "", 0.99),
            )
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("binarize/bitnet158",),
    )
)
