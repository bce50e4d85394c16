"""Zhao et al. 2024, "MixDQ".

Paper: few-step generators at W8A8 without loss and W4A8 nearly so, by keeping the first token out, telling content from
quality and an integer program. Checked: the shipped digits U-Net that reads its class from a prompt whose first token
is 40 times as large as the others, 4 sampling steps. Exact: key and value layer of the cross-attention get their
constant; the average of 4 bits is kept; the compiled W8A8 network gives the trained one's output (see `_diffusion`).
Statistical: at W8A8 500 samples' distance to real digits and the classifier's accuracy equal float's to 0.02 and half a
point; without first-token handling the error of the images is at least 5 times as large; at 4 bits on average the mixed
network's images are nearer to float ones than uniform 4 bits'.

`mixdq/w8a8` checks what makes the method usable, of these: constants, both sensitivities and both programs at work
within their bits, the engine, and W8A8 metrics equal to float's by the same margins.
"""

from __future__ import annotations

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register
from netsuke.papers.claims._diffusion import Judge, engine_equals_training, network


def measure(context: Context, seed: int) -> Outcome:
    """W8A8 with and without the first token, 4 bits mixed, by one metric, and uniform."""
    from netsuke.methods.diffusion import mixdq
    from netsuke.methods.diffusion._first_token import split_first_token
    from netsuke.methods.diffusion._sampling import Sampling
    from netsuke.methods.diffusion._tuned import quantized

    model, sampling = network("digits_prompt_unet"), Sampling(steps=4, seed=seed)
    judge = Judge(model, sampling.steps, seed)
    full = mixdq.apply(model, sampling)
    judge("w8a8", full)
    judge("w8a8_with_first", mixdq.apply(model, sampling, mixdq.MixDq(first_token=False)))
    mixed = mixdq.apply(model, sampling, mixdq.MixDq(bits=4.0))
    judge("mixed4", mixed)
    split, _ = split_first_token(model)
    judge("uniform4", quantized(split, sampling, weight_bits=4, activation_bits=8, per_step=False))
    figures = judge.figures
    figures["apart"] = abs(figures["real_w8a8"] - figures["real_float"])
    figures["closeness"] = 0.02 - figures["apart"]
    figures["five_times"] = 5 * figures["error_w8a8"]
    figures["bits_per_weight"] = mixed.facts["bits_per_weight"]
    context.progress(f"seed {seed}: {figures}")
    return Outcome(
        exact={
            "key and value layer get their constant": full.facts["first_token_layers"] == 2,
            "the average of 4 bits is kept": mixed.facts["bits_per_weight"] <= 4.0 + 1e-9,
            "the engine computes what was made": engine_equals_training(
                next(full.exports()), full.at(0), 0, sampling.steps
            ),
        },
        figures=figures,
    )


def measure_w8a8(context: Context, seed: int) -> Outcome:
    """W8A8, and one mixed network for its plan."""
    from netsuke.methods.diffusion import mixdq
    from netsuke.methods.diffusion._first_token import split_first_token
    from netsuke.methods.diffusion._sampling import Sampling

    model, sampling = network("digits_prompt_unet"), Sampling(steps=4, seed=seed)
    judge = Judge(model, sampling.steps, seed)
    full = mixdq.apply(model, sampling)
    judge("w8a8", full)
    config = mixdq.MixDq(bits=4.0)
    split, _ = split_first_token(model)
    names = mixdq._searched(split)
    harms = mixdq.sensitivities(split, sampling, config, names)
    mixed = mixdq.apply(model, sampling, config)
    figures = judge.figures
    figures["apart"] = abs(figures["real_w8a8"] - figures["real_float"])
    figures["closeness"] = 0.02 - figures["apart"]
    figures |= {"bits_per_weight": mixed.facts["bits_per_weight"], "splits": mixed.facts["candidates"]}
    content = {n: ssim for (n, b), (ssim, _) in harms.items() if b == 4}
    quality = {n: db for (n, b), (_, db) in harms.items() if b == 4}
    context.progress(f"seed {seed}: {figures}")
    return Outcome(
        exact={
            "key and value layer get their constant": full.facts["first_token_layers"] == 2,
            "content and quality rank layers differently": sorted(names, key=content.__getitem__)
            != sorted(names, key=quality.__getitem__),
            "the programs keep the average of 4 bits": mixed.facts["bits_per_weight"] <= 4.0 + 1e-9,
            "several splits were tried": mixed.facts["candidates"] > 1,
            "the engine computes what was made": engine_equals_training(
                next(full.exports()), full.at(0), 0, sampling.steps
            ),
        },
        figures=figures,
    )


W8A8 = register(
    Claim(
        id="mixdq/w8a8",
        paper="mixdq",
        sentence="W8A8 samples of a few-step prompted generator equal float's, first token kept, bits by two metrics.",
        baseline="the float network from the same noise",
        measure=measure_w8a8,
        compares=(Compare("closeness"), Compare("accuracy_w8a8", "accuracy_float", -0.005)),
        seeds=(0, 1),
        minutes=3,
        methods=("diffusion/mixdq", "bits/integer_program"),
    )
)

CLAIM = register(
    Claim(
        id="mixdq/digits",
        paper="mixdq",
        sentence="W8A8 samples of a few-step prompted generator equal float's; mixed 4 bits beat uniform 4 bits.",
        baseline="float; W8A8 with the first token quantized; uniform 4-bit weights",
        measure=measure,
        compares=(
            Compare("closeness"),
            Compare("accuracy_w8a8", "accuracy_float", -0.005),
            Compare("error_w8a8_with_first", "five_times"),
            Compare("error_uniform4", "error_mixed4"),
        ),
        seeds=(0, 1),
        minutes=4,
        methods=("diffusion/mixdq", "bits/integer_program"),
    )
)
