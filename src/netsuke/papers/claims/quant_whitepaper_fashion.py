"""Fashion-MNIST below eight bits, without and with training, in the engine on the 10,000 test images.

Checked: a network of four convolutions and two linear layers, trained by us (93.2 % in float); first and last layer at
8 bits. Without training: 512 unlabelled training images, W4A8 by second-order rounding, W4A4 by block-wise learned
rounding. With training: learned steps, the float network as teacher, one epoch (two at 2 bits) of 20,000 training
images. Exact: the engine gives every logit of the network that was trained (1,000 images); no convolution is left in
float. Statistical: half of the margins of CIFAR-10: 0.35 and 1.25 points without, 0.5, 1 and 2.25 points with training
at 4, 3 and 2 bits.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

PTQ = {
    "w4a8": ["quantize/uniform:weight_bits=4,activation_bits=8,samples=512", "quantize/gptq"],
    "w4a4": ["quantize/uniform:weight_bits=4,activation_bits=4,samples=512", "quantize/brecq:iterations=200"],
}
EPOCHS = {4: 1, 3: 1, 2: 2}
IMAGES = 20_000  # of the training set, for training at few bits


def measure_ptq(context: Context, seed: int) -> Outcome:
    """Two recipes from the same calibration images."""
    import torch

    from netsuke.core.recipe import Recipe
    from netsuke.data import load_data
    from netsuke.papers.claims import _fashion
    from netsuke.pipeline import compress

    torch.set_num_threads(1)
    model = _fashion.network(context)
    x, y = _fashion.tensors(context, "test")
    calib = load_data("fashion-mnist:train", context.data_root).take(512, seed)
    figures, exact = {"top1_float": _fashion.top1(_fashion.real(model, x), y)}, {}
    for name, recipe in PTQ.items():
        small = compress(
            model,
            recipe=Recipe.make(recipe),
            calib=calib,
            shape=_fashion.SHAPE,
            seed=seed,
            effort="fast",
            measure=False,
        )
        figures[f"top1_{name}"] = _fashion.top1(_fashion.served(small.program, x), y)
        exact[f"{name}: no layer is left in float"] = not any(n.op in ("conv", "linear") for n in small.program.nodes)
        context.progress(f"seed {seed}: {name}: {figures[f'top1_{name}']:.4f} of {figures['top1_float']:.4f}")
    return Outcome(exact, figures)


def measure_qat(context: Context, seed: int) -> Outcome:
    """Three trainings from the float network."""
    import torch

    from netsuke.methods.qat import Samples, TrainConfig, prepare, train
    from netsuke.papers.claims import _fashion
    from netsuke.passes import compile_program

    torch.set_num_threads(1)
    model = _fashion.network(context)
    x, y = _fashion.tensors(context, "train")
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    test, labels = _fashion.tensors(context, "test")
    figures, exact = {"top1_float": _fashion.top1(_fashion.real(model, test), labels)}, {}
    for bits, epochs in EPOCHS.items():
        network = prepare(
            model, shape=_fashion.SHAPE, calib=x[rows[:256]], method="qat/lsq", weight_bits=bits, activation_bits=bits
        )
        config = TrainConfig(epochs=epochs, rate=0.01, seed=seed)
        train(network, Samples(x[rows], y[rows]), teacher=model, config=config)
        program = compile_program(network.export(), name="fashion")
        found = _fashion.served(program, test)
        with torch.no_grad():
            trained = network.eval()(test[:1000])
        figures[f"top1_w{bits}a{bits}"] = _fashion.top1(found, labels)
        exact[f"{bits} bits: engine equals the trained network"] = torch.equal(found[:1000], trained)
        exact[f"{bits} bits: no layer is left in float"] = not any(n.op in ("conv", "linear") for n in program.nodes)
        context.progress(f"seed {seed}: {bits} bits: {figures[f'top1_w{bits}a{bits}']:.4f}")
    return Outcome(exact, figures)


FASHION_PTQ = register(
    Claim(
        id="quant-whitepaper/fashion-ptq",
        paper="quant-whitepaper",
        sentence="Without training Fashion-MNIST keeps its accuracy within 0.35 points at W4A8 and 1.25 at W4A4.",
        baseline="the float network on the same 10,000 test images",
        measure=measure_ptq,
        compares=(Compare("top1_w4a8", "top1_float", -0.0035), Compare("top1_w4a4", "top1_float", -0.0125)),
        minutes=15,
        data=("fashion-mnist",),
        methods=("quantize/gptq", "quantize/brecq", "quantize/uniform"),
    )
)
FASHION_QAT = register(
    Claim(
        id="quant-whitepaper/fashion-qat",
        paper="quant-whitepaper",
        sentence="Trained at few bits Fashion-MNIST loses at most 0.5, 1 and 2.25 points at 4, 3 and 2 bits.",
        baseline="the float network on the same 10,000 test images",
        measure=measure_qat,
        compares=tuple(
            Compare(f"top1_w{b}a{b}", "top1_float", -margin) for b, margin in ((4, 0.005), (3, 0.01), (2, 0.0225))
        ),
        minutes=30,
        data=("fashion-mnist",),
        methods=("qat/lsq",),
    )
)
