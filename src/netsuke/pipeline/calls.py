"""How a method is called: the exact command or Python lines, by the kind of its record.

The words in capitals are the reader's: MODEL, DATA and OUT as in `netsuke compress --help`.
"""

from __future__ import annotations

from netsuke.core.method import Method

_FIRST = "quantize/uniform"  # a recipe needs one step that says where quantizers go
_STEPS = ("graph", "weights", "requant", "source", "recipe", "weight-only", "search")
# Reached through an option of another step: tag -> that step.
_OPTIONS = {
    "sensitivity": [_FIRST, "bits/search:sensitivity={0}"],
    "allocator": [_FIRST, "bits/search:allocator={0}"],
    "calibrator": [_FIRST + ":calibrator={0}"],
}
# Options without which a method refuses most networks: minifloat convolutions have no kernel.
_NEEDED = {"diffusion/float_ptq": 'layers="blocks.*"'}
_PYTHON_ONLY = {
    "qat/double_rounding": [
        "from netsuke.methods.qat import Samples, TrainConfig, prepare, train",
        "from netsuke.methods.qat.double_rounding import Views",
        'network = prepare(MODEL, shape=SHAPE, method="qat/double_rounding", weight_bits=8,',
        "                  activation_bits=8, calib=X)",
        "views = Views(network, (8, 6, 4, 3))",
        "views.calibrate(X)",
        "train(network, Samples(X, Y), teacher=MODEL, config=TrainConfig(), step=views.step)",
        "views.switch(4)   # the network is the 4-bit view now: network.eval().export() is its graph",
    ],
    "integer/one_bit_fqt": [
        "import netsuke",
        'netsuke.train(MODEL, (X, Y), method="integer/one_bit_fqt", epochs=10)   # in place',
    ],
}


def call(method: Method) -> list[str]:
    """Lines to copy; none for a kind that no call is written for (the contract tests allow none)."""
    if method.name in _PYTHON_ONLY:
        return list(_PYTHON_ONLY[method.name])
    tags, short = set(method.tags), method.name.partition("/")[2]
    if "denoiser" in tags:
        return _denoiser(method)
    if method.room == "binarize":
        return _binarizer(method)
    if tags & {"rules", "train"}:
        return [f"netsuke train MODEL --train DATA --eval DATA --method {method.name} -o OUT.nsk"]
    if "step" in tags:
        return [f"netsuke train MODEL --train DATA --eval DATA --step {method.name} -o OUT.nsk"]
    if "cost" in tags:
        limit = {"size": "size=0.5x", "bops": "bops=0.5x", "latency": "latency=0.8x"}[short]
        return [f"netsuke compress MODEL --calib DATA --budget {limit} -o OUT.nsk"]
    if "fallback" in tags:
        return [f"netsuke compress MODEL -o OUT.nsk   # {method.name} is what happens without --calib"]
    for tag, steps in _OPTIONS.items():
        if tag in tags:
            return _recipe([step.format(short) for step in steps], budget=tag != "calibrator")
    if tags & set(_STEPS):
        return _recipe(_steps(method), budget="search" in tags, calib="source" not in tags)
    return []


def _steps(method: Method) -> list[str]:
    """The shortest recipe around a step of its kind."""
    tags = set(method.tags)
    if tags & {"recipe", "weight-only"}:
        return [method.name]
    return [method.name, _FIRST] if tags & {"graph", "source"} else [_FIRST, method.name]


def _recipe(steps: list[str], *, budget: bool = False, calib: bool = True) -> list[str]:
    listed = ", ".join(f'"{step}"' for step in steps)
    limit = ", budget=netsuke.Budget(size_ratio=0.5)" if budget else ""
    data = ", calib=DATA" if calib else ""
    first = f"result = netsuke.compress(MODEL, recipe=[{listed}]{data}{limit})"
    return [
        "import netsuke",
        first,
        '# or RECIPE.toml:  name = "mine"',
        f"#                 steps = [{listed}]",
        f"# netsuke compress MODEL --recipe RECIPE.toml{' --calib DATA' if calib else ''} -o OUT.nsk"
        + (" --budget size=0.5x" if budget else ""),
    ]


def _denoiser(method: Method) -> list[str]:
    options = _NEEDED.get(method.name, "")
    return [
        "from netsuke.methods.diffusion import Sampling",
        f"from {method.apply.__module__} import {method.config.__name__}, apply",
        "from netsuke.passes import compile_program",
        "from netsuke.program import write",
        "# MODEL: a float module of (image, time, label) in eval mode, e.g. netsuke.models.build('digits_unet')",
        "sampling = Sampling(steps=8, shape=(1, 8, 8), labels=10)",
        f"tuned = apply(MODEL, sampling, {method.config.__name__}({options}))",
        "for step, graph in enumerate(tuned.exports()):   # one graph for all steps, or one a step",
        "    write(compile_program(graph), f'OUT.{step}.nsk')",
    ]


def _binarizer(method: Method) -> list[str]:
    lines = [
        "from netsuke.capture import capture",
        "from netsuke.nn.binary_layers import freeze, set_progress",
        f"from {method.apply.__module__} import {method.config.__name__}, apply",
        "from netsuke.passes import compile_program",
        "from netsuke.program import write",
        f"model = apply(MODEL, {method.config.__name__}())   # MODEL: a torch module, changed in place",
        "# train model with any loop; once an epoch: set_progress(model, share_of_training_done)",
        "write(compile_program(capture(freeze(model), shape=SHAPE)), 'OUT.nsk')",
    ]
    if method.name == "binarize/ecoformer":
        lines.insert(6, "learn(model, X, Config())   # from netsuke.methods.binarize.ecoformer, before training")
    return lines
