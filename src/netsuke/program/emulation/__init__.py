"""Every operator in torch: the second implementation of docs/numerics.md, differentiable where the operator is.

Belongs here: one rule per operator, registered with `@rule("op")`. Does not belong here: the arithmetic of codes, which
is `netsuke.nn.integer`. Codes travel as integer-valued f32 tensors, so gradients pass. Integer operators give the codes
of the reference bit for bit; float operators use torch's own.
"""

from netsuke.program.emulation import binary, floats, integer, movement, recurrent
from netsuke.program.emulation.call import RULES, Call

__all__ = ["RULES", "Call", "binary", "floats", "integer", "movement", "recurrent"]
