"""From the canonical graph to the program: one rewrite per file, in the order of `pipeline`.

Belongs here: rewrites over onnx_ir graphs (lowering of Q/DQ to integer operators, layout, fusion) and the step to
`netsuke.program`. Does not belong here: reading networks (`netsuke.capture`), choosing quantizers
(`netsuke.methods`), executing (`netsuke.engine`).

Contract: a pass is a function `name(graph) -> int` that rewrites in place and returns how often it did something;
inside, program operators are nodes of the domain "netsuke" with the attributes of docs/format.md. Values keep
`meta["source"]`, the name in the user's graph. To add one: its file with the function, its line in
`compile_program`, a text-in, text-out test in tests/passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from netsuke.program.model import Program

__all__ = ["compile_program", "packed_report"]


def compile_program(
    model: ir.Model,
    *,
    name: str = "",
    plan: str = "",
    meta: Mapping[str, str] | None = None,
    taps: Iterable[str] = (),
) -> Program:
    """The program of a canonical graph (see `netsuke.capture`); `model` is not changed. Same input, same program.

    taps  names of values of the graph to give as further outputs, in the layout of the graph. A value that is
          quantized is given as its codes.
    Raises UnsupportedError for nodes that cannot be lowered, UsageError for taps that name nothing.
    """
    from netsuke.core.errors import NetsukeError, Problem, UnsupportedError
    from netsuke.passes.pipeline import run

    try:
        return run(model, name=name, plan=plan, meta=dict(meta or {}), taps=tuple(taps))
    except (NetsukeError, MemoryError):
        raise
    except Exception as error:
        # A graph no pass can make sense of: a rank that contradicts an attribute, say. The cause stays attached.
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
        raise UnsupportedError(Problem("the compiler cannot make sense of this graph", got=got)) from error


def packed_report(program: Program) -> list[dict[str, str]]:
    """One row per node: name, op, kind ("packed", "float", "simulated" or "movement") and a note.

    See `netsuke.passes.report`.
    """
    from netsuke.passes.report import packed_report as report

    return report(program)
