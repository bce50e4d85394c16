"""Weights as indices into a small table of values.

Belongs here: codebooks, how their entries and assignments are found. Does not belong here: uniform grids
(`quantize`), the compiler, the file format.
Contract: `Codebook` (in `_codebook`) is entries, assignment and their packed form; a method is a step of
post-training quantization with the signature of the room `quantize` (tags "weights", "learned"): it sets the
context's scales and codes, codes being table values on the 8-bit grid, so that every kernel runs them. Stored as
indices they take the bytes that `Codebook.stored_bytes` says; program files keep the decoded codes so far, and the
rows and notes of the plan say so. To add: a file with a record; its test in tests/methods/codebook.
"""
