"""The meaning of every operator in plain NumPy: what the kernels and the emulation are compared with.

Belongs here: one rule per operator, one file per group. Does not belong here: speed.
Contract: `rule(call) -> list of arrays`, registered with `@rule("op")`. Integer operators are exact (numerics.md
sections 2 to 6, bit for bit); float operators are computed in f64 and rounded to f32: the value that every
kernel must be close to, not its bits.
To add an operator: a function with `@rule("name")` in the file of its group; a test enumerates the operator table.
"""

from netsuke.program.reference import (
    binary,
    elementwise,
    floats,
    integer,
    movement,
    pooling,
    recurrent,
    resize,
    windows,
)
from netsuke.program.reference.call import RULES, Call

__all__ = [
    "RULES",
    "Call",
    "binary",
    "elementwise",
    "floats",
    "integer",
    "movement",
    "pooling",
    "recurrent",
    "resize",
    "windows",
]
