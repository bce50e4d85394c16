"""The program: what a .nsk file holds, its operator set, its reader and writer, and slow, sure ways to run it.

Belongs here: the data model (`model`), the operator table (`opset`, `signature`), file and JSON (`file`,
`model_json`; `storage`: how constants are packed), the checks (`verify`, `checks`, `ranges`), the reference
interpreter (`interpreter`, `reference/`), the torch emulation (`emulate`, `emulation/`). Random programs for the
differential fuzzer are in tests/fuzz.
Does not belong here: making programs (`netsuke.passes`), fast execution (`netsuke.engine`).
Contract: docs/format.md and docs/numerics.md are the specification; `opset` generates the tables of format.md; every
operator has a rule in the interpreter.
To add an operator: its row in `opset`, its arithmetic in docs/numerics.md, its rule in `reference/`, its check, its
kernel, its place in tests/fuzz.
"""

from netsuke.program.file import from_bytes, read, to_bytes, write
from netsuke.program.model import Node, Port, Program, Value
from netsuke.program.storage import stored_bits, stored_bytes
from netsuke.program.verify import verify

__all__ = [
    "Node",
    "Port",
    "Program",
    "Value",
    "from_bytes",
    "read",
    "stored_bits",
    "stored_bytes",
    "to_bytes",
    "verify",
    "write",
]
