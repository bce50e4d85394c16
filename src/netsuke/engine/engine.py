"""`load` and `Engine`: a program ready to run on this CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem, UsageError, near
from netsuke.engine.native import choose_isa, runtime, translate
from netsuke.program.model import Port, Program

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any] | Any
Shapes = Mapping[str, Sequence[int]] | Sequence[int] | None

_NUMPY = {"f32": "float32", "u8": "uint8", "s8": "int8", "i32": "int32", "i64": "int64", "bool": "bool"}
_DTYPES = {name: np.dtype(text) for name, text in _NUMPY.items()}  # comparing with a text would parse it at every run
_MAX_THREADS = 1024


def load(
    source: str | os.PathLike[str] | Program,
    *,
    threads: int | None = None,
    isa: str | None = None,
    max_memory: int = 0,
    plain: bool = False,
) -> Engine:
    """An Engine for a .nsk file or a program in memory.

    Args:
        source: path of a .nsk file, or a Program.
        threads: threads of the engine, the calling one included; default one for each physical core that this process
            may use.
        isa: instruction set to use ("portable", "avx2", ...); default the variable NETSUKE_ISA, else the best of this
            CPU. Results are the same bits on all of them.
        max_memory: bytes that intermediate tensors may take; 0 is the memory of the machine.
        plain: hand a program over without looking for the shortest form of its constants: loads sooner, gives the same
            results, and may choose other kernels than its file.

    Raises:
        FileError: the file is missing or damaged; UnsupportedError: it needs an operator this runtime has not;
        UsageError: threads or isa cannot be; EnvironmentProblem: the compiled runtime is missing.
    """
    native = runtime()
    if threads is not None and not 1 <= threads <= _MAX_THREADS:
        raise UsageError(
            Problem("number of threads", where="threads", got=str(threads), allowed=f"1 to {_MAX_THREADS}")
        )
    options = (threads or 0, choose_isa(isa), max_memory)
    if isinstance(source, Program):
        from netsuke.program.file import to_bytes

        data = to_bytes(source, plain=plain)
        return Engine(_call(f"program {source.name!r}", native.Engine.load_bytes, data, *options))
    path = Path(source)
    if not path.is_file():
        raise FileError(Problem("no such file", where=str(path), hint="netsuke compress makes one"))
    return Engine(_call(str(path), native.Engine.load_file, str(path), *options))


class Engine:
    """A loaded program. Safe to use from several threads at once; made by `load`.

    Attributes:
        inputs, outputs: the ports, with dtype and shape; a free dimension is a name.
        name, meta, plan: as written in the file.
        isa, threads: what is used.
        file_bytes, packed_bytes: size of the file, and of the weights as the kernels hold them.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.inputs: list[Port] = [Port(*port) for port in handle.inputs]
        self.outputs: list[Port] = [Port(*port) for port in handle.outputs]
        self.name: str = handle.name
        self.meta: dict[str, str] = dict(handle.meta)
        self.plan: str = handle.plan
        self.isa: str = handle.isa
        self.threads: int = handle.threads
        self.file_bytes: int = handle.file_bytes
        self.packed_bytes: int = handle.packed_bytes

    def __repr__(self) -> str:
        ports = ", ".join(map(_port_text, self.inputs)) + " -> " + ", ".join(map(_port_text, self.outputs))
        return f"Engine({self.name!r}, {ports}, isa={self.isa}, threads={self.threads})"

    def __call__(self, *args: Any) -> Array | tuple[Array, ...]:
        """Run on positional inputs, one for each of `inputs`. Returns the output, or a tuple when there are several."""
        if len(args) != len(self.inputs):
            raise UsageError(Problem("number of inputs", got=str(len(args)), allowed=self._expected()))
        found = self._native("run", self._arrays(dict(zip(self._names(), args, strict=True))), [])
        return found[0] if len(found) == 1 else tuple(found)

    def run(self, feeds: Feeds, taps: Iterable[str] = ()) -> dict[str, Array]:
        """Run on `feeds`: a dict by input name, or the array of the only input.

        Arrays must have the dtype and shape of `inputs`; C-contiguous ones are read in place. `taps` names further
        values to return: a name of the program, or of the captured graph (the `source` of a value). Codes are returned
        as codes. Raises UsageError that lists every wrong input.
        """
        taps = [taps] if isinstance(taps, str) else list(taps)
        found = self._native("run", self._arrays(self._named(feeds)), self._tap_numbers(taps))
        names = [port.name for port in self.outputs]
        return dict(zip([*names, *taps], found, strict=True))

    def kernels(self) -> list[dict[str, Any]]:
        """For each node: node, op, kernel (its name says formats, instruction set and tile), isa, stored, key, ways.

        stored: how the file holds the node's packed weights: "3-bit codes"; "2-bit indices, 4 entries of 1, decoded at
        load"; empty where they stand as they are.
        key, ways: of a layer with several ways to compute it, its name in the tuning table and the ways, the rule's own
        first (`netsuke.measure.tuning`).
        """
        names = ("node", "op", "kernel", "isa", "stored", "key", "ways")
        blank: dict[str, Any] = {"stored": "", "key": "", "ways": []}  # an older runtime has none of these
        return [blank | dict(zip(names, row, strict=False)) for row in self._handle.nodes]

    def profile(self, feeds: Feeds, *, runs: int = 20) -> list[dict[str, Any]]:
        """Time of every node that runs, over `runs` runs after one that is not counted.

        Each row: node, op, kernel, isa, ms (median), ms_min, macs, bytes (read and written, weights included), shape
        (of the output). Nodes that cost nothing (views, tensors computed from shapes) do not run and have no row.
        """
        if runs < 1:
            raise UsageError(Problem("number of runs", where="runs", got=str(runs), allowed="at least 1"))
        arrays = self._arrays(self._named(feeds))
        times = self._native("profile", arrays, runs + 1)[1:]
        steps = self._native("plan_info", [list(array.shape) for array in arrays])["steps"]
        kernels = self.kernels()
        return [
            {
                **kernels[step["node"]],
                "ms": median(run[i] for run in times) / 1e6,
                "ms_min": min(run[i] for run in times) / 1e6,
                "macs": step["macs"],
                "bytes": step["bytes_read"] + step["bytes_written"],
                "shape": tuple(step["shape"]),
            }
            for i, step in enumerate(steps)
        ]

    def arena_bytes(self, shapes: Shapes = None) -> int:
        """Bytes of intermediate tensors and scratch memory at these input shapes (default: free dimensions are 1)."""
        return int(self._native("plan_info", self._shapes(shapes))["arena_bytes"])

    def output_shapes(self, shapes: Shapes = None) -> dict[str, tuple[int, ...]]:
        """The shape of each output for these input shapes (default: free dimensions are 1)."""
        found = self._native("plan_info", self._shapes(shapes))["outputs"]
        return {port.name: tuple(shape) for port, shape in zip(self.outputs, found, strict=True)}

    def values(self) -> list[dict[str, Any]]:
        """Every named value: name, kind (input, constant, node), source, and scale and zero where it holds codes."""
        return list(self._handle.values)

    def _native(self, method: str, *args: Any) -> Any:
        return _call(f"program {self.name!r}", getattr(self._handle, method), *args)

    def _names(self) -> list[str]:
        return [port.name for port in self.inputs]

    def _expected(self) -> str:
        return ", ".join(map(_port_text, self.inputs)) or "none"

    def _named(self, feeds: Feeds) -> Mapping[str, Any]:
        if isinstance(feeds, Mapping):
            return feeds
        if len(self.inputs) != 1:
            raise UsageError(
                Problem("one array given", got=type(feeds).__name__, allowed=f"a dict of {self._expected()}")
            )
        return {self.inputs[0].name: feeds}

    def _arrays(self, feeds: Mapping[str, Any]) -> list[Array]:
        """The arrays in the order of the inputs; every problem of every input is reported at once."""
        names = self._names()
        problems = [
            Problem("unknown input", where=repr(name), allowed=near(str(name), names))
            for name in feeds
            if name not in names
        ]
        arrays: list[Array] = []
        for port in self.inputs:
            if port.name not in feeds:
                problems.append(Problem("missing input", where=port.name, allowed=_port_text(port)))
                continue
            array = np.asarray(feeds[port.name])
            if not _fits(array, port):
                got = f"{array.dtype} {list(array.shape)}"
                hint = f"array.astype({_NUMPY[port.dtype]!r})" if array.dtype != _NUMPY[port.dtype] else ""
                problems.append(Problem("wrong input", where=port.name, got=got, allowed=_port_text(port), hint=hint))
            # A field of a record array may be contiguous and still start anywhere.
            ready = array.ndim == 0 or (array.flags.c_contiguous and array.flags.aligned)
            arrays.append(array if ready else np.require(array, requirements=["C", "A"]))
        if problems:
            raise UsageError(problems)
        return arrays

    def _tap_numbers(self, taps: Sequence[str]) -> list[int]:
        numbers, problems = [], []
        for tap in taps:
            number = self._handle.find_value(tap)
            if number < 0:
                rows = self.values()
                from_source = [i for i, row in enumerate(rows) if row["source"] == tap]
                if len(from_source) == 1:
                    number = from_source[0]
                elif from_source:
                    allowed = ", ".join(rows[i]["name"] for i in from_source)
                    problems.append(Problem("several values have this source", where=repr(tap), allowed=allowed))
                    continue
                else:
                    names = {row["name"] for row in rows} | {row["source"] for row in rows if row["source"]}
                    problems.append(Problem("no value of this name", where=repr(tap), allowed=near(tap, names)))
                    continue
            numbers.append(number)
        if problems:
            raise UsageError(problems)
        return numbers

    def _shapes(self, shapes: Shapes) -> list[list[int]]:
        if shapes is None:
            return [[dim if isinstance(dim, int) else 1 for dim in port.shape] for port in self.inputs]
        if not isinstance(shapes, Mapping):
            if len(self.inputs) != 1:
                raise UsageError(Problem("one shape given", allowed=f"a dict of {self._expected()}"))
            shapes = {self.inputs[0].name: shapes}
        if set(shapes) != set(self._names()):
            raise UsageError(Problem("shapes", got=", ".join(shapes), allowed=self._expected()))
        return [[int(dim) for dim in shapes[name]] for name in self._names()]


def _call(where: str, function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except runtime().Error as error:
        raise translate(error, where) from None


def _port_text(port: Port) -> str:
    return f"{port.name} {_NUMPY[port.dtype]} [{', '.join(map(str, port.shape))}]"


def _fits(array: Array, port: Port) -> bool:
    """Dtype and fixed dimensions; equal free dimensions are checked by the runtime, which knows all inputs."""
    if array.dtype != _DTYPES[port.dtype] or array.ndim != len(port.shape):
        return False
    return all(dim == size or isinstance(dim, str) for dim, size in zip(port.shape, array.shape, strict=True))
