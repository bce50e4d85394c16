"""`explain`: one page on one method, made from its record and its file."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from dataclasses import dataclass
from typing import Any

from netsuke.core.method import Method, find
from netsuke.pipeline.calls import call


@dataclass(frozen=True)
class Page:
    """A method, the docstring of its file, and its options with defaults."""

    method: Method
    text: str
    options: dict[str, Any]
    where: str

    def as_json(self) -> dict[str, Any]:
        keys = ("name", "purpose", "paper", "needs", "touches", "exports", "status", "cost", "tags")
        record = {k: getattr(self.method, k) for k in keys}
        return {
            "schema": "netsuke.explain/1",
            **record,
            "text": self.text,
            "options": self.options,
            "call": call(self.method),
            "file": self.where,
        }

    def __str__(self) -> str:
        m = self.method
        lines = [f"{m.name}   {m.purpose}", "", self.text.strip(), ""]
        lines += [
            "options  " + ", ".join(f"{k}={v!r}" for k, v in self.options.items()) if self.options else "options  none"
        ]
        lines += [f"needs    {', '.join(m.needs) or 'nothing'}", f"touches  {', '.join(m.touches) or 'nothing'}"]
        lines += [
            f"real as  {', '.join(m.exports) or 'adds no operator'}",
            f"status   {m.status}",
            f"cost     {m.cost or '-'}",
        ]
        lines += [f"paper    {m.paper}   netsuke papers show {m.paper}", f"code     {self.where}"]
        lines += ["", "call", *(f"  {line}" for line in call(m))]
        return "\n".join(lines)


def explain(name: str) -> Page:
    """One page on a method; UsageError with near names when there is none."""
    method = find(name)
    module = sys.modules.get(method.apply.__module__) or importlib.import_module(method.apply.__module__)
    options = {}
    for field in dataclasses.fields(method.config):
        known = field.default is not dataclasses.MISSING
        options[field.name] = field.default if known else "required"
    return Page(method, inspect.getdoc(module) or "", options, module.__name__.replace(".", "/") + ".py")
