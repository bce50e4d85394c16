"""The support matrix is what the runtime answers."""

import pytest

from netsuke.engine.native import instruction_sets
from netsuke.engine.support import support


@pytest.fixture(scope="module")
def rows():
    return {(r.layer, r.weights, r.activations): r for r in support()}


def test_every_integer_width_is_packed_on_every_instruction_set(rows):
    here = {name for name, present in instruction_sets().items() if present}
    for layer in ("conv", "depthwise conv", "linear"):
        for bits in (8, 6, 5, 4, 3, 2, 1):
            row = rows[layer, f"int{bits}", "uint8"]
            assert (row.status, row.stored, set(row.kernels)) == ("packed", bits, here)


@pytest.mark.parametrize(
    ("form", "bits"), [("e4m3", 8), ("e5m2", 8), ("e3m2", 6), ("e2m1", 4), ("int3", 3), ("int2", 2)]
)
def test_weight_only_formats_are_stored_at_their_bits(rows, form, bits):
    row = rows["linear, weights in groups", form, "float32"]
    assert (row.status, row.stored) == ("packed", bits)
    assert all(kernel.startswith("wlinear_f32") for kernel in row.kernels.values())
    rounded = rows["linear, weights in groups", form, "float32 -> bfloat16"]
    assert (rounded.status, rounded.stored, set(rounded.kernels)) == ("packed", bits, set(row.kernels))
    assert all(kernel.startswith("wlinear_bf16") for kernel in rounded.kernels.values())


def test_what_no_operator_takes_is_simulated(rows):
    for layer in ("conv", "depthwise conv"):
        for form in ("int4 in groups", "e4m3"):
            assert (rows[layer, form, "float32"].status, rows[layer, form, "float32"].kernels) == ("simulated", {})


def test_codebooks_take_the_bits_of_their_indices_and_are_decoded_at_load(rows):
    here = {name for name, present in instruction_sets().items() if present}
    for layer in ("conv", "depthwise conv", "linear"):
        for form, bits in (("16 x 1 int8", 4), ("8 x 1 int8", 3), ("16 x 4 int8", 1)):
            row = rows[layer, form, "uint8"]
            assert (row.status, row.stored, row.loaded, set(row.kernels)) == ("packed", bits, "decoded", here)
    assert rows["conv", "64 x 4 float32", "float32"].loaded == "decoded"
    assert rows["conv", "int4", "uint8"].loaded == ""
