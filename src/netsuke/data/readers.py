"""Readers: arrays in memory, .npz files (compressed or not), gzipped IDX files, folders of images."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.data.samples import AnyArray, fields, pack

Rows = npt.NDArray[np.int64]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class Stream(Protocol):
    """What is read from: a file, a member of an archive, a decompressor."""

    def read(self, size: int = -1, /) -> bytes: ...


_LIMIT = 2**40  # elements: a header that asks for more is damaged


class ArrayReader:
    """Arrays in memory."""

    def __init__(self, x: AnyArray, y: AnyArray | None = None, source: str = "arrays") -> None:
        self.x, self.y = np.asarray(x), None if y is None else np.asarray(y)
        _agree(self.x.shape, None if self.y is None else self.y.shape, source)
        self.count = len(self.x)
        self.labels = self.y is not None

    def scan(self, chunk: int, wanted: Rows | None) -> Iterator[tuple[AnyArray, AnyArray | None]]:
        for start in range(0, self.count if wanted is None else len(wanted), chunk):
            rows = slice(start, start + chunk) if wanted is None else wanted[start : start + chunk]
            yield self.x[rows], None if self.y is None else self.y[rows]


class NpzReader:
    """`x`, or one array per input of the network under the inputs' names, and optional `y` of an .npz file.

    They are decompressed as streams: memory is one chunk plus the labels.
    """

    def __init__(self, path: Path, x_key: str = "x", y_key: str = "y") -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                found = [n.removesuffix(".npy") for n in names if n.endswith(".npy") and n != f"{y_key}.npy"]
                self.names = [x_key] if x_key in found else found
                if not self.names:
                    got = ", ".join(names) or "no arrays"
                    allowed = "x and optional y, or arrays named as the inputs"
                    raise FileError(Problem(f"the file has no array {x_key!r}", str(path), got, allowed))
                headers = []
                for name in self.names:
                    with archive.open(f"{name}.npy") as stream:
                        headers.append(_header(stream, f"{path}, {name}"))
                self.y = _labels(archive, f"{y_key}.npy", path) if f"{y_key}.npy" in names else None
        except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
            raise FileError(
                Problem("not a readable .npz file", str(path), str(error), "numpy.savez(path, x=..., y=...)")
            ) from error
        counts = {name: count for name, (_, _, count) in zip(self.names, headers, strict=True)}
        if len(set(counts.values())) > 1:
            got = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise UsageError(Problem("inputs with different numbers of samples", str(path), got))
        self.count, self.labels = headers[0][2], self.y is not None
        for shape, _, count in headers:
            _agree((count, *shape), None if self.y is None else self.y.shape, str(path))
        self.plain = self.names == [x_key]

    def scan(self, chunk: int, wanted: Rows | None) -> Iterator[tuple[AnyArray, AnyArray | None]]:
        try:
            with contextlib.ExitStack() as stack:
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                parts = []
                for name in self.names:
                    stream = stack.enter_context(archive.open(f"{name}.npy"))
                    shape, dtype, count = _header(stream, str(self.path))
                    parts.append(_stream(stream, dtype, shape, count, self.y, chunk, wanted))
                for chunks in zip(*parts, strict=True):
                    x = {name: part for name, (part, _) in zip(self.names, chunks, strict=True)}
                    yield x[self.names[0]] if self.plain else pack(x), chunks[0][1]
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            raise FileError(Problem("the .npz file is damaged", str(self.path), str(error))) from error


class IdxReader:
    """A gzipped IDX image file and, if given, its label file."""

    def __init__(self, images: Path, labels: Path | None = None) -> None:
        self.path = images
        self.count, self.row_shape = _idx_header(images)
        self.y = _idx_labels(labels) if labels else None
        _agree((self.count, *self.row_shape), None if self.y is None else self.y.shape, str(images))
        self.labels = self.y is not None

    def scan(self, chunk: int, wanted: Rows | None) -> Iterator[tuple[AnyArray, AnyArray | None]]:
        try:
            with gzip.open(self.path) as stream:
                stream.read(8 + 4 * len(self.row_shape))
                yield from _stream(stream, np.dtype(np.uint8), self.row_shape, self.count, self.y, chunk, wanted)
        except (OSError, EOFError) as error:
            raise FileError(Problem("the IDX file is damaged", str(self.path), str(error))) from error


class FolderReader:
    """Images in one subfolder per class; class names in sorted order are the labels 0, 1, 2 ...

    Images lying in the folder itself give a data set without labels. Rows are uint8 arrays [H, W, 3 or 1].
    """

    def __init__(self, folder: Path, load: Callable[[Path], AnyArray]) -> None:
        self.folder, self._load = folder, load
        groups = sorted(p for p in folder.iterdir() if p.is_dir())
        named = [(f, i) for i, g in enumerate(groups) for f in sorted(g.rglob("*")) if f.suffix.lower() in IMAGES]
        loose = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGES)
        if named and loose:
            got = f"{len(loose)} images beside {len(groups)} class folders"
            raise UsageError(Problem("images with and without a class", str(folder), got, "one of the two"))
        self.files = [f for f, _ in named] or loose
        self.y = np.array([i for _, i in named], np.int64) if named else None
        self.classes = [g.name for g in groups] if named else []
        self.count, self.labels = len(self.files), bool(named)
        if not self.files:
            raise FileError(Problem("no images in the folder", str(folder), allowed=" ".join(IMAGES)))

    def scan(self, chunk: int, wanted: Rows | None) -> Iterator[tuple[AnyArray, AnyArray | None]]:
        rows = np.arange(self.count) if wanted is None else wanted
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            x = [self._load(self.files[i]) for i in part]
            if len({a.shape for a in x}) > 1:
                sizes = ", ".join(sorted({"x".join(map(str, a.shape)) for a in x})[:4])
                hint = "give resize and crop in the preprocessing"
                raise UsageError(
                    Problem("images of different sizes in one batch", str(self.folder), sizes, "one size", hint)
                )
            yield np.stack(x), None if self.y is None else self.y[part]


def ready(x: AnyArray, where: str) -> AnyArray:
    """Samples that are already preprocessed: floats become float32, int32 and int64 stay; anything else is an error."""
    if x.dtype.names is not None:
        return pack({name: ready(part, f"{where}, {name}") for name, part in fields(x).items()})
    if x.dtype == np.float32 or x.dtype in (np.int32, np.int64):
        return x
    if x.dtype in (np.float64, np.float16):
        return x.astype(np.float32)
    hint = "save preprocessed float32 values, or give a preprocessing (mean, std, layout)"
    raise UsageError(Problem("x has the wrong dtype", where, str(x.dtype), "float32, int32 or int64", hint))


def _agree(x: tuple[int, ...], y: tuple[int, ...] | None, where: str) -> None:
    if len(x) < 1 or math.prod(x[1:]) == 0:
        raise UsageError(Problem("x has no samples' dimension or empty samples", where, str(x), "[samples, ...]"))
    if y is not None and (len(y) != 1 or y[0] != x[0]):
        raise UsageError(Problem("y does not fit x", where, f"x {x}, y {y}", f"y of shape ({x[0]},)"))


def _header(stream: Stream, where: str) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise FileError(Problem("array header of an unknown version", where, str(version)))
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "fiu" or fortran or not shape or math.prod(shape) > _LIMIT:
        order = "Fortran order" if fortran else f"{dtype}, shape {shape}"
        raise UsageError(Problem("x must be a plain array of numbers [samples, ...] in C order", where, order))
    return tuple(shape[1:]), dtype, int(shape[0])


def _labels(archive: zipfile.ZipFile, member: str, path: Path) -> npt.NDArray[np.int64]:
    with archive.open(member) as stream:
        y = npy.read_array(stream, allow_pickle=False)
    if y.dtype.kind not in "iub":
        raise UsageError(Problem("y has the wrong dtype", str(path), str(y.dtype), "integer class numbers"))
    return np.asarray(y, np.int64)


def _stream(
    stream: Stream,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    count: int,
    y: npt.NDArray[np.int64] | None,
    chunk: int,
    wanted: Rows | None,
) -> Iterator[tuple[AnyArray, AnyArray | None]]:
    """Read rows one after the other, keep the wanted ones, yield them `chunk` at a time."""
    size = dtype.itemsize * math.prod(shape)
    rows = range(count) if wanted is None else wanted.tolist()
    buffer, picked, position = bytearray(), [], 0
    for row in rows:
        _skip(stream, (row - position) * size)
        buffer += _exactly(stream, size)
        picked.append(row)
        position = row + 1
        if len(picked) == chunk:
            yield _chunk(buffer, dtype, shape, picked, y)
            buffer, picked = bytearray(), []
    if picked:
        yield _chunk(buffer, dtype, shape, picked, y)


def _chunk(
    buffer: bytearray,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    picked: list[int],
    y: npt.NDArray[np.int64] | None,
) -> tuple[AnyArray, AnyArray | None]:
    x = np.frombuffer(bytes(buffer), dtype).reshape(len(picked), *shape)
    return x, None if y is None else y[picked]


def _exactly(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError(f"the data end {size - len(data)} bytes early")
        data += more
    return data


def _skip(stream: Stream, size: int) -> None:
    while size > 0:
        step = min(size, 1 << 20)
        _exactly(stream, step)
        size -= step


def _idx_header(path: Path) -> tuple[int, tuple[int, ...]]:
    try:
        with gzip.open(path) as stream:
            zero, kind, rank = struct.unpack(">HBB", _exactly(stream, 4))
            sizes = struct.unpack(f">{rank}I", _exactly(stream, 4 * rank))
    except (OSError, EOFError, struct.error) as error:
        raise FileError(Problem("not a gzipped IDX file", str(path), str(error))) from error
    if zero != 0 or kind != 8 or not sizes or math.prod(sizes) > _LIMIT:
        raise FileError(Problem("not an IDX file of bytes", str(path), f"type {kind}, sizes {sizes}"))
    return sizes[0], tuple(sizes[1:])


def _idx_labels(path: Path) -> npt.NDArray[np.int64]:
    count, rest = _idx_header(path)
    if rest:
        raise FileError(Problem("labels must have one dimension", str(path), str((count, *rest))))
    try:
        with gzip.open(path) as stream:
            stream.read(8)
            return np.frombuffer(_exactly(stream, count), np.uint8).astype(np.int64)
    except (OSError, EOFError) as error:
        raise FileError(Problem("the label file is damaged", str(path), str(error))) from error
