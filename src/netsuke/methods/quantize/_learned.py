"""What learned methods have in common: checks of their options, and of torch being there."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from netsuke.core.errors import EnvironmentProblem, Problem, UsageError

TORCH = "pip install netsuke[torch], or leave the step out"
CHOICES = {
    "grid": ("uniform", "codebook"),
    "inputs": ("quantized", "float"),
    "loss": ("l2", "l1", "fisher"),
    "variable": ("rounding", "weight"),
    "optimiser": ("adam", "sgd"),
    "unit": ("layer", "block"),
}
LEAST = {"iterations": 1, "batch": 1, "samples": 1, "block": 1}


def require_torch(where: str) -> None:
    """EnvironmentProblem when torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentProblem(Problem("the step optimises with torch, which is not installed", where, hint=TORCH))


def check(where: str, config: Any) -> None:
    """UsageError listing every option of the config that cannot be."""
    problems = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name in CHOICES and value not in CHOICES[item.name]:
            problems.append(Problem(item.name, where, str(value), ", ".join(CHOICES[item.name])))
        elif item.name in LEAST and value < LEAST[item.name]:
            problems.append(Problem(item.name, where, str(value), f"at least {LEAST[item.name]}"))
        elif isinstance(value, float) and not 0 <= value < float("inf"):
            problems.append(Problem(item.name, where, str(value), "a finite number of at least 0"))
        elif item.name in ("drop", "alpha") and value > 1:
            problems.append(Problem(item.name, where, str(value), "a share in [0, 1]"))
    if problems:
        raise UsageError(problems)
