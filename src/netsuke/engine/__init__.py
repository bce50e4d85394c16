"""The Python face of the runtime: load a program, run it, profile it, ask which kernel ran.

Belongs here: `engine` (the Engine class and `load`), `native` (finding the compiled module and its instruction sets).
Does not belong here: arithmetic and checks of files (runtime/ in C++), the slow reference
(`netsuke.program.interpreter`), timing of whole engines beside each other (`netsuke.measure`).
Contract: nothing is converted, padded or cast on the way in; a wrong input is a UsageError that lists what is expected.
Results do not depend on threads, on the instruction set, or on other runs at the same time.
To add something: it is first a function of runtime/graph, then a binding, then a thin method here.
"""

from netsuke.engine.engine import Engine, load
from netsuke.engine.native import instruction_sets

__all__ = ["Engine", "instruction_sets", "load"]
