"""Liu et al. 2022, "EcoFormer: Energy-Saving Attention with Linear Complexity".

Paper: hash codes of queries and keys replace products by additions and make attention linear in the tokens, at a cost
of 0.33 points. Checked: a two-layer transformer on the shipped digits, first trained with softmax attention whose keys
are its queries, as in the paper; the float network it is compared with has keys of its own. Exact: the
compiled attention runs `bmatmul`, which adds and subtracts 8-bit levels by packed bits, without matmul and softmax; a
trained one gives the same bits in torch (products of levels) and in the engine (additions). Statistical: accuracy
within 2 points of the float network; learned codes find more of a token's neighbours than random planes on the same
features; engine time grows with an exponent at least 0.4 below that of softmax attention.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims import _text, _vit
from netsuke.papers.claims._binary import top1

STEPS, RATE = 600, 2e-3
TOKENS = (256, 1024)


def _neighbours_found(attention: Any, x: Any) -> float:
    """Share of a token's four closest others in its image (by product) that are among the four closest by code.

    x [images, tokens, width]; mean over images and heads. Attention sees one image at a time.
    """
    import torch

    with torch.no_grad():
        t, z = attention.tokens(x), attention.projected(x)
        y = torch.where(z >= 0, 1.0, -1.0)
        near = [(v @ v.transpose(-2, -1) - 1e3 * torch.eye(v.shape[-2])).topk(4, -1).indices for v in (t, y)]
    shared = (near[0][..., :, None] == near[1][..., None, :]).any(-1)
    return float(shared.float().mean())


def _seconds(module: Any, tokens: int) -> float:
    """Fastest of five runs of the compiled module on one sequence, one thread."""
    import torch

    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    program = compile_program(capture(module, shape=(1, tokens, 64)), name="attention")
    runner, found = engine.load(program, threads=1), []
    x = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(0)).numpy()
    for _ in range(5):
        start = time.perf_counter()
        runner.run(x)
        found.append(time.perf_counter() - start)
    return min(found)


def _exponent(module: Any) -> float:
    """p of time ~ tokens^p between the two lengths."""
    return math.log(_seconds(module, TOKENS[1]) / _seconds(module, TOKENS[0])) / math.log(TOKENS[1] / TOKENS[0])


def _recall(model: Any, config: Any, x: Any) -> tuple[float, float]:
    """Neighbours found by random planes and by learned ones, first layer, same anchors and features."""
    import torch

    from netsuke.methods.binarize import ecoformer

    ecoformer.learn(model, x, config)
    attention, seen = model.get_submodule("blocks.0.attn"), []
    handle = attention.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(x[:20])
        handle.remove()
        learned, planes = _neighbours_found(attention, seen[0]), attention.planes.clone()
        attention.planes.copy_(torch.randn(planes.shape, generator=torch.Generator().manual_seed(config.seed)))
        chance = _neighbours_found(attention, seen[0])
        attention.planes.copy_(planes)
    return chance, learned


def measure(context: Context, seed: int) -> Outcome:
    """A pretrained network, its attentions swapped, hashes learned, all fine-tuned."""
    from netsuke.methods.binarize import ecoformer
    from netsuke.methods.binarize._fit import Training, fit
    from netsuke.nn.binary_layers import freeze

    teacher, config = _vit.pretrained(seed), ecoformer.Config(seed=seed)
    start = _vit.pretrained(seed, shared=True)  # the hash takes the place of one projection for queries and keys
    model, draw = ecoformer.apply(start, config), _vit.batches(seed + 100)
    chance, learned = _recall(model, config, draw(10_000)[0])
    freeze(fit(model, draw, Training(STEPS, RATE)))
    soft_net = fit(copy.deepcopy(teacher), draw, Training(STEPS, RATE))  # as many steps more, on the same batches
    program, x = _vit.compiled(model), _vit.test_images()
    attention = model.get_submodule("blocks.0.attn")
    hashed, soft = _exponent(attention), _exponent(teacher.get_submodule("blocks.0.attn"))
    figures = {
        "top1": top1(model),
        "top1_float": top1(soft_net),
        "neighbours_random": chance,
        "neighbours_learned": learned,
        "time_exponent": hashed,
        "time_exponent_softmax": soft,
        "engine_agreement": _text.agreement(program, model, x),
    }
    context.progress(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    return Outcome(
        exact={
            "attention adds by packed bits": _text.count(program, "bmatmul") == 4
            and not _text.count(program, "softmax"),
            "the sums over keys are the same bit for bit in the engine": _sums_are_exact(attention, x, model),
        },
        figures=figures,
    )


def _sums_are_exact(attention: Any, x: Any, model: Any) -> bool:
    """The core alone, from what the signs are taken of and v's levels: torch multiplies, the engine adds."""
    import numpy as np
    import torch

    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.capture.torch_export import export_module
    from netsuke.nn.hash_attention import HashSums
    from netsuke.passes import compile_program

    seen: list[Any] = []
    handle = attention.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(x)
        handle.remove()
        z, levels = attention.projected(seen[0]), attention.levels.terms(attention.split(attention.v(seen[0])))[0][0]
        core = HashSums(attention.bits)
        want = core(z, levels).numpy()
    shapes = [(1, *z.shape[1:]), (1, *levels.shape[1:])]  # tokens and bits stay as they are
    program = compile_program(capture(export_module(core, shapes, free_image=False)), name="sums")
    names = [port.name for port in program.inputs]
    feeds = dict(zip(names, (z.numpy(), levels.contiguous().numpy()), strict=True))
    got = next(iter(engine.load(program).run(feeds).values()))
    return _text.count(program, "bmatmul") == 2 and bool(np.array_equal(got, want))


CLAIM = register(
    Claim(
        id="ecoformer/digits",
        paper="ecoformer",
        sentence="Attention over learned hash codes adds on packed bits, in linear time, within 2 points on digits.",
        baseline="the same network with softmax attention, trained as long",
        measure=measure,
        compares=(
            Compare("top1", "top1_float", -0.02),
            Compare("neighbours_learned", "neighbours_random", 0.0),
            Compare("time_exponent_softmax", "time_exponent", 0.4),
            Compare("engine_agreement", "", 0.99),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("binarize/ecoformer",),
    )
)
