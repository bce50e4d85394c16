"""Double Rounding: one training, 8-bit codes stored, 6, 4, 3 and 2 bits by integer operations.

Paper: one stored network switches between widths almost without loss. Checked: the shipped digits network trained
once for 8, 6, 4, 3 and 2 bits, and once more for each width alone with learned steps, as many epochs. Exact: the
codes of every view are add-and-shift of the 8-bit ones; the engine gives every output of every view. Statistical:
each view within 2 points of the network trained alone.
"""

from __future__ import annotations

from dataclasses import replace

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

BITS = (8, 6, 4, 3, 2)


def measure(context: Context, seed: int) -> Outcome:
    """One network for all widths, one for each."""
    import torch

    from netsuke.methods.qat import Samples, prepare
    from netsuke.methods.qat._training import train
    from netsuke.methods.qat.double_rounding import Views
    from netsuke.models import build
    from netsuke.nn.quantizer_double import fewer_bits
    from netsuke.papers.claims._digits_train import CONFIG, SHAPE, served, tensors, top1, trained

    torch.set_num_threads(1)
    x, y = tensors("train")
    test, labels = tensors("test")
    model = build("digits_cnn")
    network = prepare(model, shape=SHAPE, method="qat/double_rounding", weight_bits=8, activation_bits=8, calib=x[:256])
    views = Views(network, BITS)
    views.calibrate(x[:256])
    config = replace(CONFIG, seed=seed, freeze=1.0)  # no norm freezes on lagging averages: `settle` measures them
    train(network, Samples(x, y), teacher=model, config=config, step=views.step)
    views.settle(x)
    figures, exact = {"top1_float": top1(model.eval(), test, labels)}, {}
    layers = views.layers
    stored = {n: m.weight.stored(m.real_weight()) for n, m in layers.items()}  # type: ignore[operator]
    for bits in BITS:
        views.switch(bits)
        network.eval()
        same = all(
            torch.equal(m.weight.codes(m.real_weight()), fewer_bits(stored[n], 8, bits)) for n, m in layers.items()
        )
        _, out, equal = served(network, test)
        figures[f"top1_view{bits}"] = float((out.argmax(1) == labels).float().mean())
        exact[f"{bits} bits: codes are shifts of the stored ones"] = same
        exact[f"{bits} bits: engine equals the view"] = equal
        if bits < 8:
            alone = trained(context, seed, method="qat/lsq", weight_bits=bits, activation_bits=bits)
            figures[f"top1_alone{bits}"] = top1(alone.eval(), test, labels)
        context.progress(f"seed {seed}: {bits} bits: {figures[f'top1_view{bits}']:.4f}")
    return Outcome(exact, figures)


CLAIM = register(
    Claim(
        id="double-rounding/digits",
        paper="double-rounding",
        sentence="Views of one stored 8-bit network are within 2 points of networks trained for each width alone.",
        baseline="learned steps trained for one width",
        measure=measure,
        compares=(
            *(Compare(f"top1_view{b}", f"top1_alone{b}", -0.01) for b in (6, 4, 3)),
            Compare("top1_view2", "top1_alone2", -0.02),
            Compare("top1_view8", "top1_float", -0.01),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("qat/double_rounding", "qat/lsq"),
    )
)
