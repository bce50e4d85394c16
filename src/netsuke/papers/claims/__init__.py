"""The executable claims, one file a claim (or one family of a paper), each ending in `CLAIM = register(Claim(...))`.

A claim states what is exact and what is statistical, names its baseline, lists its seeds, and finishes within minutes
on two cores, on data that ships or is given by `--data-root`. It measures; it never writes files and never changes
global state.
"""
