"""The .nsk file: bytes of a program and back. docs/format.md is the specification; the container is safetensors.

The container is written here rather than by the safetensors package so that the bytes never depend on its version; a
test reads every file with that package too.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem
from netsuke.program.model import Program
from netsuke.program.model_json import MAX_NAME, MAX_RANK, parse_json, program_from_text, program_text
from netsuke.program.storage import encode, stored_forms, unpack_constants
from netsuke.program.verify import verify

_DTYPES: dict[str, str] = {"F32": "<f4", "BF16": "<u2", "U8": "u1", "I8": "i1", "I32": "<i4", "I64": "<i8", "BOOL": "?"}
_TAGS = {np.dtype(code): tag for tag, code in _DTYPES.items() if tag != "BF16"}
_KEY = "netsuke"
_MAX_HEADER = 100_000_000  # the limit of the safetensors format
_ALIGN = 64


def producer() -> str:
    """ "netsuke" and its version, as written in the file."""
    try:
        return f"netsuke {importlib.metadata.version('netsuke')}"
    except importlib.metadata.PackageNotFoundError:  # used from a source tree that was never installed
        return "netsuke 0.1.0"


def to_bytes(program: Program, *, plain: bool = False) -> bytes:
    """The bytes of the .nsk file. The same program gives the same bytes. Raises FileError where `verify` would.

    plain  constants as they are, without a search for their shortest form: for a program that is run once
    """
    verify(program)
    forms = {} if plain else stored_forms(program)
    packed = {name: form.packed for name, form in forms.items()}
    header: dict[str, Any] = {"__metadata__": {_KEY: program_text(program, producer(), packed)}}
    blobs: list[memoryview] = []  # as they lie in memory: one copy of the weights is made, by the join
    offset = 0
    # Widest elements first: with a data section that starts at a multiple of 64 every tensor is naturally aligned.
    order = sorted(program.constants, key=lambda name: (-program.constants[name].itemsize, name))
    for name in order:
        array = program.constants[name]
        if name in forms:
            array = encode(array, forms[name])
        tag = "BF16" if name in program.bf16 and name not in forms else _TAGS[array.dtype.newbyteorder("=")]
        blob = np.ascontiguousarray(array, _DTYPES[tag]).reshape(-1).view(np.uint8)
        header[name] = {"dtype": tag, "shape": list(array.shape), "data_offsets": [offset, offset + blob.nbytes]}
        blobs.append(blob.data)
        offset += blob.nbytes
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % _ALIGN)
    if len(text) > _MAX_HEADER:
        raise FileError(
            Problem("the program text is too long", got=f"{len(text)} bytes", allowed=f"{_MAX_HEADER} bytes")
        )
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def write(program: Program, path: str | os.PathLike[str]) -> int:
    """Write the program to `path` and return the number of bytes.

    The file is replaced in one step: readers see the old or the new one, and after an error the old one is untouched.
    Raises FileError when the program breaks a rule of docs/format.md or the file cannot be written.
    """
    data = to_bytes(program)
    target = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise FileError(Problem("cannot write the file", where=str(path), got=error.strerror or str(error))) from error
    return len(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def from_bytes(data: bytes | memoryview, where: str = "bytes", *, check: bool = True) -> Program:
    """The program of the bytes of a .nsk file; constants are read-only views of `data`, but for
    those that it holds packed, which are decoded.

    `check` runs `verify` as well; without it only the container and the JSON are checked. Raises FileError.
    """
    view = memoryview(data)
    size = len(view)
    length = int.from_bytes(view[:8], "little") if size >= 8 else 0
    if size < 8 or length > min(size - 8, _MAX_HEADER):
        raise FileError(
            Problem(
                "not a .nsk file, or cut short", where=where, got=f"{size} bytes, header of {length} bytes announced"
            )
        )
    try:
        text = str(view[8 : 8 + length], "utf-8")
    except UnicodeDecodeError as error:
        raise FileError(Problem("not a .nsk file: the header is not UTF-8", where=where)) from error
    header = parse_json(text, f"{where}: header")
    if not isinstance(header, dict):
        raise FileError(Problem("not a .nsk file: the header is not a JSON object", where=where))
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        hint = "a safetensors file of weights is not a program; make one with netsuke compress"
        raise FileError(Problem("not a .nsk file: it holds no netsuke program", where=where, hint=hint))
    if len(metadata) > 1:
        raise FileError(Problem("unknown metadata", where=where, got=str(sorted(metadata))[:200], allowed=_KEY))
    constants, bf16 = _tensors(header, view[8 + length :], where)
    program, packed = program_from_text(metadata[_KEY], where)
    program.constants, program.bf16 = constants, bf16
    unpack_constants(program, packed, where)
    if check:
        verify(program, where)
    return program


def read(path: str | os.PathLike[str], *, check: bool = True) -> Program:
    """The program of a .nsk file. The file is mapped, not copied: constants are read-only views of it.

    Raises FileError that lists what is wrong when the file is missing, damaged or breaks a rule of docs/format.md.
    """
    try:
        with Path(path).open("rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise FileError(Problem("the file is empty", where=str(path)))
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise FileError(Problem("cannot read the file", where=str(path), got=error.strerror or str(error))) from error
    return from_bytes(data, str(path), check=check)


def _tensors(header: dict[str, Any], data: memoryview, where: str) -> tuple[dict[str, np.ndarray[Any, Any]], set[str]]:
    """The tensors of the container: every byte of the data section belongs to exactly one of them."""
    spans: list[tuple[int, int, str]] = []
    constants: dict[str, np.ndarray[Any, Any]] = {}
    problems: list[Problem] = []
    for name, entry in header.items():
        what = _entry_problem(name, entry, len(data))
        if what:
            problems.append(Problem(what, where=f"{where}: tensor {name[:80]!r}", got=str(entry)[:120]))
            continue
        begin, end = entry["data_offsets"]
        spans.append((begin, end, name))
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        constants[name] = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
    if not problems:
        at = 0
        for begin, end, name in sorted(spans):
            if begin != at:
                problems.append(Problem("tensors overlap or leave a hole", where=f"{where}: tensor {name[:80]!r}"))
                break
            at = end
        else:
            if at != len(data):
                problems.append(Problem("bytes that belong to no tensor", where=where, got=f"{len(data) - at}"))
    if problems:
        raise FileError(problems[:50])
    return constants, {name for name, entry in header.items() if entry["dtype"] == "BF16"}


def _entry_problem(name: str, entry: Any, size: int) -> str:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "expected dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        return "unknown dtype"
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(v) for v in shape):
        return f"expected a shape of at most {MAX_RANK} sizes"
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(v) for v in offsets):
        return "expected two offsets"
    if not 0 < len(name) <= MAX_NAME or "\0" in name:
        return f"a name has 1 to {MAX_NAME} characters"
    if not offsets[0] <= offsets[1] <= size:
        return "data lies outside of the file"
    if math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize != offsets[1] - offsets[0]:
        return "shape and byte count disagree"
    return ""


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
