"""Data sets known by name: digits (in the package), fashion-mnist, mnist and cifar10 (from a directory).

The directory is `root`, else the environment variable NETSUKE_DATA. Looked-for files, tried in the directory
itself and in a subfolder:

    cifar10        train_20k.npz, test_1k.npz, test_10k_jpeg.npz    x uint8 [N, 32, 32, 3], y
    fashion-mnist  {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz
    mnist          the same names, hence in a folder `mnist` of its own
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netsuke.core.errors import FileError, Problem, UsageError, near
from netsuke.data.dataset import Dataset
from netsuke.data.preprocess import Preprocess
from netsuke.data.readers import IdxReader, NpzReader
from netsuke.data.samples import Reader

IDX: dict[str, tuple[str, ...]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Builtin:
    """Files by split and the preprocessing. `calib` and `eval` name the splits used when none is given."""

    splits: dict[str, tuple[str, ...]]
    folder: str
    preprocess: Preprocess
    calib: str = "train"
    eval: str = "test"


TABLE = {
    "digits": Builtin({"train": (), "test": (), "all": ()}, "", Preprocess(scale=16.0)),
    "fashion-mnist": Builtin(
        IDX,
        "fashion_mnist",
        Preprocess(mean=(0.286,), std=(0.353,)),
    ),
    "mnist": Builtin(IDX, "mnist", Preprocess(mean=(0.1307,), std=(0.3081,))),
    "cifar10": Builtin(
        {"train": ("train_20k.npz",), "test": ("test_1k.npz",), "test-jpeg": ("test_10k_jpeg.npz",)},
        "cifar10",
        IMAGENET,
    ),
}


def load(spec: str, root: str | Path | None, role: str) -> Dataset:
    """The data set "name" or "name:split"; without a split, `role` "calib" or "eval" picks one."""
    name, colon, split = spec.partition(":")
    entry = TABLE[name]
    split = split if colon else (entry.calib if role == "calib" else entry.eval)
    if split not in entry.splits:
        raise UsageError(Problem("no such split", where=name, got=split, allowed=near(split, entry.splits)))
    source = f"{name}:{split}"
    if name == "digits":
        return _digits(split, source, entry)
    paths = _find(name, entry, split, root)
    reader: Reader = NpzReader(paths[0]) if len(paths) == 1 else IdxReader(paths[0], paths[1])
    return Dataset(reader, source, transform=entry.preprocess)


def _digits(split: str, source: str, entry: Builtin) -> Dataset:
    """1,797 digits of 8x8 pixels with values 0 to 16; every fifth sample is in the test split."""
    reader = NpzReader(Path(__file__).with_name("digits.npz"))
    rows = np.arange(reader.count, dtype=np.int64)
    wanted = {"test": rows[rows % 5 == 4], "train": rows[rows % 5 != 4], "all": None}[split]
    return Dataset(reader, source, transform=entry.preprocess, wanted=wanted)


def _find(name: str, entry: Builtin, split: str, root: str | Path | None) -> list[Path]:
    base = root if root is not None else os.environ.get("NETSUKE_DATA")
    files = entry.splits[split]
    hint = "digits is built in and needs no files; your own data: an .npz with x and y, or a folder of images by class"
    if base is None:
        what = f"the directory with {', '.join(files)} is not known"
        raise FileError(Problem(what, f"{name}:{split}", "", "--data-root DIR or NETSUKE_DATA=DIR", hint))
    tried = [Path(base) / entry.folder, Path(base), Path(base) / name]
    found = [[folder / f for f in files] for folder in tried if all((folder / f).is_file() for f in files)]
    if found:
        return found[0]
    problems = []
    for file in files:
        if not any((folder / file).is_file() for folder in tried):
            others = [s for s in entry.splits if s != split]
            more = f"{hint}; other splits: {', '.join(others)}" if others else hint
            problems.append(Problem("a data file is missing", str(tried[0] / file), "no such file", "", more))
    raise FileError(problems or Problem("the files lie in different folders", str(base), hint="put them in one folder"))
