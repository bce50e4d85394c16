import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsuke.core.errors import FileError, UsageError
from netsuke.core.plan import GRANULARITIES, STATUSES, Plan, Row

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
rows = st.builds(
    Row,
    name=text,
    op=text,
    weight_bits=st.sampled_from([None, 4, 8, 32]),
    activation_bits=st.sampled_from([8, 32]),
    method=text,
    granularity=st.sampled_from(GRANULARITIES),
    status=st.sampled_from(STATUSES),
    macs=st.none() | st.integers(0, 2**40),
    bytes_before=st.integers(0, 2**40),
    expected_ms=st.none() | st.floats(0, 1e6),
    sqnr_db=st.none() | st.floats(-50, 200) | st.just(math.inf),
    reason=text,
)


def sample() -> Plan:
    packed = Row(
        "layer1.0.conv1", "Conv", 8, 8, "quantize/minmax", "maxabs", "channel", "qconv", "packed", 900, 400, 108
    )
    other = Row("layer4.1.conv2", "Conv", 8, 8, "quantize/mse", "maxabs", "channel", "qconv", "packed", 900, 400, 108)
    return Plan([packed, other, Row("head", "Gemm", 32, bytes_before=40, bytes_after=40, reason="last layer")], "net")


@given(
    st.lists(rows, max_size=4), text, st.dictionaries(st.text("abc", min_size=1, max_size=3), text | st.integers(0, 9))
)
def test_toml_round_trip(made, network, data):
    plan = Plan(made, network, data=data, notes=["a note"])
    again = Plan.from_toml(plan.to_toml())
    assert again == plan
    assert again.to_toml() == plan.to_toml()


def test_glob_edit_sets_every_matching_row():
    plan = sample()
    plan["layer*"].bits = 4
    assert [r.weight_bits for r in plan] == [4, 4, 32]
    assert plan["layer1.0.conv1"].activation_bits == 4
    assert len(plan["layer*"]) == 2


def test_exact_name_wins_over_glob_characters():
    plan = Plan([Row("a[0]", "Conv"), Row("a0", "Conv")])
    plan["a[0]"].reason = "here"
    assert [r.reason for r in plan] == ["here", ""]


def test_unmatched_name_and_field_name_near_ones():
    plan = sample()
    with pytest.raises(UsageError, match=r"did you mean .*layer4\.1\.conv2"):
        plan["layer4.1.conv"].bits = 8
    with pytest.raises(UsageError, match="method"):
        plan["head"].methd = "keep"


def test_bits_of_a_layer_without_weights_leave_weight_bits_alone():
    row = Row("add", "Add")
    row.bits = 8
    assert (row.weight_bits, row.activation_bits) == (None, 8)


def test_validate_lists_all_problems_at_once():
    plan = sample()
    plan["layer1.0.conv1"].bits = 9
    plan["layer4.1.conv2"].granularity = "group"
    plan.requant = "exact"

    def check(method):
        raise UsageError(f"unknown {method}")

    with pytest.raises(UsageError) as caught:
        plan.validate({"layer1.0.conv1", "head", "stem"}, check)
    found = str(caught.value)
    for part in (
        "activation_bits",
        "granularity",
        "requant",
        "no such layer",
        "no row for this layer",
        "unknown",
    ):
        assert part in found
    assert "nothing was run" in found
    assert len(caught.value.problems) == 8


def test_validate_accepts_a_good_plan_and_refuses_duplicates():
    plan = sample()
    plan.validate({r.name for r in plan}, str)
    plan.rows.append(Row("head", "Gemm"))
    with pytest.raises(UsageError, match="two rows"):
        plan.validate()


def test_reading_lists_unknown_keys_missing_keys_and_wrong_types():
    bad = 'version = 1\nfoo = 1\nseed = "x"\n[[layer]]\nname = "a"\nop = "b"\nmacs = true\n[[layer]]\nop = "c"\n'
    with pytest.raises(UsageError) as caught:
        Plan.from_toml(bad)
    assert len(caught.value.problems) == 4
    with pytest.raises(UsageError, match="version"):
        Plan.from_toml("version = 2")
    with pytest.raises(UsageError, match="not TOML"):
        Plan.from_toml("= =")


def test_save_and_load(tmp_path):
    path = tmp_path / "plan.toml"
    sample().save(path)
    assert Plan.load(path) == sample()
    with pytest.raises(FileError):
        Plan.load(tmp_path / "none.toml")


def test_table_shows_rows_counts_bytes_and_notes():
    plan = sample()
    plan.note("look here")
    plan.note("look here")
    assert plan.notes == ["look here"]
    shown = str(plan)
    assert "w8a8" in shown
    assert "last layer" in shown
    assert "3 layers: 2 packed, 0 simulated, 1 float; weights 840 -> 256 bytes" in shown
    assert shown.endswith("note: look here")


def test_curve_is_read_back_and_shown_and_bad_points_are_refused():
    plan = sample()
    plan.curve = [{"name": "chosen", "kind": "size", "cost": 1200.0, "harm": 0.5, "formats": "w4a8x2"}]
    assert Plan.from_toml(plan.to_toml()) == plan
    assert "chosen" in str(plan)
    assert "1,200" in str(plan)
    assert "curve" not in plan.to_toml(measured=False)
    bad = plan.to_toml().replace("cost = 1200.0", 'cost = "much"')
    with pytest.raises(UsageError, match="curve 1"):
        Plan.from_toml(bad)
