"""Qin et al. 2023, "BiBench: Benchmarking and Analyzing Network Binarization".

Paper: binarization operators compared over six tracks with quadratic means as overall metrics. Checked: the runner, on
every registered binarizer, six networks on four tasks, nine trainings each. Exact: every binarizer is in the table or
left out with its reason; all eight operators of the paper are in it, with six finite metrics; their three convolutions
run at one bit on every instruction set of this machine; the overall metrics follow from the figures by the formulas,
and those give 0.728 for ratios 0.9 and 0.5. Statistical: on the best instruction set the slowest of the eight is faster
than float, and its file is an eighth of the float one at most.
"""

from __future__ import annotations

import math
from typing import Any

from netsuke.papers.claim import Claim, Compare, Context, Outcome, register

OPERATORS = ("bnn", "xnor_net", "dorefa", "bi_real", "xnor_net_pp", "reactnet", "recu", "fda")
STEPS = 60


def _recomputed(result: dict[str, Any]) -> bool:
    """OM_task and OM_inf of every row from the formulas, written out here once more."""
    plain, good = result["float"], True
    for row in result["binarizers"].values():
        ratios: dict[str, list[float]] = {}
        for key, score in row["scores"].items():
            ratios.setdefault(key.split("/")[0], []).append(score / plain["scores"][key])
        means = [sum(v) / len(v) for v in ratios.values()]
        task = math.sqrt(sum(m * m for m in means) / len(means))
        speed = sum(before / after for before, after in row["ms"].values()) / len(row["ms"])
        inference = math.sqrt((speed**2 + (plain["bytes"] / row["bytes"]) ** 2) / 2)
        pairs = ((row["overall"]["task"], task), (row["overall"]["inference"], inference))
        good = good and all(math.isclose(a, b, rel_tol=1e-9) for a, b in pairs)
    return good


def measure(context: Context, seed: int) -> Outcome:
    """The whole runner."""
    from netsuke.pipeline import bibench, bibench_metrics
    from netsuke.report.bibench import html, markdown

    result = bibench.run(steps=STEPS, seed=seed, say=context.progress)
    rows, isas = result["binarizers"], result["machine"]["isas"]
    eight = [rows[name] for name in OPERATORS if name in rows]
    page, text = html(result), markdown(result)
    best = isas[-1]
    return Outcome(
        exact={
            "every binarizer is in the table or left out with a reason": set(rows) | set(result["left_out"])
            == set(bibench.names())
            and all(result["left_out"].values()),
            "the eight operators of the paper, six finite metrics each": len(eight) == 8
            and all(len(r["overall"]) == 6 and all(map(math.isfinite, r["overall"].values())) for r in eight),
            "one-bit kernels on every instruction set": all(
                r["one_bit_layers"] == 3 and set(r["ms"]) == set(isas) for r in eight
            ),
            "overall metrics follow from the figures": _recomputed(result)
            and abs(bibench_metrics.tasks({"a": [0.9], "b": [0.5]}) - 0.728) < 5e-4,
            "page and table show every binarizer": all(name in page and f"| {name} |" in text for name in rows),
        },
        figures={
            "binarizers": float(len(rows)),
            "least_speedup": min(r["ms"][best][0] / r["ms"][best][1] for r in eight),
            "largest_share_of_float_file": max(r["bytes"] / result["float"]["bytes"] for r in eight),
            "size_margin": 0.125 - max(r["bytes"] / result["float"]["bytes"] for r in eight),
            **{f"task_{name}": rows[name]["overall"]["task"] for name in OPERATORS if name in rows},
            **{f"inference_{name}": rows[name]["overall"]["inference"] for name in OPERATORS if name in rows},
        },
    )


CLAIM = register(
    Claim(
        id="bibench/six-tracks",
        paper="bibench",
        sentence="Every registered binarizer goes through six tracks with measured kernels and files.",
        baseline="the float network of each task, trained alike and run by the same engine",
        measure=measure,
        compares=(Compare("least_speedup", "", 1.0), Compare("size_margin")),
        seeds=(0,),
        minutes=4,
        methods=tuple(f"binarize/{name}" for name in OPERATORS),
    )
)
