"""A layer's rate is held against the limit of the arithmetic it does."""

from __future__ import annotations

import pytest

from netsuke.measure.layers import rate
from netsuke.measure.machine import Limits

LIMITS = Limits("avx512vnni", 100.0, 200.0, 250.0, 500.0, 400.0, 200.0, 100.0, 40.0, bit_gmacs=2000.0)


@pytest.mark.parametrize(
    ("op", "kernel", "share"),
    [
        ("bconv", "bconv_a1w1_x86_avx512vpopcntdq_6x32", 0.05),
        ("blinear", "blinear_a1w1_x86_avx2_4x64", 0.05),
        ("qconv", "qconv_a8w8_x86_avx512vnni_12x32", 0.2),
        ("wlinear", "wlinear_a8w4_x86_avx512vnni", 0.2),
        ("wlinear", "wlinear_bf16w4_x86_avx512bf16", 0.5),
        ("conv", "conv_f32_x86_avx512vnni", 1.0),
    ],
)
def test_each_kind_of_layer_has_its_limit(op: str, kernel: str, share: float) -> None:
    row = {"op": op, "kernel": kernel, "ms": 1.0, "macs": 1e8, "bytes": 1e3}  # 100 GMAC/s
    found = rate(row, LIMITS, threads=1)
    assert found["of_limit"] == pytest.approx(share)
    assert found["bound_by"] == "arithmetic"
