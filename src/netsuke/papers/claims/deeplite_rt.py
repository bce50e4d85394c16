"""Ashfaq et al. 2022/2023, "DeepliteRT: Computer Vision at the Edge".

Paper: compiler passes turn fake-quantized models of 1 and 2 bits into packed operators without changes by hand, tuned
on the device; up to 2.2x over float and 2.3x over INT8 end to end on Arm. Checked on the shipped digits: a CNN trained
with fake quantizers of 2 bits and a binary one, exported as they are. Exact: every layer between the ends is
stored and computed at 1 or 2 bits; the engine gives every logit of the fake-quantized network; tuning times several
ways of each, stores them where they can be read, and no way changes a bit. Speed is a figure, not a bar: these
networks take microseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._binary import SHAPE, _tensors, compiled, network, train

BITS, EPOCHS = 2, 12


def _two_bits(seed: int) -> Any:
    """The shipped digits CNN with 2-bit weights and activations, trained, in eval mode."""
    import torch

    from netsuke import models
    from netsuke.methods.qat import Samples, TrainConfig, prepare
    from netsuke.methods.qat import train as fit

    model = models.build("digits_cnn")
    x, y = _tensors("train")
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:256]
    made = prepare(model, shape=SHAPE, calib=x[rows], method="qat/lsq", weight_bits=BITS, activation_bits=BITS)
    fit(made, Samples(x, y), teacher=model, config=TrainConfig(epochs=EPOCHS, rate=0.02, scale_rate=0.005, seed=seed))
    return made.eval()


def _run(program: Any, x: Any) -> bytes:
    from netsuke import engine

    return next(iter(engine.load(program, threads=1).run(x.numpy()).values())).tobytes()


def _tuned(program: Any, x: Any) -> tuple[Any, bool]:
    """What tuning found, and whether every way of every layer gives the same outputs."""
    from netsuke.measure import tuning

    tuning.use({})
    want = _run(program, x)
    found = tuning.tune(program, {program.inputs[0].name: x.numpy()[:64]}, threads=1)
    same = _run(program, x) == want
    try:
        for way in {way for times in found.ms.values() for way in times}:
            tuning.use({"*": way})
            same &= _run(program, x) == want
    finally:
        tuning.use({})
    return found, same


def measure(context: Context, seed: int) -> Outcome:
    """Train both networks, compile their exports, tune, compare."""
    import torch

    from netsuke import engine
    from netsuke.measure import tuning
    from netsuke.methods.binarize import bi_real
    from netsuke.nn.binary_layers import freeze
    from netsuke.passes import compile_program

    x, y = _tensors("test")
    two = _two_bits(seed)
    program = compile_program(two.export(), name="two_bits")
    with torch.no_grad():
        simulated = two(x).numpy()
    found, same = _tuned(program, x)
    loaded = engine.load(program, threads=1)
    served = next(iter(loaded.run(x.numpy()).values()))
    stored = [row["stored"] for row in loaded.kernels() if row["op"] in ("qconv", "qlinear")]
    known = tuning.read(found.isa, found.threads)
    binary = train(bi_real.apply(network(seed), bi_real.Config()), seed, epochs=EPOCHS)
    one = compiled(freeze(binary))
    with torch.no_grad():
        labels = binary(x).argmax(1).numpy()
    answers = next(iter(engine.load(one, threads=1).run(x.numpy()).values())).argmax(1)
    ones, unchanged = _tuned(one, x)
    context.progress(f"seed {seed}: 2 bits {float((served.argmax(1) == y.numpy()).mean()):.4f}")
    return Outcome(
        exact={
            "every layer between the ends is stored at 2 bits": sum(text.startswith("2-bit codes") for text in stored)
            == len(stored) - 2,
            "no layer is left in float": not any(n.op in ("conv", "linear") for n in program.nodes),
            "the engine gives every logit of the fake-quantized network": bool(np.array_equal(served, simulated)),
            "every binarized layer runs at one bit": sum(n.op == "bconv" for n in one.nodes) == 4,
            "the engine gives every label of the binary network": bool(np.array_equal(answers, labels)),
            "tuning timed several ways, among them bit planes": any("bits" in t for t in found.ms.values()),
            "tuning is stored under this CPU and read again": all(known.ms.get(k) == t for k, t in found.ms.items()),
            "no way changes a bit": same and unchanged,
        },
        figures={
            "top1": float((served.argmax(1) == y.numpy()).mean()),
            "top1_one_bit": float((answers == y.numpy()).mean()),
            "ways_timed": float(sum(len(t) for part in (found, ones) for t in part.ms.values())),
            "layers_tuned_away_from_the_rule": float(len(found.choices()) + len(ones.choices())),
        },
    )


CLAIM = register(
    Claim(
        id="deeplite-rt/digits",
        paper="deeplite-rt",
        sentence="Fake-quantized networks become packed 1 and 2 bit operators, tuned here, equal to their simulation.",
        baseline="the fake-quantized network itself",
        measure=measure,
        compares=(Compare("top1", "", 0.93),),
        minutes=4,
        methods=("qat/lsq", "binarize/bi_real"),
    )
)
