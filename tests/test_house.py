"""The rules of the house: imports point one way, the package imports light, every room has its index card."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import netsuke

PACKAGE = Path(netsuke.__file__).parent
# In the order data walks through them; a room may import itself and rooms before it.
ROOMS = (
    "core", "formats", "data", "nn", "models", "capture", "methods", "program", "passes",
    "engine", "verify", "measure", "report", "pipeline", "papers", "cli",
)  # fmt: skip
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "scipy", "sklearn", "rich", "typer", "PIL", "pandas")


def imported_rooms(path: Path) -> set[str]:
    """Rooms named by any import statement of a file, at any depth of nesting."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.split(".")[1] for name in names if name.startswith("netsuke.")} & set(ROOMS)


def room_files() -> list[tuple[str, Path]]:
    return [(room, path) for room in ROOMS for path in sorted((PACKAGE / room).rglob("*.py"))]


def test_every_folder_is_a_known_room() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_has_an_index_card(room: str) -> None:
    card = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert card, f"{room}/__init__.py has no docstring"
    assert len(card.splitlines()) >= 3, f"the index card of {room} says too little"


def test_imports_point_one_way() -> None:
    backwards = [
        f"{path.relative_to(PACKAGE)} ({room}) imports {other}"
        for room, path in room_files()
        for other in imported_rooms(path)
        if ROOMS.index(other) > ROOMS.index(room)
    ]
    assert not backwards, "\n".join(backwards)


def test_import_is_light() -> None:
    code = "import sys, netsuke; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & set(HEAVY)


def test_files_stay_readable() -> None:
    """Long files are places to look; this bound is the outer limit, the aim is 300 lines."""
    long = {
        str(path.relative_to(PACKAGE)): count
        for _, path in room_files()
        if (count := len(path.read_text().splitlines())) > 450
    }
    assert not long, long
