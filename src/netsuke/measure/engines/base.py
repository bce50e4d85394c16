"""The protocol between the benchmark and a competitor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
FLOATS = ("f32", "bf16")


class Unavailable(Exception):
    """This engine cannot run this model at this precision; the text becomes the row's reason."""


@dataclass
class Subject:
    """What is measured. Everything but `module` survives the trip into a child process.

    onnx         float network as ONNX, for engines that read it
    nsk          our compressed program; None when only float models are compared
    float_nsk    our float program made from the same network
    torch_spec   how a child process gets the module again: (MODEL, weights, shape); None when only `module` is known
    feeds        one batch of inputs by name
    calibration  .npz with one array per input name, for engines that make their own INT8
    folder       where derived files go
    module       live torch.nn.Module, or None
    """

    folder: Path
    feeds: dict[str, Array]
    onnx: Path | None = None
    nsk: Path | None = None
    float_nsk: Path | None = None
    torch_spec: tuple[str, str, str] | None = None
    calibration: Path | None = None
    module: Any = None


@dataclass
class Session:
    """A loaded engine. `run` is what is timed: inputs in host memory to outputs in host memory.

    activate   called untimed before each block, for engines whose thread setting is global
    threads    what the engine says it uses
    note       effective settings worth a column, e.g. the instruction set
    """

    run: Callable[[], list[Array]]
    threads: int
    activate: Callable[[], None] = field(default=lambda: None)
    note: str = ""


@dataclass(frozen=True)
class Engine:
    """One competitor.

    name        as in the rows
    label       how people call it
    precisions  what it offers: "f32", "bf16", "int8"
    packages    what has to be importable
    install     the command that installs it
    prepare     makes derived files once (its own INT8 model); raises Unavailable
    open        loads for a thread count; raises Unavailable
    """

    name: str
    label: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    open: Callable[[Subject, str, int], Session]
    prepare: Callable[[Subject, str], None] = field(default=lambda _subject, _precision: None)
