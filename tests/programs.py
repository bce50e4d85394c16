"""Runs a program as a user would: a process of its own in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run(command: Sequence[str], folder: Path, *, seconds: int = 900, **first: str) -> str:
    """What the program printed; fails with all of its output unless it ends with 0.

    first  environment variables that are lists of paths (PATH, PYTHONPATH): this one is put in front
    """
    lists = {key: os.pathsep.join(filter(None, [path, os.environ.get(key)])) for key, path in first.items()}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **lists}, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
