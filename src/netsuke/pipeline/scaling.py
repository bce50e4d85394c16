"""Bit-level scaling: quality of generators against total bits, by size and width: `python -m netsuke.pipeline.scaling`.

Source: Dissecting Bit-Level Scaling Laws in Quantizing Vision Generative Models, 2025; row bit-scaling-laws.
Idea: at equal total bits (weights times bits), is a larger network of fewer bits better, which kind of generator loses
less, and does a distillation loss shift the curve? Every family is trained at every size, quantized at every width
(weights per channel, activations float), language-style ones also trained at that width with every loss.
Equations: per curve ln Q = a - b ln(total bits), least squares over sizes; shift of a loss against another: mean of
ln(Q / Q') over the cells they share, and the bits it is worth, by the steepness of the post-training curve.
Differences: toys of seconds on 8x8 digits instead of VAR and DiT on ImageNet; total bits are those of the weight
matrices with their steps (embeddings, norms and biases stay float; the file's bytes are reported beside it).
Every cell is written to the state file when it is done; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netsuke.core.errors import Problem, UsageError, near
from netsuke.pipeline import scaling_generators
from netsuke.pipeline.scaling_generators import FAMILIES, LOSSES, Family

SCHEMA = "netsuke.scaling/1"
FLOAT = 32
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """families     names of `FAMILIES`; sizes: widths of the networks; bits: of their weights
    losses       of training at few bits, of `LOSSES`; tuned: the widths trained
    steps        of float training; tune_steps: at few bits
    """

    families: tuple[str, ...] = ("autoregressive", "diffusion")
    sizes: tuple[int, ...] = (16, 32, 64)
    bits: tuple[int, ...] = (8, 4, 3, 2)
    losses: tuple[str, ...] = ("labels", "topkld")
    tuned: tuple[int, ...] = (4, 3, 2)
    steps: int = 1000
    tune_steps: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [Problem("family", "scaling", f, near(f, FAMILIES)) for f in self.families if f not in FAMILIES]
        problems += [Problem("loss", "scaling", x, near(x, LOSSES)) for x in self.losses if x not in LOSSES]
        problems += [
            Problem("width", "scaling", str(b), "2 to 8") for b in (*self.bits, *self.tuned) if not 2 <= b <= 8
        ]
        problems += [
            Problem("size", "scaling", str(s), "multiples of 16 up to 512")
            for s in self.sizes
            if s % 16 or not 16 <= s <= 512
        ]
        low = {"steps": 20, "tune_steps": 20, "seed": 0}
        problems += [
            Problem(k, "scaling", str(getattr(self, k)), f"at least {v}")
            for k, v in low.items()
            if getattr(self, k) < v
        ]
        if len(set(self.sizes)) < 2 or not self.families or not self.bits:
            problems.append(Problem("nothing to fit", "scaling", hint="two sizes or more, one family, one width"))
        if problems:
            raise UsageError(problems)


class Cells:
    """Finished cells and trained float networks, on disk where a folder is given."""

    def __init__(self, folder: Path | None, sweep: Sweep) -> None:
        source = inspect.getsource(scaling_generators) + inspect.getsource(inspect.getmodule(Sweep))  # type: ignore[arg-type]
        key = json.dumps([sweep.steps, sweep.tune_steps, sweep.seed]) + hashlib.sha256(source.encode()).hexdigest()
        self.folder = folder and folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        self.known: dict[str, Any] = {}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / "cells.json").is_file():
                self.known = json.loads((self.folder / "cells.json").read_text(encoding="utf-8"))

    def get(self, key: str, make: Callable[[], dict[str, Any]], say: Say) -> dict[str, Any]:
        """The cell, made and written down unless it is known."""
        if key not in self.known:
            self.known[key] = make()
            if self.folder is not None:
                temporary = self.folder / "cells.tmp"
                temporary.write_text(json.dumps(self.known), encoding="utf-8")
                temporary.replace(self.folder / "cells.json")
            say(f"{key}: " + ", ".join(f"{k} {v:.4g}" for k, v in self.known[key].items()))
        found: dict[str, Any] = self.known[key]
        return found

    def network(self, family: Family, size: int, sweep: Sweep) -> nn.Module:
        """The trained float network."""
        torch.manual_seed(sweep.seed)
        network = family.build(size).eval()
        file = self.folder and self.folder / f"{family.name}-{size}.pt"
        if file is not None and file.is_file():
            network.load_state_dict(torch.load(file, weights_only=True))
            return network
        family.train(network, sweep.seed, sweep.steps)
        if file is not None:
            torch.save(network.state_dict(), file)
        return network


def run(sweep: Sweep = Sweep(), *, state: Path | None = None, say: Say = lambda _: None) -> dict[str, Any]:
    """Every cell of the sweep, the fits of every curve, and the shifts of the losses.

    state   folder for finished cells; None: nothing is kept. UsageError for a sweep that makes no sense.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small gain nothing from more, and one thread repeats itself
    try:
        cells = Cells(state, sweep)
        rows: list[dict[str, Any]] = []
        for name in sweep.families:
            for size in sweep.sizes:
                rows += _of_size(FAMILIES[name], size, sweep, cells, say)
    finally:
        torch.set_num_threads(threads)
    return _result(sweep, rows)


def _of_size(family: Family, size: int, sweep: Sweep, cells: Cells, say: Say) -> list[dict[str, Any]]:
    from netsuke.methods.qat._weight_only import weight_only

    kept: list[nn.Module] = []

    def network() -> nn.Module:
        if not kept:
            kept.append(cells.network(family, size, sweep))
        return kept[0]

    def tuned(bits: int, loss: str) -> dict[str, Any]:
        student = weight_only(network(), bits)
        assert family.tune is not None
        family.tune(student, network(), loss, sweep.seed, sweep.tune_steps)
        return _cell(family, student, sweep.seed)

    plans: list[tuple[int, str, Callable[[], dict[str, Any]]]] = [
        (FLOAT, "float", lambda: _cell(family, network(), sweep.seed))
    ]
    plans += [(b, "ptq", lambda b=b: _cell(family, weight_only(network(), b), sweep.seed)) for b in sweep.bits]  # type: ignore[misc]
    if family.tune is not None:
        plans += [(b, x, lambda b=b, x=x: tuned(b, x)) for b in sweep.tuned for x in sweep.losses]  # type: ignore[misc]
    rows = []
    for bits, training, make in plans:
        found = cells.get(f"{family.name}/{size}/w{bits}/{training}", make, say)
        rows.append({"family": family.name, "size": size, "bits": bits, "training": training, **found})
    return rows


def _cell(family: Family, network: nn.Module, seed: int) -> dict[str, Any]:
    """Total bits, quality, bytes of the compiled file, and how far the engine's output is from PyTorch's."""
    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.methods.qat._weight_only import WeightOnlyLinear, matrix_bits, stored
    from netsuke.passes import compile_program
    from netsuke.program import to_bytes

    served, inputs = stored(network), family.inputs()
    shapes = {key: (1, *value.shape[1:]) for key, value in inputs.items()}
    program = compile_program(capture(served, shape=shapes, dtype=family.dtypes), name=family.name)
    found = np.asarray(next(iter(engine.load(program, threads=1).run(inputs).values())))
    with torch.no_grad():
        wanted = served(*(torch.from_numpy(v) for v in inputs.values())).numpy()
    layers = sum(isinstance(m, WeightOnlyLinear) for m in network.modules())
    return {
        "total_bits": matrix_bits(network),
        **family.judge(served, seed),
        "file_bytes": len(to_bytes(program)),
        "packed": sum(node.op == "wlinear" for node in program.nodes) / layers if layers else 1.0,
        "apart": float(np.abs(found - wanted).max()),
    }


def fit(bits: Sequence[float], quality: Sequence[float]) -> dict[str, float]:
    """ln quality = scale - exponent ln bits by least squares; r2 is 1 for two points."""
    x, y = np.log(np.asarray(bits, np.float64)), np.log(np.asarray(quality, np.float64))
    slope, scale = np.polyfit(x, y, 1)
    rest, whole = float(((y - slope * x - scale) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    return {"scale": float(scale), "exponent": float(-slope), "r2": 1.0 if whole == 0 else 1 - rest / whole}


def curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by curve, "family, w4 ptq" or "family, float", in order of size; and of each family the points that no other
    of as few bits beats ("family, best")."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: r["size"]):
        name = "float" if row["training"] == "float" else f"w{row['bits']} {row['training']}"
        found.setdefault(f"{row['family']}, {name}", []).append(row)
    for family in dict.fromkeys(r["family"] for r in rows):
        plain = sorted(
            (r for r in rows if r["family"] == family and r["training"] in ("float", "ptq")),
            key=lambda r: r["total_bits"],
        )
        best: list[Mapping[str, Any]] = []
        for row in plain:
            if not best or row["distance"] < best[-1]["distance"]:
                best.append(row)
        found[f"{family}, best"] = best
    return found


def shift(rows: Sequence[Mapping[str, Any]], figure: str, off: str, on: str) -> dict[str, float]:
    """How much lower `figure` lies with the training `on` than with `off`: mean ln ratio of shared cells, by width."""
    cells: dict[int, list[float]] = {}
    by = {(r["family"], r["size"], r["bits"], r["training"]): r[figure] for r in rows}
    for (family, size, bits, training), value in by.items():
        other = by.get((family, size, bits, off))
        if training == on and other is not None:
            cells.setdefault(bits, []).append(math.log(other / value))
    made = {f"w{b}": float(np.mean(v)) for b, v in sorted(cells.items())}
    every = [x for v in cells.values() for x in v]
    return {**made, "all": float(np.mean(every)), "least": min(every)} if every else {}


def _result(sweep: Sweep, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from dataclasses import asdict

    from netsuke.measure import environment

    fits = {
        name: {
            figure: fit([r["total_bits"] for r in part], [r[figure] for r in part]) for figure in ("distance", "loss")
        }
        for name, part in curves(rows).items()
        if len(part) > 1
    }
    shifts = {
        f"{on} against {off}": {figure: shift(rows, figure, off, on) for figure in ("loss", "distance")}
        for on, off in [*((x, "ptq") for x in sweep.losses), *((x, sweep.losses[0]) for x in sweep.losses[1:])]
        if any(r["training"] == on for r in rows)
    }
    return {
        "schema": SCHEMA,
        "rows": rows,
        "fits": fits,
        "shifts": shifts,
        "conditions": asdict(sweep),
        "machine": {"cpu": environment.cpu()["name"], "threads": 1},
        "commit": environment.commit(),
    }


def _words(text: str) -> tuple[str, ...]:
    return tuple(x.strip() for x in text.split(",") if x.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in _words(text))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: writes scaling.json, scaling.md and scaling.html into a folder, finished cells below it."""
    from netsuke.report.scaling import html, markdown

    plain = Sweep()
    parser = argparse.ArgumentParser(prog="python -m netsuke.pipeline.scaling", description=run.__doc__)
    for name in ("families", "losses"):
        parser.add_argument(f"--{name}", type=_words, default=getattr(plain, name))
    for name in ("sizes", "bits", "tuned"):
        parser.add_argument(f"--{name}", type=_numbers, default=getattr(plain, name))
    for name in ("steps", "tune_steps", "seed"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(plain, name))
    parser.add_argument("--out", type=Path, default=Path("scaling"))
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    result = run(Sweep(**options), state=out / "cells", say=lambda text: print(text, flush=True))
    texts = {"json": json.dumps(result, indent=1), "md": markdown(result), "html": html(result)}
    for ending, text in texts.items():
        (out / f"scaling.{ending}").write_text(text, encoding="utf-8")
    print(f"{markdown(result)}\nwritten: {out}/scaling.html, .md, .json")


if __name__ == "__main__":
    main()
