"""A binary ResNet-18 (Bi-Real style) in our engine and in Larq Compute Engine, in turns in one run, batch 1, 224x224.

    python bench/larq.py --python ENV/bin/python --prepare FOLDER                 # both files, and do they agree
    python bench/larq.py --python ENV/bin/python --prepared FOLDER [--threads 1,2] [--seconds 3]

ENV is an environment of its own with tensorflow-cpu 2.16.2, tf_keras 2.16.0, larq-compute-engine 0.16.0 and NumPy 1.26.
Both run the same weights and the same operators; ours with INT8 stem, shortcuts and head, Larq's in float (its
converter makes INT8 of them only with TensorFlow's own calibration), and TensorFlow pads layers of stride 2 on one
side, which changes logits and not the work. `--prepare` compares Larq's logits with PyTorch padded that way. Larq runs
in a process of its own; asking it over a pipe takes less than 0.1 ms of each of its runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import IO, Any

import numpy as np
import rows as result_rows

from netsuke import engine, models
from netsuke.data import Dataset
from netsuke.measure.engines.base import Session
from netsuke.measure.interleave import interleave
from netsuke.measure.stats import speed_ratio, summarize
from netsuke.pipeline import compress

CHILD = Path(__file__).with_name("larq_child.py")
NETWORK, OURS = "bireal_resnet18", "netsuke"


def one_sided(model: Any) -> Any:
    """The network with TensorFlow's padding where the stride is 2: one row less in front."""
    import torch
    from torch.nn import functional

    from netsuke.models.binary import binary_sign

    def padded(module: Any, low: int, high: int, value: float, change: Any = lambda x: x) -> None:
        module.padding = 0
        inner = module.forward
        module.forward = lambda x: inner(functional.pad(change(x), (low, high, low, high), value=value))

    padded(model.conv1, 2, 3, 0.0)
    padded(model.maxpool, 0, 1, -float("inf"))
    for layer in model.layers:
        if layer.conv.stride == 2:
            conv = layer.conv

            def forward(x: Any, conv: Any = conv) -> Any:
                scale = conv.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
                weight = torch.where(conv.weight >= 0, scale, -scale)
                return functional.conv2d(functional.pad(binary_sign(x), (0, 1, 0, 1)), weight, stride=2)

            conv.forward = forward
    return model


def prepare(python: str, folder: Path) -> None:
    """Write ours and theirs, and say how far their logits are from PyTorch's."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    item, model = models.entry(NETWORK), models.build(NETWORK)
    rng = np.random.default_rng(0)
    calib = rng.standard_normal((32, *item.shape[1:]), dtype=np.float32)
    compress(model, calib=Dataset.from_arrays(calib), shape=item.shape, output=folder / "ours.nsk", measure=False)
    np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    x = rng.standard_normal((1, 3, 224, 224), dtype=np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "x_nhwc.npy", np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    command = [python, str(CHILD), "convert", str(folder / "weights.npz"), str(folder / "larq.tflite")]
    facts = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    process, logits = serve(python, folder, 1, "plain")
    process.terminate()
    with torch.no_grad():
        expected = one_sided(model)(torch.from_numpy(x))[0].numpy()
    cosine = float(logits @ expected / np.linalg.norm(logits) / np.linalg.norm(expected))
    facts |= {"cosine_to_torch": cosine, "largest_difference": float(np.abs(logits - expected).max())}
    (folder / "facts.json").write_text(json.dumps(facts))
    print(facts, flush=True)


def serve(python: str, folder: Path, threads: int, variant: str) -> tuple[subprocess.Popen[str], Any]:
    """A running child and its logits."""
    paths = [str(folder / "larq.tflite"), str(folder / "x_nhwc.npy")]
    process = subprocess.Popen(
        [python, str(CHILD), "serve", *paths, str(threads), variant],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, np.array(json.loads(_pipe(process.stdout).readline())["logits"], np.float32)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def timed(python: str, folder: Path, threads: int, seconds: float) -> list[dict[str, Any]]:
    """Rows of ours and of both of Larq's ways."""
    run, x = engine.load(folder / "ours.nsk", threads=threads), np.load(folder / "x.npy")
    sessions = {OURS: Session(lambda: run.run(x), threads=threads)}  # type: ignore[arg-type, return-value]
    children = {f"larq {variant}": serve(python, folder, threads, variant)[0] for variant in ("plain", "indirect")}

    def ask(process: subprocess.Popen[str]) -> list[Any]:
        _pipe(process.stdin).write("\n")
        _pipe(process.stdin).flush()
        return [_pipe(process.stdout).readline()]

    try:
        for name, process in children.items():
            sessions[name] = Session(lambda process=process: ask(process), threads=threads)  # type: ignore[misc]
        found = interleave(sessions, seconds)
    finally:
        for process in children.values():
            process.terminate()
    facts = json.loads((folder / "facts.json").read_text())
    table = []
    for name, timing in found.items():
        if timing.error:
            raise SystemExit(f"{name}: {timing.error}")
        ratio, summary = speed_ratio(timing.rounds_ms, found[OURS].rounds_ms), summarize(timing.rounds_ms)
        row = {"network": NETWORK, "engine": name, "threads": threads, "median_ms": round(summary.median_ms, 3)}
        row |= {"p10_ms": round(summary.p10_ms, 3), "p90_ms": round(summary.p90_ms, 3), "runs": summary.runs}
        row |= {"ours_times_faster": round(ratio.value, 2), "low": round(ratio.low, 2), "high": round(ratio.high, 2)}
        versions = " ".join(f"{k} {v}" for k, v in facts["versions"].items())
        table.append(row | {"versions": "" if name == OURS else versions, "cosine_to_torch": facts["cosine_to_torch"]})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="python of the environment with larq-compute-engine")
    parser.add_argument("--prepare", default="", help="only write the files to this folder")
    parser.add_argument("--prepared", default="", help="time the files of this folder")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.python, Path(options.prepare))
        return
    if not options.prepared:
        parser.error("--prepare FOLDER first, then --prepared FOLDER")
    table: list[dict[str, Any]] = []
    for threads in [int(t) for t in options.threads.split(",")]:
        table += timed(options.python, Path(options.prepared), threads, options.seconds)
    for row in table:
        print(row, flush=True)
    command = f"python bench/larq.py --python ENV/bin/python --prepared FOLDER --threads {options.threads}"
    print(result_rows.write("larq", command, table, keys=("network", "engine", "threads")))


if __name__ == "__main__":
    main()
