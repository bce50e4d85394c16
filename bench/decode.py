"""One character at a time: the decoder of the 4-bit claims beside PyTorch and onnxruntime in float32, in turns.

    python bench/decode.py [--length 128] [--threads 1,2] [--seconds 1.5]

Batch 1. A step runs the window of the last 128 characters and takes the likeliest next one, as the models have no
cache: the same work for every engine. Random weights: time does not depend on them. Rows: median milliseconds of a step
and how many times faster than PyTorch float32, with the 95 % interval over rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import rows as result_rows
import torch

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.recipe import Recipe
from netsuke.data import Dataset
from netsuke.measure.engines.base import Session
from netsuke.measure.interleave import interleave
from netsuke.measure.stats import speed_ratio, summarize
from netsuke.models.char_lm import VOCABULARY, char_lm
from netsuke.passes import compile_program
from netsuke.pipeline import compress

Array = np.ndarray[Any, Any]
W4A8 = ["quantize/uniform:weight_bits=4,activation_bits=8,samples=32"]
RECIPES = {
    "netsuke W4A8 odysseyllm": Recipe.make([*W4A8, "quantize/odysseyllm"]),
    "netsuke W4A8 gptq": Recipe.make([*W4A8, "quantize/gptq"]),
    "netsuke weight-only 4 bits": Recipe.make("weight-only-int4"),
    "netsuke int8": Recipe.make("cpu-int8"),
}
PEER = "torch float32"


def generator(logits: Callable[[Array], Array], start: Array) -> Callable[[], list[Array]]:
    """A function that appends the likeliest character to a sliding window, one a call."""
    window = start.copy()

    def step() -> list[Array]:
        found = int(logits(window)[0, -1].argmax())
        window[0, :-1] = window[0, 1:].copy()
        window[0, -1] = found
        return [window]

    return step


def peers(network: torch.nn.Module, graph: ir.Model, threads: int) -> dict[str, Callable[[Array], Array]]:
    """Logits by the engines we are compared with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), options)
    name = session.get_inputs()[0].name
    compiled = torch.compile(network)

    def eager(x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(x)).numpy())

    def with_compiler(x: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(compiled(torch.from_numpy(x)).numpy())

    return {
        PEER: eager,
        "torch compiled float32": with_compiler,
        "onnxruntime float32": lambda x: np.asarray(session.run(None, {name: x})[0]),
    }


def programs(graph: ir.Model, start: Array) -> dict[str, Any]:
    """Our programs by name."""
    rng = np.random.default_rng(1)
    calib = Dataset.from_arrays(rng.integers(0, VOCABULARY, (32, start.shape[1])))
    made: dict[str, Any] = {"netsuke float32": compile_program(graph, name="float")}
    for name, recipe in RECIPES.items():
        made[name] = compress(graph, recipe=recipe, calib=calib, effort="fast", measure=False).program
    return made


def timed(
    network: torch.nn.Module, graph: ir.Model, made: dict[str, Any], start: Array, threads: int, seconds: float
) -> Any:
    """Rows of one number of threads."""
    torch.set_num_threads(threads)
    logits = peers(network, graph, threads)
    for name, program in made.items():
        loaded = engine.load(program, threads=threads)
        logits[name] = lambda x, loaded=loaded: next(iter(loaded.run(x).values()))  # type: ignore[misc]
    found = interleave({name: Session(generator(f, start), threads) for name, f in logits.items()}, seconds)
    for name, timing in found.items():
        ratio = speed_ratio(found[PEER].rounds_ms, timing.rounds_ms)
        yield {
            "engine": name,
            "threads": threads,
            "median_ms": round(summarize(timing.rounds_ms).median_ms, 4),
            "times_faster": round(ratio.value, 3),
            "low": round(ratio.low, 3),
            "high": round(ratio.high, 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=128, help="characters in the window")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=1.5)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = char_lm().eval()
    graph = capture(network, shape=(1, options.length), dtype="i64")
    start = np.random.default_rng(0).integers(0, VOCABULARY, (1, options.length))
    made = programs(graph, start)
    table: list[dict[str, Any]] = []
    for threads in options.threads.split(","):
        for row in timed(network, graph, made, start, int(threads), options.seconds):
            table.append(row)
            print(row, flush=True)
    command = f"python bench/decode.py --length {options.length} --threads {options.threads}"
    print(result_rows.write("decode", command, table))


if __name__ == "__main__":
    main()
