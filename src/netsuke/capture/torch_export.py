"""PyTorch modules and exported programs to ONNX, through torch.export and the exporter built on it.

The batch dimension and, for images, height and width are exported as free dimensions where the network allows it; a
dimension the network fixes (a reshape to constants, a position embedding) becomes a constant, and
`metadata_props["netsuke.fixed"]` of the model says which.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from netsuke.capture.torch_batchnorm import keep_statistics
from netsuke.core.errors import EnvironmentProblem, FileError, NetsukeError, Problem, UnsupportedError, UsageError, near

if TYPE_CHECKING:
    import torch

OPSET = 20  # the first with Gelu; later ones write attention as one operator
_DIM_NAMES = {4: ["N", None, "H", "W"], 3: ["N", None, "L"], 2: ["N", None]}


def export_module(
    module: torch.nn.Module, shape: Any, dtype: str | Mapping[str, str] = "f32", *, free_image: bool = True
) -> ir.Model:
    """Export an eval-mode module for inputs of `shape` (one shape, a list of shapes, or shapes by parameter name).

    free_image False keeps everything but the batch as it is in `shape`. dtype is "f32", "i64" for token ids, "i32" or
    "bool", for all inputs or by name as the shapes.
    Raises UnsupportedError with the exporter's reason when the network cannot be exported.
    """
    torch = _torch()
    module = module.eval()
    shapes, dtypes = _arguments(module, shape, dtype)
    args = tuple(_example(torch, s, d) for s, d in zip(shapes, dtypes, strict=True))
    first = None
    names: list[list[str | None]] = [list(_DIM_NAMES.get(len(s), ["N"])) for s in shapes]
    for free in list(_attempts(names))[0 if free_image else 1 :]:
        try:
            with torch.no_grad(), _quiet():
                return _finish(torch, module, args, free, names)
        except NetsukeError:
            raise
        except Exception as error:  # the exporter raises many types; the next attempt frees fewer dimensions
            first = first or error
    got = re.sub(r"\s+", " ", str(first))[:240]
    hint = "torch.where instead of a branch on values, or export it to ONNX yourself and give the .onnx file"
    where = _line_of_user(first, torch) or type(module).__name__
    raise UnsupportedError(Problem("torch.export cannot trace this network", where=where, got=got, hint=hint))


def _line_of_user(error: BaseException | None, torch: Any) -> str:
    """The innermost line outside of torch that the error passed: `net.py:5 in forward: if x.sum() > 0:`."""
    root = str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    own = [f for f in frames if not f.filename.startswith((root, "<")) and f.filename != __file__]
    return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}: {own[-1].line}" if own else ""


def _arguments(module: Any, shape: Any, dtype: str | Mapping[str, str]) -> tuple[list[tuple[int, ...]], list[str]]:
    """Shapes and dtypes in the order of the arguments; UsageError when names are given that forward does not have."""
    import inspect

    if not isinstance(shape, Mapping):
        listed = [tuple(s) for s in shape] if shape and isinstance(shape[0], (tuple, list)) else [tuple(shape)]
        kinds = list(dtype.values()) if isinstance(dtype, Mapping) else [dtype] * len(listed)
        return listed, kinds if len(kinds) == len(listed) else [kinds[0]] * len(listed)
    known = list(inspect.signature(module.forward).parameters)
    unknown = [
        Problem("forward has no such argument", type(module).__name__, n, ", ".join(known))
        for n in shape
        if n not in known
    ]
    if unknown:
        raise UsageError(unknown)
    names = [name for name in known if name in shape]
    kind = dtype if isinstance(dtype, Mapping) else dict.fromkeys(names, dtype)
    return [tuple(shape[name]) for name in names], [kind.get(name, "f32") for name in names]


def _attempts(free: list[list[str | None]]) -> Iterator[list[list[str | None]]]:
    """All free dimensions, then the batch alone, then none."""
    yield free
    yield [["N"] + [None] * (len(names) - 1) for names in free]
    yield [[None] * len(names) for names in free]


def _example(torch: Any, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Batch 2 at least: torch.export treats a dimension of 1 as a constant."""
    size = (max(2, shape[0]), *shape[1:]) if shape else shape
    generator = torch.Generator().manual_seed(0)
    if dtype != "f32":
        kind = {"i64": torch.int64, "i32": torch.int32, "bool": torch.bool}[dtype]
        return torch.randint(0, 2, size, generator=generator).to(kind)  # type: ignore[no-any-return]
    return torch.randn(size, generator=generator)  # type: ignore[no-any-return]


def _finish(
    torch: Any, module: Any, args: Any, free: list[list[str | None]], names: list[list[str | None]]
) -> ir.Model:
    auto = torch.export.Dim.AUTO
    dynamic = tuple({i: auto for i, name in enumerate(names) if name} for names in free)
    program = torch.export.export(module, args, dynamic_shapes=_nest(module, dynamic), strict=False)
    return to_onnx(program, names)


def _nest(module: Any, dynamic: tuple[Any, ...]) -> Any:
    """dynamic_shapes follows the signature: a forward(*inputs) takes its shapes as one tuple."""
    import inspect

    parameters = list(inspect.signature(module.forward).parameters.values())
    if parameters and parameters[0].kind == inspect.Parameter.VAR_POSITIONAL:
        return (dynamic,)
    return dynamic


def to_onnx(program: Any, free: list[list[str | None]] | None = None) -> ir.Model:
    """Translate a torch.export.ExportedProgram; free dimensions get the names in `free` (by input and position)."""
    torch = _torch()
    with _quiet():
        exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    if exported is None:
        raise UnsupportedError("the exporter returned no program")
    model: ir.Model = exported.model
    keep_statistics(model, program.state_dict)
    _name_dims(model, free)
    return model


def _name_dims(model: ir.Model, free: list[list[str | None]] | None) -> None:
    """Rename torch's symbols (s77) to N, H, W; note what was asked for free and came out fixed."""
    renames: dict[str, str] = {}
    fixed = []
    for index, value in enumerate(model.graph.inputs):
        names = free[index] if free is not None and index < len(free) else None
        for position, dim in enumerate(value.shape or ()):
            wanted = names[position] if names and position < len(names) else None
            if isinstance(dim, int):
                if wanted:
                    fixed.append(f"{value.name}[{position}] = {dim}")
            elif dim.value is not None and re.fullmatch(r"\w+", dim.value):
                renames.setdefault(dim.value, _unused(wanted or ("N" if position == 0 else f"D{position}"), renames))
    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else _renamed(d.value, renames) for d in value.shape])
    if fixed:
        model.metadata_props["netsuke.fixed"] = ", ".join(fixed)


def _unused(name: str, renames: dict[str, str]) -> str:
    taken, candidate, index = set(renames.values()), name, 1
    while candidate in taken:
        index += 1
        candidate = f"{name}{index}"
    return candidate


def _renamed(text: str | None, renames: dict[str, str]) -> str | None:
    return None if text is None else re.sub(r"[A-Za-z_]\w*", lambda m: renames.get(m.group(), m.group()), text)


def load_pt2(path: Path) -> ir.Model:
    """A file written by torch.export.save."""
    torch = _torch()
    if not path.is_file():
        raise FileError(Problem("no such file", where=str(path)))
    try:
        with _quiet():
            program = torch.export.load(str(path))
    except Exception as error:
        raise FileError(Problem("not a file of torch.export.save", where=str(path), got=str(error)[:200])) from None
    return to_onnx(program)


def load_factory(spec: str) -> Any:
    """The module that `file.py:factory` builds. The user asked to run this file by naming it."""
    file, _, name = spec.rpartition(":")
    _torch()
    factory = named_in(file, name, "factory", spec)
    try:
        return factory()
    except NetsukeError:
        raise
    except Exception as error:
        raise _raised(error, f"{name}() raised {type(error).__name__}", spec) from error


def named_in(file: str, name: str, what: str, where: str) -> Any:
    """The callable of this name in a user's Python file, which is run; its own folder can be imported from.

    Raises FileError and UsageError, also for whatever the file itself raises.
    """
    path = Path(file)
    if not path.is_file():
        raise FileError(Problem("no such Python file", where=where, got=file))
    found = importlib.util.spec_from_file_location(f"netsuke_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise FileError(Problem("not a Python file", where=where))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loaded = importlib.util.module_from_spec(found)
    sys.modules[found.name] = loaded  # as an import would: dataclasses and pickles look there
    try:
        found.loader.exec_module(loaded)
    except Exception as error:
        raise _raised(error, f"the file raised {type(error).__name__}", where) from error
    made = getattr(loaded, name, None)
    if not callable(made):
        own = [n for n, v in vars(loaded).items() if callable(v) and getattr(v, "__module__", "") == found.name]
        raise UsageError(Problem(f"no such {what} in the file", where, name, near(name, own)))
    return made


def _raised(error: Exception, what: str, where: str) -> UsageError:
    """An error of the user's own code, with the line it came from."""
    lines = [line for line in traceback.extract_tb(error.__traceback__) if "site-packages" not in line.filename]
    place = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
    return UsageError(Problem(what, where, " ".join(str(error).split())[:300] + place, hint="--debug shows all of it"))


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise EnvironmentProblem(Problem("PyTorch is not installed", hint="pip install netsuke[torch]")) from None
    return torch


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: the exporter makes millions of small objects that live, and each full collection
    looks at all of them. What it leaves behind is collected when it is done.
    """
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and its warnings about its own internals."""
    names = ("torch.onnx", "torch.export", "torch.fx.experimental", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            _uncollected(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),  # a failed attempt prints the graph it had
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
