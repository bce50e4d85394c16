"""The six tracks of BiBench as a Markdown table and as a page in the style of the reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from netsuke.report.charts import Bar, paired_bars
from netsuke.report.page import asset

TRACKS = ("task", "architecture", "robustness", "training", "complexity", "inference")
_ABOUT = {
    "task": "Score on each task over the float network's, quadratic mean over tasks.",
    "architecture": "The same over convolutional, transformer and perceptron networks.",
    "robustness": "Score lost to corruptions by the float network over that lost by the binary one.",
    "training": "CPU seconds, and deviation of the score over learning rates, float over binary.",
    "complexity": "Operations and weight bytes on paper, float over binary.",
    "inference": "Measured milliseconds and bytes of the compiled file, float over binary.",
}


def table(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: overall metrics, milliseconds and speed-up on each instruction set, bytes of the file."""
    isas = result["machine"]["isas"]
    header = ["binarizer", *TRACKS, *(f"ms {isa}" for isa in isas), *(f"speed-up {isa}" for isa in isas), "file bytes"]
    rows = []
    for name, row in result["binarizers"].items():
        times = [row["ms"][isa] for isa in isas]
        cells = [f"{row['overall'][track]:.2f}" for track in TRACKS]
        cells += [f"{after:.3f}" for _, after in times] + [f"{before / after:.1f}x" for before, after in times]
        rows.append([name, *cells, f"{row['bytes']:,}"])
    return header, rows


def scores(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: accuracy in per cent of every network, the float one first."""
    keys = list(result["float"]["scores"])
    every = {"float": result["float"], **result["binarizers"]}
    rows = [[name, *(f"{100 * row['scores'][key]:.1f}" for key in keys)] for name, row in every.items()]
    return ["binarizer", *keys], rows


def markdown(result: Mapping[str, Any]) -> str:
    """Both tables, and what was left out, as Markdown."""
    lines = [f"# BiBench on {result['machine']['cpu']}", ""]
    for title, (header, rows) in (("Overall metrics", table(result)), ("Accuracy, per cent", scores(result))):
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    lines += [f"Left out: {name}: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f'<td class="number">{escape(c)}</td>' for c in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table id="layers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _chart(result: Mapping[str, Any], track: str) -> str:
    bars = []
    for name, row in result["binarizers"].items():
        value = row["overall"][track]
        bars.append(Bar(name, None, value, f"{name}: {value:.3f}", "ours"))
    chart = paired_bars(bars, track, left=110, width=500) if bars else '<p class="quiet">Nothing measured.</p>'
    return f"<div><h3>{track}</h3><p>{_ABOUT[track]}</p>{chart}</div>"


def html(result: Mapping[str, Any]) -> str:
    """One self-contained page: a chart a track, both tables, conditions, the data as JSON."""
    charts = "".join(_chart(result, track) for track in TRACKS)
    left = "".join(f"<li>{escape(n)}: {escape(r)}</li>" for n, r in result["left_out"].items())
    where = f"{result['machine']['cpu']}, one thread, {', '.join(result['machine']['isas'])}"
    told = ", ".join(f"{k} {v}" for k, v in result["conditions"].items())
    data = json.dumps(result, allow_nan=False).replace("<", "\\u003c")
    sections = [
        "<section><h2>Six tracks</h2><p>Higher is better; 1 is the float network.</p>"
        f'<div class="pair">{charts}</div></section>',
        f"<section><h2>Overall metrics</h2>{_html_table(*table(result))}</section>",
        f"<section><h2>Accuracy, per cent</h2>{_html_table(*scores(result))}</section>",
        f"<section><h2>Left out</h2><ul>{left}</ul></section>" if left else "",
        f"<section><h2>Conditions</h2><p>{escape(told)}</p></section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>BiBench · netsuke report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<style>{asset('style.css')}</style></head><body><header>"
        f'<div class="top"><p class="brand">netsuke<span>report</span></p></div><h1>BiBench</h1>'
        f'<pre class="summary">{escape(where)}</pre></header><main>{"".join(sections)}</main>'
        f'<script type="application/json" id="data">{data}</script></body></html>\n'
    )
