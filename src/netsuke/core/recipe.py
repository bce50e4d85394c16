"""`Recipe`: a named list of steps "room/method:options", in the order in which they run.

A recipe is either one of the built-in names (`cpu-int8`; `cpu-w4a8` and any other pair of widths from 2 to 8), a list
of steps, or a TOML file with `name` and `steps`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from netsuke.core.errors import FileError, Problem, UsageError, near
from netsuke.core.options import Scalar, format_options, parse_options

DEFAULT = "cpu-int8"
BUILTIN: dict[str, tuple[str, ...]] = {
    "cpu-int8": ("quantize/whitepaper_int8", "quantize/bias_correction"),
    "cpu-int8-dyadic": ("quantize/whitepaper_int8", "quantize/bias_correction", "quantize/dyadic"),
    "cpu-mixed": (
        "quantize/uniform:weight_bits=8,activation_bits=8",
        "quantize/bias_correction",
        "bits/search",
    ),
    "cpu-int8-equalized": ("quantize/equalization", "quantize/whitepaper_int8", "quantize/bias_correction"),
    **{f"weight-only-int{bits}": (f"quantize/weight_only:bits={bits}",) for bits in (8, 4, 3, 2)},
    **{f"weight-only-int{bits}-bf16": (f"quantize/weight_only:bits={bits},compute=bf16",) for bits in (8, 4, 3, 2)},
}
_WIDTHS = re.compile(r"w(\d+)a(\d+)")
BITS = range(2, 9)


def uniform(bits: str) -> str:
    """The name of the uniform recipe of "w4a8", or of "4" (weights and activations); UsageError lists what is wrong."""
    text = bits.strip().lower()
    match = _WIDTHS.fullmatch(text) or _WIDTHS.fullmatch(f"w{text}a{text}")
    widths = [int(part) for part in match.groups()] if match else []
    problems = [Problem("bits", got=str(w), allowed="2 to 8") for w in dict.fromkeys(widths) if w not in BITS]
    if not match:
        problems = [Problem("bits", got=repr(bits), allowed="like 4 or w4a8")]
    if problems:
        raise UsageError(problems)
    return f"cpu-w{widths[0]}a{widths[1]}"


def _builtin(name: str) -> tuple[str, ...] | None:
    """Steps of a built-in recipe; "cpu-w4a8" names weight and activation bits."""
    if name in BUILTIN:
        return BUILTIN[name]
    if not (name.startswith("cpu-") and _WIDTHS.fullmatch(name.removeprefix("cpu-"))):
        return None
    weight, activation = name.removeprefix("cpu-w").split("a")
    uniform(f"w{weight}a{activation}")
    return (f"quantize/uniform:weight_bits={weight},activation_bits={activation}", "quantize/bias_correction")


@dataclass(frozen=True)
class Step:
    """One step: the name of a method record and its options."""

    method: str
    options: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Step:
        """ "room/method" or "room/method:key=value,flag"."""
        name, _, rest = text.strip().partition(":")
        room, slash, method = name.partition("/")
        if not (room and slash and method) or "/" in method:
            raise UsageError(Problem("a step must be room/method[:options]", got=repr(text), hint="netsuke methods"))
        return cls(name, parse_options(rest, where=name))

    def __str__(self) -> str:
        return f"{self.method}:{format_options(self.options)}" if self.options else self.method


@dataclass(frozen=True)
class Recipe:
    """A name and its steps."""

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def make(cls, recipe: str | Path | Iterable[str] | Recipe) -> Recipe:
        """A recipe from a built-in name, the path of a TOML file, a list of steps, or a recipe."""
        if isinstance(recipe, Recipe):
            return recipe
        if isinstance(recipe, Path) or (isinstance(recipe, str) and recipe.endswith(".toml")):
            return cls.load(recipe)
        if isinstance(recipe, str):
            steps = _builtin(recipe)
            if steps is None:
                allowed = near(recipe, BUILTIN)
                hint = "cpu-w4a8 (any widths 2..8), a list of steps or a .toml"
                raise UsageError(Problem("unknown recipe", got=recipe, allowed=allowed, hint=hint))
            return cls(recipe, tuple(map(Step.parse, steps)))
        return cls("custom", _steps(recipe))

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read `name` and `steps` from a TOML file."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise FileError(Problem("the recipe cannot be read", where=str(path), got=str(error))) from error
        unknown = sorted(set(table) - {"name", "steps"})
        steps = table.get("steps")
        if unknown or not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            got = f"keys {', '.join(sorted(table))}"
            raise FileError(Problem("a recipe has a name and a list of steps", where=str(path), got=got))
        return cls(str(table.get("name", Path(path).stem)), _steps(steps))

    def save(self, path: str | Path) -> None:
        """Write the recipe as TOML."""
        Path(path).write_text(
            tomli_w.dumps({"name": self.name, "steps": [str(s) for s in self.steps]}), encoding="utf-8"
        )

    def __str__(self) -> str:
        return f"{self.name}: " + " -> ".join(map(str, self.steps))


def _steps(texts: Iterable[str]) -> tuple[Step, ...]:
    problems: list[Problem] = []
    steps: list[Step] = []
    for text in texts:
        try:
            steps.append(Step.parse(text))
        except UsageError as error:
            problems += error.problems
    if not steps and not problems:
        problems.append(Problem("a recipe needs at least one step", hint="cpu-int8"))
    if problems:
        raise UsageError(problems)
    return tuple(steps)
