"""`netsuke run`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from netsuke.cli.common import DebugOption, JsonOption, note, say, write_json
from netsuke.core.errors import FileError, Problem, UsageError


def _read(path: Path) -> dict[str, Any]:
    """Arrays of an .npy (name "") or .npz file; nothing pickled is ever loaded."""
    try:
        found = np.load(path, allow_pickle=False)
        return {"": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except (OSError, ValueError) as error:
        raise FileError(Problem("cannot read arrays", where=str(path), got=str(error))) from None


def _feeds(arrays: dict[str, Any], ports: list[Any]) -> dict[str, Any]:
    """Arrays by input name: one array for the only input, or an .npz with the inputs' names (x for the only one)."""
    if len(ports) == 1:
        name = next((n for n in ("", ports[0].name, "x") if n in arrays), None)
        if name is None:
            raise UsageError(Problem("no array for the input", got=", ".join(arrays), allowed=f"{ports[0].name} or x"))
        return {ports[0].name: arrays[name]}
    missing = [
        Problem("no array for the input", where=p.name, got=", ".join(arrays)) for p in ports if p.name not in arrays
    ]
    if missing:
        raise UsageError(missing)
    return {p.name: arrays[p.name] for p in ports}


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE.nsk", help="The compiled network.")],
    data: Annotated[Path, typer.Option("--input", "-i", metavar="FILE", help=".npy, or .npz with the inputs' names.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.npz", help="Write the outputs.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; default one per core.")] = None,
    isa: Annotated[str, typer.Option(help="Force an instruction set.")] = "",
    kernels: Annotated[bool, typer.Option("--kernels", help="List which kernel runs each layer.")] = False,
    json: JsonOption = None,
    _debug: DebugOption = False,
) -> None:
    """Run a compiled network once on arrays from a file."""
    from netsuke.measure import tuning

    loaded = tuning.load(file, threads=threads, isa=isa or None)
    feeds = _feeds(_read(data), loaded.inputs)
    wanted = {"f32": np.float32}
    feeds = {p.name: np.ascontiguousarray(feeds[p.name], dtype=wanted.get(p.dtype)) for p in loaded.inputs}
    found = loaded.run(feeds)
    if kernels:
        rows = loaded.kernels()
        width = max(len(r["node"]) for r in rows)
        for r in rows:
            say(f"{r['node']:{width}}  {r['op']:12} {r['kernel']}")
    for name, array in found.items():
        flat = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
        say(f"{name}  {array.dtype} {list(array.shape)}")
        if flat.shape[1] <= 1000 and array.ndim == 2:
            for i, row in enumerate(flat[:8]):
                best = np.argsort(-row)[:3]
                say(f"  sample {i}: " + ", ".join(f"{int(b)}: {row[b]:.4g}" for b in best))
    if output is not None:
        np.savez(output, **found)  # type: ignore[arg-type]
        note(f"  {output} written")
    shapes = {name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in found.items()}
    content = {"schema": "netsuke.run/1", "isa": loaded.isa, "threads": loaded.threads, "outputs": shapes}
    write_json(json, content | {"kernels": loaded.kernels()})


def register(app: typer.Typer) -> None:
    app.command()(run)
