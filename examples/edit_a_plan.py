"""Bits per layer within a budget of bytes, then a decision of one's own, then the network.

python examples/edit_a_plan.py
"""

from __future__ import annotations

import netsuke as nk
from netsuke.data import load_data


def main() -> None:
    calib, test = load_data("digits:train").take(128), load_data("digits:test")
    plan = nk.plan("models:digits_cnn", calib=calib, recipe="cpu-mixed", budget=nk.Budget(size="0.3x"))
    plan["block1.*"].bits = 8  # a pattern that matches nothing is an error with near names
    plan.save("plan.toml")  # a table to read, edit and replay
    for row in plan.rows:
        print(f"{row.name:20} weights {row.weight_bits} activations {row.activation_bits}  {row.reason}")
    print(nk.compress("models:digits_cnn", "plan.toml", calib=calib, evaluate=test).summary())


if __name__ == "__main__":
    main()
