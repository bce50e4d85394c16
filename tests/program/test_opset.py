"""docs/format.md and the operator table are the same table."""

import re
from pathlib import Path

from netsuke.program.opset import OPERATORS, tables

DOCS = Path(__file__).parents[2] / "docs" / "format.md"


def test_format_md_holds_the_generated_tables():
    text = DOCS.read_text(encoding="utf-8")
    inside = re.search(r"<!-- operators: begin -->\n(.*)<!-- operators: end -->", text, re.DOTALL)
    assert inside, "docs/format.md has lost its operator markers"
    assert inside[1] == tables(), "run: python -m netsuke.program.opset, and put its output between the markers"


def test_rows_name_every_attribute_and_input():
    for operator in OPERATORS.values():
        row = operator.row()
        assert all(f"`{key}`" in row for key in operator.attrs)
        assert all(item.name in row for item in operator.inputs)


def test_rules_name_only_operators_that_exist():
    text = DOCS.read_text(encoding="utf-8").split("Rules that the tables do not hold:")[1]
    others = ("act", "quant_scale", "quant_zero", "their dyadic forms")
    for group in re.findall(r"^- \*\*([a-z_, ]+)\*\*", text, re.MULTILINE):
        for name in group.replace(" and ", ", ").split(", "):
            assert name in OPERATORS or name in others, name
