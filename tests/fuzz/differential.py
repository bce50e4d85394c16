"""Runs one program in every implementation and says where they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netsuke.formats import bf16_to_f32
from netsuke.program.model import Node, Program
from netsuke.program.opset import attributes
from netsuke.program.reference import RULES, Call

from .compare import same_bits, wrong_elements
from .maker import Array


@dataclass(frozen=True)
class Difference:
    """One value on which an implementation disagrees: where, how much, and the node that made it."""

    who: str
    value: str
    node: Node | None
    detail: str

    def __str__(self) -> str:
        node = f"\n    {self.node.op} {self.node.name} {self.node.attrs}" if self.node else ""
        return f"{self.who}: value {self.value}: {self.detail}{node}"


def all_values(program: Program) -> list[str]:
    return [name for node in program.nodes for name in node.outputs]


def describe(got: Array, want: Array, wrong: Array) -> str:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    first = np.argwhere(wrong)[0].tolist() if wrong.ndim else []
    place = tuple(first)
    count = f"{int(wrong.sum())} of {wrong.size} elements of {list(got.shape)}"
    return f"{count}, first at {first}: {got[place]} instead of {want[place]}"


def compare_all(who: str, program: Program, got: dict[str, Array], want: dict[str, Array]) -> list[Difference]:
    """Bit for bit on every value; only the first difference in execution order, the others follow from it."""
    for node in program.nodes:
        for name in node.outputs:
            if got[name].shape != want[name].shape or got[name].dtype != want[name].dtype:
                return [Difference(who, name, node, describe(got[name], want[name], np.ones(1, bool)))]
            wrong = ~same_bits(got[name], want[name])
            if wrong.any():
                return [Difference(who, name, node, describe(got[name], want[name], wrong))]
    return []


def compare_nodes(
    who: str, program: Program, feeds: dict[str, Array], got: dict[str, Array], *, foreign: bool = False
) -> list[Difference]:
    """Each node on its own: the reference rule on the inputs that the implementation really had."""
    values = {**feeds, **got}
    found = []
    for node in program.nodes:
        bf16 = any(name in program.bf16 for name in node.inputs)
        inputs = [_value(program, values, name) for name in node.inputs]
        wanted = RULES[node.op](Call(node, inputs, attributes(node), bf16))
        for name, want in zip(node.outputs, wanted, strict=True):
            if got[name].shape != want.shape or got[name].dtype != want.dtype:
                found.append(Difference(who, name, node, describe(got[name], want, np.ones(1, bool))))
                continue
            wrong = wrong_elements(node, inputs, got[name], want, bf16, foreign=foreign)
            if wrong.any():
                found.append(Difference(who, name, node, describe(got[name], want, wrong)))
    return found


def _value(program: Program, values: dict[str, Array], name: str) -> Array | None:
    if not name:
        return None
    if name in program.bf16:
        return bf16_to_f32(program.constants[name])
    return program.constants.get(name, values.get(name))


def check_interpreters(program: Program, feeds: dict[str, Array], family: str) -> list[Difference]:
    """Reference interpreter against torch emulation."""
    from netsuke.program.emulate import Emulation
    from netsuke.program.interpreter import run

    taps = all_values(program)
    emulated = Emulation(program).run(feeds, taps)
    if family == "integer":
        return compare_all("emulation", program, emulated, run(program, feeds, taps))
    return compare_nodes("emulation", program, feeds, emulated, foreign=True)


def check_engine(
    program: Program, feeds: dict[str, Array], family: str, isas: list[str], threads: tuple[int, ...] = (1, 2)
) -> list[Difference]:
    """The engine on every ISA and number of threads: against the reference, and all of them bit for bit equal."""
    from netsuke.engine import load
    from netsuke.program.interpreter import run

    taps = all_values(program)
    reference = run(program, feeds, taps) if family == "integer" else None
    first: dict[str, Array] | None = None
    found: list[Difference] = []
    for isa in isas:
        for count in threads:
            who = f"engine {isa} threads {count}"
            engine = load(program, threads=count, isa=isa)
            plain = engine.run(feeds)
            tapped = engine.run(feeds, taps)
            again = engine.run(feeds)
            for name in plain:
                for other, label in ((tapped, "with taps"), (again, "run again")):
                    wrong = ~same_bits(plain[name], other[name])
                    if wrong.any():
                        found.append(
                            Difference(f"{who} {label}", name, None, describe(other[name], plain[name], wrong))
                        )
            if reference is not None:
                found += compare_all(who, program, tapped, reference)
            elif first is None:
                found += compare_nodes(who, program, feeds, tapped)
            if first is None:
                first = tapped
            elif reference is None:
                found += compare_all(f"{who} against {isas[0]}", program, tapped, first)
    return found


def check_other_sizes(program: Program, feeds: dict[str, Array], family: str, isas: list[str]) -> list[Difference]:
    """One engine at two sets of shapes: the engine refuses exactly the shapes that the reference refuses."""
    from netsuke.core.errors import NetsukeError
    from netsuke.engine import load
    from netsuke.program.interpreter import run

    taps = all_values(program)
    found: list[Difference] = []
    try:
        reference, refusal = run(program, feeds, taps), ""
    except NetsukeError as error:
        reference, refusal = {}, str(error)
    for isa in isas:
        who = f"engine {isa} at {[list(a.shape) for a in feeds.values()]}"
        try:
            got = load(program, threads=2, isa=isa).run(feeds, taps)
        except NetsukeError as error:
            if not refusal:
                found.append(Difference(who, "", None, f"refused: {error}"))
            continue
        if refusal:
            found.append(Difference(who, "", None, f"should have been refused: {refusal}"))
        elif family == "integer":
            found += compare_all(who, program, got, reference)
        elif all(np.isfinite(v).all() for v in reference.values() if v.dtype == np.float32):
            found += compare_nodes(who, program, feeds, got)
    return found


def ancestors(program: Program, value: str) -> Program:
    """The program cut down to what `value` depends on, with it as the only output."""
    from netsuke.program.model import Port

    needed, nodes = {value}, []
    for node in reversed(program.nodes):
        if needed & set(node.outputs):
            nodes.insert(0, node)
            needed |= set(node.inputs)
    made = {name for node in nodes for name in node.outputs}
    rank = next((len(port.shape) for port in program.outputs if port.name == value), 4)
    return Program(
        program.name,
        program.inputs,
        [Port(value, program.values[value].dtype, tuple(f"d{i}" for i in range(rank)))],
        nodes,
        {name: array for name, array in program.constants.items() if name in needed},
        {name: entry for name, entry in program.values.items() if name in made},
        program.bf16 & needed,
    )
