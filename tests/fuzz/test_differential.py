"""All implementations on random programs, 30 of each family; `python -m tests.fuzz --graphs 500` is the long run."""

import pytest

from netsuke.core.errors import EnvironmentProblem
from netsuke.program import to_bytes
from netsuke.program.interpreter import run
from netsuke.program.opset import OPERATORS

from .__main__ import available, check
from .differential import check_interpreters, compare_all
from .generator import FAMILIES, random_program

CHUNK = 10


def seeds(count: int) -> range:
    return range(0, count, CHUNK)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", seeds(30))
def test_interpreter_and_emulation(family, first):
    for seed in range(first, first + CHUNK):
        found = check_interpreters(*random_program(seed, family), family)
        assert not found, f"{family} seed {seed}:\n" + "\n".join(map(str, found))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", seeds(30))
def test_engine(family, first):
    try:
        isas, supported = available()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    for seed in range(first, first + CHUNK):
        found = check(seed, family, isas, supported, "engine")
        assert not found, f"{family} seed {seed}:\n" + "\n".join(map(str, found))


def test_the_fuzzer_sees_a_single_wrong_code():
    """A difference of one code in one element of one value is reported with its node."""
    program, feeds = next(
        found for found in map(random_program, range(50)) if any(node.op == "qconv" for node in found[0].nodes)
    )
    node = next(node for node in program.nodes if node.op == "qconv")
    names = [name for n in program.nodes for name in n.outputs]
    want = run(program, feeds, names)
    got = {name: array.copy() for name, array in want.items()}
    flat = got[node.outputs[0]].reshape(-1)
    flat[-1] = flat[-1] + 1 if flat.dtype.kind == "f" else flat[-1] ^ 1
    (difference,) = compare_all("broken", program, got, want)
    assert difference.node is node
    assert "1 of" in difference.detail


def test_programs_are_reproducible_and_cover_every_operator():
    assert to_bytes(random_program(7)[0]) == to_bytes(random_program(7)[0])
    ops = {node.op for family in FAMILIES for seed in range(60) for node in random_program(seed, family)[0].nodes}
    assert not set(OPERATORS) - ops
