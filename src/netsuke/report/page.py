"""The HTML page of a report: one file, nothing loaded from anywhere."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from typing import Any

from netsuke.report.amounts import amount
from netsuke.report.charts import Bar, growth_line, paired_bars, ratio_bar

DEPARTS_DB = 20.0  # as in netsuke.verify.parity
_MOST_BARS = 40
_STATES = {"met": "Contract met", "missed": "Contract missed", "none": "No contract given"}
_COLUMNS = (
    ("name", "Layer", "text"),
    ("op", "Op", "text"),
    ("kernel", "Runs as", "text"),
    ("status", "Status", "text"),
    ("weight_bits", "Weight bits", "number"),
    ("activation_bits", "Act. bits", "number"),
    ("bytes_before", "Bytes before", "number"),
    ("bytes", "Bytes", "number"),
    ("macs", "MMAC", "number"),
    ("ms_before", "ms before", "number"),
    ("ms", "ms", "number"),
    ("sqnr_db", "SQNR dB", "number"),
    ("sensitivity_db", "Alone dB", "number"),
    ("reason", "Why", "text"),
)


def asset(name: str) -> str:
    """A file of this package as text."""
    return resources.files("netsuke.report").joinpath(name).read_text(encoding="utf-8")


def _change(number: dict[str, Any]) -> tuple[str, str]:
    """The change in words and whether it is good: "good", "bad" or ""."""
    before, after = number["before"], number["after"]
    if before is None or after is None:
        return "", ""
    if number["unit"] == "%":
        moved = after - before
        return f"{moved:+.2f} points", "good" if moved >= -0.5 else "bad"
    if not before or not after:
        return "", ""
    if number["better"] == "lower":
        ratio = before / after
        return (f"{ratio:.1f}× less" if ratio >= 1 else f"{1 / ratio:.1f}× more"), "good" if ratio > 1 else "bad"
    return f"{after / before:.2f}×", ""


def _cards(numbers: list[dict[str, Any]]) -> str:
    cards = []
    for n in numbers:
        change, mood = _change(n)
        bar = ratio_bar(n["before"], n["after"]) if n["unit"] != "%" else ""
        cards.append(
            f'<div class="card"><h3>{escape(n["label"])}</h3><p class="now">{amount(n["after"], n["unit"])}</p>'
            f'<p class="was">from {amount(n["before"], n["unit"])}<span class="change {mood}">{change}</span></p>{bar}'
            f'<p class="note">{escape(n["note"])}</p></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _largest(layers: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The layers with the most of something, kept in execution order."""
    ranked = sorted(layers, key=lambda r: -(max(r[key] or 0, r[f"{key}_before"] or 0)))[:_MOST_BARS]
    keep = {id(r) for r in ranked if (r[key] or r[f"{key}_before"])}
    return [r for r in layers if id(r) in keep]


def _bars(layers: list[dict[str, Any]], key: str, unit: str) -> str:
    rows = _largest(layers, key)
    scale, shown = (1e-3, "B") if unit == "kB" else (1.0, unit)
    bars = []
    for r in rows:
        before, after = r[f"{key}_before"], r[key]
        title = f"{r['name']}: {amount(before, shown)} to {amount(after, shown)}"
        mark = "" if r["status"] == "packed" else "kept"
        scaled = [None if v is None else scale * v for v in (before, after)]
        bars.append(Bar(r["name"], scaled[0], scaled[1], title, mark))
    return paired_bars(bars, unit, left=150, width=500) if bars else '<p class="quiet">Not measured.</p>'


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return '<td class="none" data-value="">–</td>'
    if isinstance(value, str):
        inner = f'<span class="pill {escape(value)}">{escape(value)}</span>' if key == "status" else escape(value)
        return f'<td data-value="{escape(value)}">{inner}</td>'
    text = {"macs": f"{value / 1e6:,.2f}", "ms": f"{value:.3f}", "ms_before": f"{value:.3f}"}.get(key)
    text = text or (f"{value:.1f}" if isinstance(value, float) else f"{value:,}")
    return f'<td class="number" data-value="{value}">{text}</td>'


def _table(layers: list[dict[str, Any]]) -> str:
    head = "".join(
        f'<th scope="col" data-kind="{kind}" aria-sort="none"><button type="button">{label}</button></th>'
        for _, label, kind in _COLUMNS
    )
    body = "".join("<tr>" + "".join(_cell(r, key) for key, _, _ in _COLUMNS) + "</tr>" for r in layers)
    return (
        '<label class="search">Find a layer <input id="find" type="search" autocomplete="off"></label>'
        f'<div class="scroll"><table id="layers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _bench_group(rows: list[dict[str, Any]]) -> str:
    timed = sorted((r for r in rows if r["median_ms"] is not None), key=lambda r: r["median_ms"])
    bars = []
    for r in timed:
        label = f"{r['engine']} {r['precision']}"
        mark = "ours" if r["engine"].startswith("netsuke") else "theirs"
        bars.append(Bar(label, None, r["median_ms"], f"{label}: {r['median_ms']:.3f} ms", mark))
    threads, batch = rows[0]["threads"], rows[0]["batch"]
    parts = [f"<h3>{threads} thread{'s' * (threads > 1)}, batch {batch}</h3>"]
    parts += [paired_bars(bars, "ms", left=170, width=1060)] if bars else []
    for r in rows:
        if r["median_ms"] is None:
            parts.append(f'<p class="quiet">{escape(r["engine"])} {r["precision"]}: {escape(r["reason"])}</p>')
    return "".join(parts)


def _bench(bench: dict[str, Any] | None) -> str:
    if not bench:
        return ""
    settings = dict.fromkeys((r["threads"], r["batch"]) for r in bench["rows"])
    groups = [_bench_group([r for r in bench["rows"] if (r["threads"], r["batch"]) == s]) for s in settings]
    verdict = bench["verdict"]
    told = "Measured in turns in one run; spread, drift and rounds within limits."
    if not verdict["valid"]:
        told = "The machine was noisy: " + "; ".join([*verdict["reasons"][:3], *verdict["causes"]])
    return (
        f"<section><h2>Beside other engines</h2><p>Median milliseconds of one call. {escape(told)}</p>"
        f"{''.join(groups)}</section>"
    )


def _pairs(table: dict[str, Any]) -> str:
    rows = []
    for key, value in table.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        if value not in (None, ""):
            rows.append(f"<tr><th scope='row'>{escape(key.replace('_', ' '))}</th><td>{escape(str(value))}</td></tr>")
    return f'<table class="facts">{"".join(rows)}</table>' if rows else '<p class="quiet">None recorded.</p>'


def _verification(content: dict[str, Any]) -> str:
    lines = []
    exact, check = content["exactness"], content["check"]
    if exact:
        state = "equal bit for bit"
        if not exact["exact"]:
            state = f"<b>different</b>, first in {escape(exact['differing'][0])}"
        what = f"{exact['codes']:,} codes of {exact['values']} integer values on {exact['samples']} samples"
        lines.append(f"{what}: engine and reference {state}.")
    else:
        lines.append("The engine was not compared with the reference interpreter.")
    if check:
        lines += _similarity(check)
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _similarity(check: dict[str, Any]) -> list[str]:
    lines = []
    if check["agreement"] is not None:
        share = 100 * check["agreement"]
        lines.append(f"Same answer as the float network on {share:.2f}% of {check['samples']} samples.")
    decibel = "equal outputs" if check["sqnr_db"] is None else f"SQNR {check['sqnr_db']:.1f} dB"
    lines.append(f"Output similarity: cosine {check['cosine']:.6f}, {decibel}.")
    told = ", ".join(f"{b['batch']} ({b['result']})" for b in check["batch_sizes"])
    lines.append(f"Batch sizes tried: {escape(told)}." if told else "No other batch size was tried.")
    engines = f"Float side: {check['float_engine']}; compressed side: {check['compressed_engine']}."
    return [*lines, escape(engines)]


def _steps(steps: list[dict[str, str]]) -> str:
    items = []
    for s in steps:
        method = f" <code>{escape(s['method'])}</code>" if s["method"] else ""
        items.append(f"<li><b>{escape(s['what'])}</b>{method}<span>{escape(s['detail'])}</span></li>")
    return f'<ol class="steps">{"".join(items)}</ol>'


def _counts(counts: dict[str, int]) -> str:
    shown = "".join(
        f'<span class="pill {k}">{counts[k]} {k}</span>' for k in ("packed", "simulated", "float", "fallback")
    )
    return f'<p class="counts">{shown}</p>'


def _growth(content: dict[str, Any]) -> str:
    if not content["growth"]:
        return '<p class="quiet">Not measured: no float network was compared layer by layer.</p>'
    first = content["first_departure"]
    told = f"No layer falls below {DEPARTS_DB:.0f} dB."
    if first:
        told = f"First layer below {DEPARTS_DB:.0f} dB: {first['layer']} ({first['sqnr_db']:.1f} dB)."
    what = "Each point is one layer's output against the float network, earlier errors included."
    return f"<p>{escape(told)} {what}</p>" + growth_line(content["growth"], DEPARTS_DB)


_LEGEND = (
    '<p class="legend"><i class="before"></i> float <i class="after"></i> packed '
    '<i class="after kept"></i> kept in float</p>'
)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _two(left: str, right: str) -> str:
    return f'<section class="two"><div>{left}</div><div>{right}</div></section>'


def _sections(c: dict[str, Any]) -> str:
    size, time = _bars(c["layers"], "bytes", "kB"), _bars(c["layers"], "ms", "ms")
    pair = f'<div class="pair"><div><h3>Stored bytes, kB</h3>{size}</div><div><h3>Time, ms</h3>{time}</div></div>'
    notes = "".join(f"<li>{escape(n)}</li>" for n in c["notes"])
    limits = "".join(f"<li>{escape(t)}</li>" for t in c["limits"])
    data = f"<h3>Calibration</h3>{_pairs(c['data']['calibration'])}<h3>Evaluation</h3>{_pairs(c['data']['evaluation'])}"
    checked = _verification(c) + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
    plan = f"<details><summary>The plan that was followed, as TOML</summary><pre>{escape(c['plan'])}</pre></details>"
    parts = [
        _section("Where the bytes and the time are", _LEGEND + pair),
        _section("How the error grows", _growth(c)),
        _bench(c["bench"]),
        _section("Layers", _counts(c["counts"]) + _table(c["layers"])),
        _two(f"<h2>What was done</h2>{_steps(c['steps'])}", f"<h2>Verification</h2>{checked}"),
        _two(f"<h2>Data</h2>{data}", f"<h2>Environment</h2>{_pairs(_environment(c['environment']))}"),
        _section("Limits", f"<ul>{limits}</ul>"),
        _section("Plan", plan),
    ]
    return "".join(parts)


def _environment(env: dict[str, Any]) -> dict[str, Any]:
    """The environment block with the CPU on one readable line."""
    if not env:
        return {}
    cpu = env["cpu"]
    rest = {k: v for k, v in env.items() if k not in ("cpu", "memory_bytes")}
    memory = f"{env['memory_bytes'] / 1e9:.1f} GB"
    return {"cpu": f"{cpu['name']}, {cpu['cores']} cores usable", "features": cpu["features"], "memory": memory, **rest}


def render(content: dict[str, Any]) -> str:
    """The page. The content is embedded as JSON too, so that the page alone is enough to read it again."""
    verdict = content["verdict"]
    missed = "".join(f"<li>{escape(m)}</li>" for m in verdict["missed"])
    # A "<" in a string could end the script element early; as an escape it is the same string in JSON.
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    title = f"{escape(content['name'])} · netsuke report"
    file = content["file"]
    facts = (
        f"{escape(file['name'])} · {file['bytes']:,} bytes · {escape(content['created'])} · {escape(content['schema'])}"
    )
    head = (
        f'<meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<style>{asset('style.css')}</style>"
    )
    top = (
        '<div class="top"><p class="brand">netsuke<span>report</span></p>'
        '<button id="theme" type="button" aria-label="switch between light and dark">◐</button></div>'
        f'<p class="verdict {verdict["state"]}">{_STATES[verdict["state"]]}</p><h1>{escape(content["name"])}</h1>'
        f'<pre class="summary">{escape(verdict["summary"])}</pre>'
    )
    missed = f'<ul class="missed">{missed}</ul>' if missed else ""
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><header>{top}{missed}{_cards(content["numbers"])}'
        f"</header><main>{_sections(content)}</main><footer>{facts}</footer>"
        f'<script type="application/json" id="data">{data}</script><script>{asset("page.js")}</script></body></html>\n'
    )
