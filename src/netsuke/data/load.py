"""`load_data`: from what a person types to a `Dataset`."""

from __future__ import annotations

from pathlib import Path

from netsuke.core.errors import FileError, Problem, near
from netsuke.data import builtin
from netsuke.data.dataset import Dataset
from netsuke.data.preprocess import SIDECAR, Preprocess
from netsuke.data.readers import FolderReader, NpzReader, ready


def load_data(
    spec: str | Path | Dataset,
    root: str | Path | None = None,
    *,
    role: str = "eval",
    preprocess: str | Path | Preprocess | None = None,
) -> Dataset:
    """A data set from an .npz file, a folder of images, or a built-in name.

    spec        "calib.npz" with x (model layout) and optional y; "images/" with one folder per class; "digits",
                "cifar10:test" ...
    root        directory of the built-in data sets; else NETSUKE_DATA
    role        "calib" or "eval": the split of a built-in name without one (train or test)
    preprocess  for images and for .npz files with raw pixels: a `Preprocess`, its text form or a TOML file; a
                folder may carry it as preprocess.toml
    """
    if isinstance(spec, Dataset):
        return spec
    name, path = str(spec), Path(spec)
    given = _preprocess(preprocess)
    if path.is_dir():
        return _folder(path, name, given)
    if name.partition(":")[0] in builtin.TABLE and not path.exists():
        return builtin.load(name, root, role)
    if path.suffix == ".npz":
        if not path.is_file():
            raise FileError(Problem("no such file", str(path), hint=", ".join(builtin.TABLE)))
        return Dataset(NpzReader(path), name, transform=given or (lambda x: ready(x, name)))
    allowed = f"an .npz file, a folder of images, or {near(name, builtin.TABLE)}"
    raise FileError(Problem("no such data", got=name, allowed=allowed))


def _folder(path: Path, name: str, given: Preprocess | None) -> Dataset:
    if given is None and (path / SIDECAR).is_file():
        given = Preprocess.load(path / SIDECAR)
    if given is None:
        hint = f"write {path / SIDECAR}, or --preprocess resize=256,crop=224,mean=...,std=..."
        raise FileError(Problem("how to preprocess the images is not known", str(path), hint=hint))
    return Dataset(FolderReader(path, given.image), name, transform=given)


def _preprocess(given: str | Path | Preprocess | None) -> Preprocess | None:
    if given is None or isinstance(given, Preprocess):
        return given
    text = str(given)
    return Preprocess.load(Path(text)) if text.endswith(".toml") else Preprocess.parse(text)
