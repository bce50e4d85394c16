"""BiBench: every registered binarizer over six tracks, on this machine: `python -m netsuke.pipeline.bibench`.

Source: BiBench: Benchmarking and Analyzing Network Binarization, Qin et al. 2023 (arXiv 2301.11233); row bibench.
Tracks: learning tasks, architectures, robustness to corruptions, training, complexity on paper, inference measured on
every instruction set of this machine. Overall metrics: `bibench_metrics`; tasks and networks: `bibench_tasks`.
Differences: tasks of seconds instead of ImageNet, GLUE and kin; hardware is the instruction sets of one CPU; products
of other widths than one bit count bits times bits / 64, the paper knows one bit only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from netsuke.core.errors import NetsukeError, Problem, UsageError, near
from netsuke.core.method import methods
from netsuke.pipeline import bibench_metrics as metrics
from netsuke.pipeline.bibench_tasks import CASES, Case, Cnn, corrupted

SCHEMA = "netsuke.bibench/1"
BATCH, RATE = 64, 4e-3
EPOCH = 20  # steps between two calls of set_progress
RATES = (1e-3, 4e-3, 1.6e-2)  # hyper-parameters of the training track
DEPLOYED = {"width": 64, "depth": 3, "size": 16}
TIMED = 15

Make = Callable[[Case], nn.Module]
Say = Callable[[str], None]


def names(chosen: Sequence[str] = ()) -> list[str]:
    """Binarizers by name without the room; UsageError lists what is not registered."""
    known = [name.partition("/")[2] for name in methods() if name.startswith("binarize/")]
    wrong = [Problem("no such binarizer", got=name, allowed=near(name, known)) for name in chosen if name not in known]
    if wrong:
        raise UsageError(wrong)
    return list(chosen) or known


def _binary(name: str, network: nn.Module, keep: Sequence[str]) -> nn.Module:
    method = methods()[f"binarize/{name}"]
    made: nn.Module = method.apply(network, method.config(), keep=keep)
    return made


def _fresh(case: Case, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return case.network()


def _accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def _train(model: nn.Module, case: Case, seed: int, steps: int, rate: float = RATE) -> float:
    """AdamW with a one-cycle rate; the model ends in eval mode. CPU seconds of the steps."""
    from netsuke.nn.binary_layers import set_progress

    x, y, *_ = case.data(seed)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    begin = time.process_time()
    for step in range(steps):
        if step % EPOCH == 0:
            set_progress(model, step / steps)
        rows = torch.randint(len(x), (BATCH,), generator=rng)
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - begin
    model.eval()
    return seconds


def _learned(make: Make, seed: int, steps: int) -> dict[str, Any]:
    """Scores of all cases, scores under corruption, scores over learning rates, seconds of training."""
    scores: dict[str, float] = {}
    found: dict[str, Any] = {"scores": scores}
    for case in CASES:
        model = make(case)
        seconds = _train(model, case, seed, steps)
        *_, x, y = case.data(seed)
        scores[f"{case.task}/{case.architecture}"] = clean = _accuracy(model, x, y)
        if (case.task, case.architecture) == ("images", "cnn"):
            found["seconds"] = seconds
            found["lost"] = {name: clean - _accuracy(model, bad, y) for name, bad in corrupted(x, seed).items()}
        if (case.task, case.architecture) == ("images", "mlp"):
            found["rates"] = [clean if rate == RATE else _at_rate(make, case, seed, steps, rate) for rate in RATES]
    return found


def _at_rate(make: Make, case: Case, seed: int, steps: int, rate: float) -> float:
    model = make(case)
    _train(model, case, seed, steps, rate)
    *_, x, y = case.data(seed)
    return _accuracy(model, x, y)


def _deployed(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Cnn(DEPLOYED["width"], DEPLOYED["depth"]).eval()


def _on_paper(model: nn.Module) -> tuple[float, float]:
    """Operations of one image and bytes of the weights, as BiBench counts them."""
    from netsuke.nn.binary_layers import BinaryLayer

    positions, operations, size = DEPLOYED["size"] ** 2, 0.0, 0.0
    inside = {id(m) for b in model.modules() if isinstance(b, BinaryLayer) for m in b.modules()}
    for module in model.modules():
        if isinstance(module, BinaryLayer):
            terms = module.weight_terms()
            wide = sum(_bits(len(w.unique())) for w, _ in terms)
            levels = None if module.inputs is None else module.inputs.levels
            reads = 32.0 if levels is None else _bits(levels.hi - levels.lo + (levels.hi - levels.lo > 1))
            count = terms[0][0].numel()
            operations += positions * count * metrics.operations_per_product(wide, reads)
            size += count * wide / 8 + 4 * sum(s.numel() for _, s in terms)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and id(module) not in inside:
            operations += module.weight.numel() * (positions if isinstance(module, nn.Conv2d) else 1)
            size += 4 * module.weight.numel()
    return operations, size


def _bits(levels: int) -> float:
    return float(max(1, (levels - 1).bit_length()))


def _compiled(model: nn.Module) -> tuple[Any, int]:
    """The program and the bytes of its file."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program
    from netsuke.program import to_bytes

    side = DEPLOYED["size"]
    program = compile_program(capture(model, shape=(1, 1, side, side)), name="bibench")
    return program, len(to_bytes(program))


def _times(programs: Sequence[Any], isa: str) -> list[float]:
    """Median milliseconds of each program at one thread, called in turns."""
    from netsuke import engine

    side = DEPLOYED["size"]
    x = np.random.default_rng(0).random((1, 1, side, side)).astype(np.float32)
    engines = [engine.load(program, threads=1, isa=isa) for program in programs]
    found: list[list[float]] = [[] for _ in engines]
    for turn in range(TIMED + 2):
        for index, one in enumerate(engines):
            begin = time.perf_counter()
            one(x)
            if turn > 1:
                found[index].append(1e3 * (time.perf_counter() - begin))
    return [statistics.median(times) for times in found]


def isas() -> list[str]:
    """Instruction sets of this machine, or the one that NETSUKE_ISA forces."""
    import os

    from netsuke.engine import instruction_sets
    from netsuke.engine.native import ISA_VARIABLE

    forced = os.environ.get(ISA_VARIABLE)
    return [forced] if forced else [name for name, here in instruction_sets().items() if here]


def _served(name: str, plain: Any, seed: int) -> dict[str, Any]:
    """Complexity on paper and measured inference of the deployed network."""
    from netsuke.nn.binary_layers import freeze

    model = freeze(_binary(name, _deployed(seed), ("stem", "head")))
    program, size = _compiled(model)
    ms = {}
    for isa in isas():
        before, after = _times([plain["program"], program], isa)
        ms[isa] = [before, after]
    one_bit = sum(node.op in ("bconv", "blinear") for node in program.nodes)
    paper = _on_paper(model)
    return {"ms": ms, "bytes": size, "one_bit_layers": one_bit, "operations": paper[0], "paper_bytes": paper[1]}


def overall(row: dict[str, Any], plain: dict[str, Any]) -> dict[str, float]:
    """The six overall metrics of one binarizer from its row and the float network's."""
    by_task: dict[str, list[float]] = {}
    by_kind: dict[str, list[float]] = {}
    for key, score in row["scores"].items():
        task, kind = key.split("/")
        ratio = score / plain["scores"][key]
        by_task.setdefault(task, []).append(ratio)
        by_kind.setdefault(kind, []).append(ratio)
    deviations = statistics.pstdev(plain["rates"]), statistics.pstdev(row["rates"])
    times = {isa: (before, after) for isa, (before, after) in row["ms"].items()}
    return {
        "task": metrics.tasks(by_task),
        "architecture": metrics.tasks(by_kind),
        "robustness": metrics.robustness(plain["lost"], row["lost"]),
        "training": metrics.training((plain["seconds"], row["seconds"]), deviations),
        "complexity": metrics.complexity(
            (plain["operations"], row["operations"]), (plain["paper_bytes"], row["paper_bytes"])
        ),
        "inference": metrics.inference(times, (plain["bytes"], row["bytes"])),
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(chosen: Sequence[str] = (), *, steps: int = 120, seed: int = 0, say: Say = lambda _: None) -> dict[str, Any]:
    """The six tracks of the binarizers chosen (default: all registered), as the table that reports show.

    steps   training steps of 64 samples for each of nine networks a binarizer; 120 take about ten seconds on one core

    A binarizer that does not fit these networks is listed in `left_out` with its reason. Raises UsageError for unknown
    names and steps below 1.
    """
    if steps < 1:
        raise UsageError(Problem("steps", got=str(steps), allowed="at least 1"))
    wanted = names(chosen)
    with _one_thread():
        plain: dict[str, Any] = _learned(lambda case: _fresh(case, seed), seed, steps)
        program, size = _compiled(_deployed(seed))
        operations, paper = _on_paper(_deployed(seed))
        plain |= {"bytes": size, "operations": operations, "paper_bytes": paper}
        rows: dict[str, dict[str, Any]] = {}
        left_out: dict[str, str] = {}
        for name in wanted:
            try:
                row = _learned(lambda case, n=name: _binary(n, _fresh(case, seed), case.keep), seed, steps)  # type: ignore[misc]
                row |= _served(name, {"program": program}, seed)
            except NetsukeError as error:
                left_out[name] = "; ".join(" ".join(str(p).split()) for p in error.problems)
                say(f"{name}: left out: {left_out[name]}")
                continue
            rows[name] = row | {"overall": overall(row, plain)}
            say(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in rows[name]["overall"].items()))
    return _result(plain, rows, left_out, steps, seed)


def _result(
    plain: dict[str, Any], rows: dict[str, dict[str, Any]], left_out: dict[str, str], steps: int, seed: int
) -> dict[str, Any]:
    from netsuke.measure import environment

    return {
        "schema": SCHEMA,
        "float": plain,
        "binarizers": rows,
        "left_out": left_out,
        "conditions": {"steps": steps, "batch": BATCH, "rates": list(RATES), "seed": seed, "deployed": DEPLOYED},
        "machine": {"cpu": environment.cpu()["name"], "isas": isas(), "threads": 1},
        "commit": environment.commit(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: writes bibench.json, bibench.md and bibench.html into a folder."""
    from netsuke.report.bibench import html, markdown

    parser = argparse.ArgumentParser(prog="python -m netsuke.pipeline.bibench", description=run.__doc__)
    parser.add_argument("--methods", default="", help="names separated by commas; default: all registered")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bibench"))
    options = parser.parse_args(arguments)
    chosen = [name.strip() for name in options.methods.split(",") if name.strip()]
    result = run(chosen, steps=options.steps, seed=options.seed, say=lambda text: print(text, flush=True))
    options.out.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(result, indent=1), "md": markdown(result), "html": html(result)}
    for ending, text in texts.items():
        (options.out / f"bibench.{ending}").write_text(text, encoding="utf-8")
    print(f"{markdown(result)}\nwritten: {options.out}/bibench.html, .md, .json")


if __name__ == "__main__":
    main()
