"""The differential fuzzer: random programs, run by the interpreter, the torch emulation and the engine on every ISA.

python -m tests.fuzz --graphs 500 --family both
"""
