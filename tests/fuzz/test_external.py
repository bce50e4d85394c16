"""The engine for 64-bit ARM under emulation gives the same codes and float bits as on this CPU (`make arm`)."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from netsuke.core.errors import EnvironmentProblem
from netsuke.program.interpreter import run

from .__main__ import available
from .differential import all_values
from .external import check_external, exposing, run_external
from .generator import FAMILIES, random_program

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "build" / "arm" / "runtime" / "netsuke-run"
QEMU = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(RUNNER)]


@pytest.mark.qemu
@pytest.mark.parametrize("family", FAMILIES)
def test_arm_gives_the_same_bits(family):
    if shutil.which(QEMU[0]) is None or not RUNNER.is_file():
        pytest.skip("needs qemu-aarch64 and build/arm/runtime/netsuke-run (make arm)")
    try:
        _, supported = available()
    except EnvironmentProblem as problem:
        pytest.skip(str(problem))
    for seed in range(8):
        found = check_external(QEMU, *random_program(seed, family, supported), family, ["neon", "neondot"])
        assert not found, f"{family} seed {seed}:\n" + "\n".join(map(str, found))


def test_exposing_makes_every_value_an_output():
    program, feeds = random_program(3)
    names = all_values(program)
    reference = run(program, feeds, names)
    everything = run(exposing(program, names, reference), feeds)
    assert list(everything) == names
    assert all(np.array_equal(everything[name], reference[name]) for name in names)


def test_a_runner_that_fails_is_a_finding():
    program, feeds = random_program(3)
    assert "exit code 1" in run_external(["false"], program, feeds, "neon")
