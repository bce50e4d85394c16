"""Command line of the differential fuzzer; exit code 1 when anything differs."""

from __future__ import annotations

import argparse
import collections
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from .differential import Difference, ancestors, check_engine, check_interpreters, check_other_sizes
from .external import check_external
from .generator import FAMILIES, other_feeds, random_program
from .mutants import check_mutant


def available() -> tuple[list[str], set[str]]:
    """Instruction sets of this CPU and operators of the runtime."""
    from netsuke.engine import instruction_sets
    from netsuke.engine.native import runtime

    return [name for name, here in instruction_sets().items() if here], set(runtime().op_names())


def check(seed: int, family: str, isas: list[str], supported: set[str] | None, what: str) -> list[Difference]:
    program, feeds = random_program(seed, family, supported)
    found = check_interpreters(program, feeds, family) if what in ("all", "interpreters") else []
    if what in ("all", "engine"):
        found += check_engine(program, feeds, family, isas)
        found += check_other_sizes(program, other_feeds(program, feeds, seed), family, isas)
    if what == "mutants":
        for change in range(5):
            found += check_mutant(program, feeds, seed * 5 + change, isas)
    return found


def save(folder: Path, seed: int, family: str, supported: set[str] | None, value: str) -> None:
    """Write the part of the program that the wrong value depends on, and its input, to reproduce without the fuzzer."""
    from netsuke.program import write

    program, feeds = random_program(seed, family, supported)
    folder.mkdir(parents=True, exist_ok=True)
    write(ancestors(program, value), folder / f"{family}-{seed}.nsk")
    np.savez(folder / f"{family}-{seed}.npz", **feeds)  # type: ignore[arg-type]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=500, help="graphs of each family")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--family", choices=(*FAMILIES, "both"), default="both")
    parser.add_argument("--what", choices=("all", "interpreters", "engine", "mutants"), default="all")
    parser.add_argument("--save", type=Path, help="folder for programs that fail")
    parser.add_argument("--runner", default="", help='another engine, e.g. "qemu-aarch64 -L ROOT build/netsuke-run"')
    parser.add_argument("--runner-isas", default="neon,neondot", help="its instruction sets")
    parser.add_argument("--stop", type=int, default=10, help="stop after so many failing graphs")
    return parser.parse_args()


def one(
    args: argparse.Namespace, seed: int, family: str, isas: list[str], supported: set[str] | None
) -> list[Difference]:
    """All findings for one seed; a crash of an implementation is a finding, not the end of the run."""
    try:
        if not args.runner:
            return check(seed, family, isas, supported, args.what)
        program, feeds = random_program(seed, family, supported)
        return check_external(args.runner.split(), program, feeds, family, args.runner_isas.split(","))
    except Exception as error:
        return [Difference(type(error).__name__, "", None, "".join(traceback.format_exception(error)[-2:]))]


def main() -> int:
    args = options()
    isas, supported = available() if args.what != "interpreters" else ([], set())
    operators = supported or None
    failed, run, begin, counts = 0, 0, time.perf_counter(), collections.Counter[str]()
    for family in FAMILIES if args.family == "both" else (args.family,):
        for seed in range(args.start, args.start + args.graphs):
            counts.update(node.op for node in random_program(seed, family, operators)[0].nodes)
            found = one(args, seed, family, isas, operators)
            run += 1
            if found:
                failed += 1
                print(f"FAILED {family} seed {seed}", *map(str, found), sep="\n  ", flush=True)
                if args.save and found[0].value:
                    save(args.save, seed, family, operators, found[0].value)
            if failed >= args.stop:
                break
    where = args.runner_isas if args.runner else ",".join(isas) or "interpreters only"
    print(f"{run} graphs, {failed} failed, {where}, {time.perf_counter() - begin:.0f} s")
    print("operators:", ", ".join(f"{op} {count}" for op, count in counts.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
