"""Valid programs with something changed: the verifier, the reference and the engine must accept or refuse them alike.

A mutant that the verifier refuses must be refused with a FileError and nothing else. One that it accepts must give the
same result, or a refusal, in the reference and in the engine; never a crash of either.
"""

from __future__ import annotations

import copy

import numpy as np

from netsuke.core.errors import FileError, NetsukeError
from netsuke.program import from_bytes, to_bytes
from netsuke.program.interpreter import run
from netsuke.program.model import Program

from .differential import Difference, all_values, compare_all, compare_nodes
from .maker import Array

NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 100, 127, 255)
WORDS = ("relu", "max", "mean", "linear", "nearest", "u8", "f32", "i64", "CRD", "edge", "reflect", "reverse", "ceil")


def mutate(program: Program, seed: int) -> Program:
    """A copy with one to three changes in attributes, inputs or constants."""
    rng = np.random.default_rng(seed)
    mutant = copy.deepcopy(program)
    for _ in range(rng.integers(1, 4)):
        node = mutant.nodes[rng.integers(len(mutant.nodes))]
        kind = rng.integers(0, 5)
        if kind <= 1 and node.attrs:
            key = sorted(node.attrs)[rng.integers(len(node.attrs))]
            node.attrs[key] = _other(rng, node.attrs[key])
        elif kind == 2:
            names = [port.name for port in mutant.inputs] + all_values(mutant)
            place = rng.integers(len(node.inputs))
            if node.inputs[place] not in mutant.constants:
                node.inputs[place] = names[rng.integers(len(names))]
        elif kind == 3 and node.attrs and rng.random() < 0.5:
            del node.attrs[sorted(node.attrs)[rng.integers(len(node.attrs))]]
        else:
            _change_constant(rng, mutant)
    # Bounds are stated anew: otherwise nearly every change of weights or zero points would only meet that check.
    for node in mutant.nodes:
        if "acc_bound" in node.attrs:
            node.attrs["acc_bound"] = 2**31 - 1
    return mutant


def _other(rng: np.random.Generator, value: object) -> object:
    if isinstance(value, list):
        changed = list(value)
        if changed and rng.random() < 0.9:
            changed[rng.integers(len(changed))] = int(rng.choice(NUMBERS))
        else:
            changed.append(1)
        return changed
    if isinstance(value, str):
        return str(rng.choice(WORDS))
    if isinstance(value, float):
        return float(rng.choice([0.0, 1.0, -1.0, 0.1, 1e-30, 1e30]))
    return int(rng.choice((*NUMBERS, -1, -2)))


def _change_constant(rng: np.random.Generator, program: Program) -> None:
    names = sorted(program.constants)
    if not names:
        return
    array = program.constants[name := names[rng.integers(len(names))]].copy()
    if array.dtype == np.int64 and array.size and rng.random() < 0.8:
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([0, -1, 1, 2, 5, 1000, 2**40, -(2**63), 2**63 - 1])
    elif array.size and rng.random() < 0.5:
        array = array.reshape(-1)[: rng.integers(1, array.size + 1)]
    elif array.ndim:
        array = np.moveaxis(array, 0, -1).copy()
    program.constants[name] = array


def check_mutant(program: Program, feeds: dict[str, Array], seed: int, isas: list[str]) -> list[Difference]:
    from netsuke.engine import load

    mutant = mutate(program, seed)
    try:
        data = to_bytes(mutant)
    except FileError:
        return []
    taps = all_values(mutant)
    try:
        reference, refusal = run(from_bytes(data), feeds, taps), ""
    except NetsukeError as error:
        reference, refusal = {}, str(error)
    if any(array.size > 10**7 for array in reference.values()):
        return []
    found: list[Difference] = []
    first: dict[str, Array] = {}
    for isa in isas:
        try:
            got = load(mutant, threads=2, isa=isa).run(feeds, taps)
        except NetsukeError as error:
            if not refusal:
                found.append(Difference(f"engine {isa}", "", None, f"refused a mutant: {error}"))
            continue
        if refusal:
            found.append(Difference(f"engine {isa}", "", None, f"should have refused a mutant: {refusal}"))
        elif all(np.isfinite(v).all() for v in reference.values() if v.dtype == np.float32):
            found += compare_nodes(f"engine {isa}, mutant", mutant, feeds, got)
            found += compare_all(f"engine {isa}, mutant", mutant, got, first or got)
            first = first or got
    return found
