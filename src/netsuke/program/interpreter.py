"""The reference interpreter: runs a program node by node in plain NumPy. Slow, readable, exact on integers.

run(program, {"x": array}) -> {"y": array}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, NetsukeError, Problem, UsageError, near
from netsuke.formats import bf16_to_f32
from netsuke.program.model import Node, Port, Program
from netsuke.program.opset import attributes
from netsuke.program.reference import RULES, Call
from netsuke.program.reference.elementwise import DTYPE_CODES

Array = np.ndarray[Any, Any]


def run(
    program: Program,
    feeds: Mapping[str, Array],
    taps: Iterable[str] = (),
    *,
    after: Callable[[Node, list[Array]], list[Array]] | None = None,
) -> dict[str, Array]:
    """Outputs of the program by name, and the values named in `taps`: an input, a node output, or the source of one.

    after: called with every node and its outputs; what it returns takes their place (to judge one node at a time).

    feeds: one array per input with the dtype and shape of its port; a free dimension has one size in all inputs.
    Raises UsageError listing what is wrong with feeds or taps, and where an operator cannot take its input.
    """
    named = resolve_taps(program, taps)
    wanted = set(named.values())
    values, sizes = check_feeds(program.inputs, feeds)
    last_use = last_uses(program.nodes)
    constants = {
        name: bf16_to_f32(array) if name in program.bf16 else array for name, array in program.constants.items()
    }
    for index, node in enumerate(program.nodes):
        inputs = [constants[n] if n in constants else values[n] if n else None for n in node.inputs]
        call = Call(node, inputs, attributes(node), any(n in program.bf16 for n in node.inputs))
        results = _evaluate(call)
        if after is not None:
            results = after(node, results)
        for name, result in zip(node.outputs, results, strict=True):
            values[name] = result
        for name in {n for n in node.inputs if n in values and last_use[n] == index} - wanted:
            del values[name]
    check_outputs(program, values, sizes)
    return {name: values[value] for name, value in named.items()}


def resolve_taps(program: Program, taps: Iterable[str]) -> dict[str, str]:
    """What to return: names of outputs and taps, each with the value it stands for.

    A tap is a value of the program or the `source` of exactly one. Raises UsageError listing the taps that are neither.
    """
    values = {port.name for port in program.inputs} | {name for node in program.nodes for name in node.outputs}
    sources: dict[str, list[str]] = {}
    for name, value in program.values.items():
        if value.source:
            sources.setdefault(value.source, []).append(name)
    named = {port.name: port.name for port in program.outputs}
    problems: list[Problem] = []
    for tap in [taps] if isinstance(taps, str) else taps:
        found = [tap] if tap in values else sources.get(tap, [])
        if len(found) == 1:
            named[tap] = found[0]
        elif found:
            problems.append(Problem("several values have this source", where=repr(tap), allowed=", ".join(found)))
        else:
            problems.append(Problem("no value of this name", where=repr(tap), allowed=near(tap, values | set(sources))))
    if problems:
        raise UsageError(problems)
    return named


def _evaluate(call: Call) -> list[Array]:
    try:
        return RULES[call.node.op](call)
    except NetsukeError:
        raise
    except MemoryError as error:
        raise call.wrong("not enough memory for this operator") from error


def last_uses(nodes: list[Node]) -> dict[str, int]:
    """Index of the last node that reads each value."""
    return {name: index for index, node in enumerate(nodes) for name in node.inputs}


def check_feeds(ports: list[Port], feeds: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, int]]:
    """The feeds as arrays and the sizes of the free dimensions.

    Raises UsageError with every port that has no array of its dtype and shape.
    """
    problems: list[Problem] = []
    names = [port.name for port in ports]
    problems += [Problem("no such input", got=name, allowed=near(name, names)) for name in feeds if name not in names]
    sizes: dict[str, int] = {}
    values: dict[str, Array] = {}
    for port in ports:
        where = f"input {port.name!r}"
        if port.name not in feeds:
            problems.append(Problem("no value given", where=where))
            continue
        array = values[port.name] = np.asarray(feeds[port.name])
        if array.dtype != np.dtype(DTYPE_CODES[port.dtype]):
            problems.append(Problem("wrong dtype", where=where, got=str(array.dtype), allowed=port.dtype))
        if not _fits(array.shape, port, sizes):
            shape = [sizes.get(d, d) if isinstance(d, str) else d for d in port.shape]
            problems.append(Problem("wrong shape", where=where, got=str(list(array.shape)), allowed=str(shape)))
    if problems:
        raise UsageError(problems)
    return values, sizes


def check_outputs(program: Program, values: Mapping[str, Array], sizes: dict[str, int]) -> None:
    """Every output has the declared shape, a free dimension one size wherever it occurs; FileError otherwise.

    sizes: what the inputs say of the free dimensions (from `check_feeds`).
    """
    for port in program.outputs:
        shape = values[port.name].shape
        if not _fits(shape, port, sizes):
            where, declared = f"output {port.name!r}", str(list(port.shape))
            raise FileError(Problem("declared with another shape", where=where, got=str(list(shape)), allowed=declared))


def _fits(shape: tuple[int, ...], port: Port, sizes: dict[str, int]) -> bool:
    """True when the shape is that of the port; free dimensions met for the first time get their size."""
    return len(shape) == len(port.shape) and all(
        size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        for size, dim in zip(shape, port.shape, strict=True)
    )
