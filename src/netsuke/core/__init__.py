"""Words that every room uses: errors, the `Method` record and its registry, `Plan`, `Budget`, `Recipe`, seeds.

Belongs here: small value types and pure functions without knowledge of any method, graph or array library beyond NumPy.
Does not belong here: anything that reads a network, touches data or runs code of a method.
Contract: imports only the standard library, NumPy and tomli_w; no torch, no ONNX; nothing here imports another room.
To add: one file per word, its tests in tests/core, and a line here.

    errors   Problem, the exception classes and their exit codes, near()
    method   Method, register(), find(), methods()
    plan     Plan, Row: what is done to each layer, as an editable file
    budget   Budget: what may be lost, what must be won, how long it may take
    recipe   Recipe, Step: named lists of steps "room/method:options"
    options  text to typed options of a method's config
    seeds    generator(): independent random streams from one seed
"""
