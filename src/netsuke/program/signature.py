"""The notation of the operator table: what an input, an attribute and an operator are, and their text in the docs.

An input is written `name:dtypes shape`, dtypes separated by `|`, followed by its marks:
`!` must be a constant of the file, `~` must be known (constant or computed from shapes alone), `?` may be absent (""),
`*` one or more of it. `=a` as dtype means the dtype of input a.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from netsuke.program.model import DTYPES

ANY = tuple(d for d in DTYPES if d != "bf16")
REQUIRED = object()
MANY = 2**20  # no stride, pad or window of a real network comes near; keeps every product of sizes inside int64
_RANGE_WORDS: dict[tuple[float | None, float | None], str] = {(0, 255): "code", (0, 1): "flag"}


@dataclass(frozen=True)
class Attr:
    """One attribute: kind int, float, str, ints or floats; bounds of each element; length of a list; allowed words.

    default REQUIRED: must be written. default None: may be absent and then means what the operator's note says.
    """

    kind: str
    default: object = REQUIRED
    low: float | None = None
    high: float | None = None
    length: int | None = None
    choices: tuple[str, ...] = ()
    positive: bool = False

    def text(self) -> str:
        """Type, range and default for the table of docs/format.md."""
        words = self.kind if self.length is None else f"{self.kind}[{self.length}]"
        if self.choices:
            words = "/".join(self.choices)
        elif self.positive:
            words += " > 0"
        elif (self.low, self.high) in _RANGE_WORDS:
            words = _RANGE_WORDS[self.low, self.high]
        elif self.high is not None and self.high < MANY:
            words += f" {self.low:g}..{self.high:g}"
        elif self.low is not None:
            words += f" >= {self.low:g}"
        if self.default is None:
            return words + ", optional"
        if self.default is REQUIRED:
            return words
        default = self.default
        return words + " = " + (str(default).replace(" ", "") if isinstance(default, list) else f"{default}")


@dataclass(frozen=True)
class Input:
    """One input of an operator, parsed from the notation in the module's docstring."""

    name: str
    dtypes: tuple[str, ...]
    shape: str
    constant: bool
    known: bool
    optional: bool
    many: bool

    def text(self) -> str:
        dtypes = "any" if self.dtypes == ANY else "/".join(self.dtypes).replace("=", "as ")
        words = f"{self.name} {dtypes}" + (self.shape and " " + self.shape)
        words += " constant" if self.constant else " known" if self.known else ""
        return words + (' or ""' if self.optional else "") + ("..." if self.many else "")


@dataclass(frozen=True)
class Operator:
    """An operator: inputs and outputs in the notation above, its attributes, its group in the docs."""

    name: str
    group: str
    inputs_text: str
    outputs_text: str
    attrs: dict[str, Attr]
    note: str = ""

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(_parse_input(text) for text in self.inputs_text.split(", ")) if self.inputs_text else ()

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Output names; "?" at the end of a name marks an output that may be left out, "*" one or more."""
        return tuple(text.split(":")[0] for text in self.outputs_text.split(", "))

    def row(self) -> str:
        """The operator's row in docs/format.md."""
        takes = ", ".join(i.text() for i in self.inputs)
        gives = ", ".join(_output_text(text) for text in self.outputs_text.split(", "))
        attrs = "; ".join(f"`{key}` {attr.text()}" for key, attr in self.attrs.items())
        return f"| {self.name} | {takes} -> {gives} | {attrs} |"


def _parse_input(text: str) -> Input:
    match = re.fullmatch(r"(\w+):([\w|=]+)([!~?*]*)(?: (.+))?", text)
    if match is None:
        raise ValueError(f"operator table: cannot read input {text!r}")
    name, dtypes, marks, shape = match.groups()
    kinds = ANY if dtypes == "any" else tuple(dtypes.split("|"))
    return Input(name, kinds, shape or "", "!" in marks, "~" in marks, "?" in marks, "*" in marks)


def _output_text(text: str) -> str:
    name, _, rest = text.partition(":")
    optional, many = name.endswith("?"), name.endswith("*")
    return rest.replace("|", "/") + (" (may be left out)" if optional else "") + ("..." if many else "")
