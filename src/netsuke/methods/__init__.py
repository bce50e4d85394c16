"""The catalogue of methods: one room per kind, one file per method.

Belongs here: transforms of networks and rules that choose bits, ranges, masks. Every file ends with a `Method` record.
Does not belong here: kernels, program operators, timing, file formats of the result.
Contract: a file's header names the paper, the idea, the equations as implemented, the differences, the cost and
the limits; importing a record loads no torch; files starting with an underscore are helpers of their room and hold
no record.
To add: a file in a room (its `__init__` fixes the signature of `apply`), its test in tests/methods/<room>, a row
in the ledger.
"""
