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
from .generator import FAMILIES, other_feeds, random_program


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
    return found


def save(folder: Path, seed: int, family: str, supported: set[str] | None, value: str) -> None:
    """Write the part of the program that the wrong value depends on, and its input, to reproduce without the fuzzer."""
    from netsuke.program import write

    program, feeds = random_program(seed, family, supported)
    folder.mkdir(parents=True, exist_ok=True)
    write(ancestors(program, value), folder / f"{family}-{seed}.nsk")
    np.savez(folder / f"{family}-{seed}.npz", **feeds)  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=500, help="graphs of each family")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--family", choices=(*FAMILIES, "both"), default="both")
    parser.add_argument("--what", choices=("all", "interpreters", "engine"), default="all")
    parser.add_argument("--save", type=Path, help="folder for programs that fail")
    parser.add_argument("--stop", type=int, default=10, help="stop after so many failing graphs")
    args = parser.parse_args()
    isas, supported = available() if args.what != "interpreters" else ([], set())
    operators = supported or None
    failed, begin, counts = 0, time.perf_counter(), collections.Counter[str]()
    for family in FAMILIES if args.family == "both" else (args.family,):
        for seed in range(args.start, args.start + args.graphs):
            counts.update(node.op for node in random_program(seed, family, operators)[0].nodes)
            try:
                found = check(seed, family, isas, operators, args.what)
            except Exception as error:  # a crash of one implementation is a finding, not the end of the run
                found = [Difference(type(error).__name__, "", None, "".join(traceback.format_exception(error)[-2:]))]
            if found:
                failed += 1
                print(f"FAILED {family} seed {seed}", *map(str, found), sep="\n  ", flush=True)
                if args.save and found[0].value:
                    save(args.save, seed, family, operators, found[0].value)
            if failed >= args.stop:
                break
    print(f"{args.graphs} graphs of {args.family} family, {failed} failed, ISAs {', '.join(isas) or 'none'}, ", end="")
    print(f"{time.perf_counter() - begin:.0f} s")
    print("operators:", ", ".join(f"{op} {count}" for op, count in counts.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
