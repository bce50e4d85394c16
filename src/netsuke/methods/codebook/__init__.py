"""Weights as indices into a small table of values.

Belongs here: codebooks, how their entries and assignments are found. Does not belong here: uniform grids
(`quantize`), the compiler, the file format.
Contract: `Codebook` (in `_codebook`) is entries, assignment and their packed form; a method is a step of
post-training quantization with the signature of the room `quantize` (tags "weights", "learned"): it sets the
context's scales and codes, codes being table values on the 8-bit grid, so that every kernel runs them. The file holds
indices and entries (docs/format.md section 3, `netsuke.formats.codebook`), found by its writer and decoded when it is
loaded: vectors lie along the input channels, the last axis of stored weights. To add: a file with a record; its test in
tests/methods/codebook.
"""
