"""Number formats as pure NumPy functions: the arithmetic of docs/numerics.md, one formula per function.

Belongs here: codes, scales, rounding, requantization, tables, bit packing, few vectors (`codebook`), bfloat16, floats
of 4 to 8 bits, groups of weights, the accumulator bound; formats of weights that are whole 8-bit codes (`forms`).
Does not belong here: choosing a scale from data (`netsuke.methods.quantize`), graphs (`netsuke.program`),
torch (`netsuke.nn`).
Contract: no state, no torch, arrays in and arrays out; every function names the section of numerics.md it implements
and has a property test against an independent oracle (Python integers, fractions or torch).
To add a format: one file, its section in docs/numerics.md, its test in tests/formats, its mirror in runtime/formats.
"""

from netsuke.formats.bfloat16 import bf16_to_f32, f32_to_bf16, round_bf16
from netsuke.formats.bits import pack_bits, spare_bits_clear, unpack_bits, word_count
from netsuke.formats.bound import ACC_LIMIT, accumulator_bound, matmul_bound
from netsuke.formats.integer import (
    clamp,
    dequantize,
    dyadic,
    fma,
    make_multiplier,
    make_table,
    quantize,
    quantize_weights,
    requantize,
    requantize_dyadic,
    requantize_f32,
    rne,
    shift_rne,
    single_multiplier,
)
from netsuke.formats.minifloat import E2M1, E3M2, E4M3, E5M2, MINIFLOATS, Minifloat, round_minifloat, search_bias
from netsuke.formats.packing import (
    STORED_BITS,
    fewest_bits,
    pack,
    pack_codes,
    packed_bytes,
    unpack,
    unpack_codes,
)
from netsuke.formats.weight_only import (
    bf16_activations,
    dynamic_linear,
    groups_of,
    quantize_activations,
    quantize_groups,
)

__all__ = [
    "ACC_LIMIT",
    "E2M1",
    "E3M2",
    "E4M3",
    "E5M2",
    "MINIFLOATS",
    "STORED_BITS",
    "Minifloat",
    "accumulator_bound",
    "bf16_activations",
    "bf16_to_f32",
    "clamp",
    "dequantize",
    "dyadic",
    "dynamic_linear",
    "f32_to_bf16",
    "fewest_bits",
    "fma",
    "groups_of",
    "make_multiplier",
    "make_table",
    "matmul_bound",
    "pack",
    "pack_bits",
    "pack_codes",
    "packed_bytes",
    "quantize",
    "quantize_activations",
    "quantize_groups",
    "quantize_weights",
    "requantize",
    "requantize_dyadic",
    "requantize_f32",
    "rne",
    "round_bf16",
    "round_minifloat",
    "search_bias",
    "shift_rne",
    "single_multiplier",
    "spare_bits_clear",
    "unpack",
    "unpack_bits",
    "unpack_codes",
    "word_count",
]
