"""The registry of methods."""

from __future__ import annotations

import pytest

from netsuke.core.errors import UsageError
from netsuke.core.method import methods


def test_methods_by_pattern_and_by_room() -> None:
    table = methods("bits/*")
    assert table == methods("bits")
    assert all(name.startswith("bits/") for name in table)
    with pytest.raises(UsageError, match="quantize"):
        methods("qantize")
