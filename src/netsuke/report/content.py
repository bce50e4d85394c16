"""The content of a report: gathered from a compressed network and what was found about it, checked against nothing
new.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.passes.report import ONE_BIT
from netsuke.program.model import Node, Program
from netsuke.program.opset import OPERATORS
from netsuke.program.storage import stored_bits, stored_bytes
from netsuke.report.amounts import amount
from netsuke.report.page import render

SCHEMA = "netsuke.report/1"
_CONVERSIONS = ("quantize", "dequantize", "sign_pack", "transpose")
NOT_TESTED = (
    "Robustness to shifted, noisy or adversarial inputs, calibration of confidence, and behaviour out of distribution "
    "were not tested.",
    "Times are of this machine at the stated threads and batch; another CPU has other times. The codes of integer "
    "layers are the same bits on every CPU.",
)


@dataclass
class Report:
    """`content` is what report.json holds; `program` is kept for the viewable ONNX."""

    content: dict[str, Any]
    program: Program | None = None

    def as_json(self) -> dict[str, Any]:
        return self.content

    def line(self) -> str:
        """One line: size, metric and time before and after, the place among other engines, and the contract."""
        shown = [f"{n['label'].lower()} {amount(n['before'], n['unit'])} -> {amount(n['after'], n['unit'])}"
                 for n in self.content["numbers"] if n["label"] != "Memory" and n["after"] is not None]  # fmt: skip
        state = {"met": "contract met", "missed": "contract MISSED", "none": "no contract given"}
        parts = [
            self.content["name"],
            *shown,
            *_standing(self.content["bench"]),
            state[self.content["verdict"]["state"]],
        ]
        return "   ".join(parts)

    def html(self) -> str:
        """The page as text."""
        return render(self.content)

    def save(self, path: str | Path) -> list[Path]:
        """Write PATH.html with PATH.json and PATH.onnx beside it; returns the files written."""
        page = Path(path)
        if page.suffix != ".html":
            raise UsageError(Problem("a report is an .html file", where="-o", got=str(path), hint="-o report.html"))
        try:
            page.write_text(self.html(), encoding="utf-8")
            data = page.with_suffix(".json")
            data.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            written = [page, data]
            if self.program is not None:
                from netsuke.report.view import write_view

                notes = {layer["name"]: layer for layer in self.content["layers"]}
                written.append(write_view(self.program, page.with_suffix(".onnx"), notes))
        except OSError as error:
            raise FileError(Problem("cannot write", where=str(path), got=str(error.strerror))) from None
        return written


def schema() -> dict[str, Any]:
    """The JSON Schema of report.json."""
    text = resources.files("netsuke.report").joinpath("schema", "report-1.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _standing(bench: dict[str, Any] | None) -> list[str]:
    """How our INT8 stands against the best of the others, at the first setting of a benchmark; empty without one."""
    ours = [r for r in (bench or {}).get("rows", []) if r["engine"].startswith("netsuke") and r["precision"] == "int8"]
    if not ours or ours[0].get("ratio_to_best_float") is None:
        return []
    row = ours[0]
    told = f"{row['ratio_to_best_float']:.2f}x the best float32"
    if row.get("ratio_to_best_int8") is not None:
        told += f", {row['ratio_to_best_int8']:.2f}x the best INT8"
    return [told + ("" if bench and bench["verdict"]["valid"] else " (noisy)")]


def _read_json(path: Path, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(Problem("cannot read", where=str(path), got=str(error))) from None
    if not isinstance(found, dict) or not str(found.get("schema", "")).startswith(f"netsuke.{kind}/"):
        got = str(found.get("schema")) if isinstance(found, dict) else type(found).__name__
        raise FileError(Problem("not the expected file", where=str(path), got=got, allowed=f"netsuke.{kind}/1"))
    return found


def _part(given: Any, kind: str) -> dict[str, Any] | None:
    """A result object, its JSON, or a path of it."""
    if given is None or given == "":
        return None
    if isinstance(given, (str, Path)):
        return _read_json(Path(given), kind)
    return dict(given) if isinstance(given, dict) else dict(given.as_json())


def _number(
    label: str, unit: str, before: float | None, after: float | None, better: str, note: str = ""
) -> dict[str, Any]:
    return {"label": label, "unit": unit, "before": before, "after": after, "better": better, "note": note}


def _accuracy(check: dict[str, Any] | None) -> dict[str, Any]:
    if check is None:
        return _number("Accuracy", "", None, None, "higher", "not measured")
    metrics = check["metrics"]
    name = next(iter(metrics["drop"]), None)
    if name is None or not check["labelled"]:
        same = check["agreement"]
        text = f"outputs compared on {check['samples']} samples without labels"
        return _number("Same answer", "%", 100.0, None if same is None else 100 * same, "higher", text)
    factor = 1.0 if name == "rmse" else 100.0
    note = f"on {check['samples']} labelled samples"
    unit = "" if name == "rmse" else "%"
    better = "lower" if name == "rmse" else "higher"
    return _number(name, unit, factor * metrics["float"][name], factor * metrics["compressed"][name], better, note)


def _numbers(facts: dict[str, Any], check: dict[str, Any] | None) -> list[dict[str, Any]]:
    timing, memory = facts.get("timing"), facts.get("memory") or {}
    sizes = facts["bytes"]
    threads = "" if not timing else f"batch {timing['batch']}, {timing['threads']} threads, {timing['isa']}"
    note = threads if not timing or timing["quiet"] else f"{threads}; the machine was noisy"
    return [
        _number("Size", "B", sizes["before"], sizes["after"], "lower", "as files of the same format"),
        _accuracy(check),
        _number(
            "Latency",
            "ms",
            timing and timing["float_ms"],
            timing and timing["compressed_ms"],
            "lower",
            note or "not measured",
        ),
        _number(
            "Memory", "B", memory.get("before"), memory.get("after"), "lower", "packed weights and arena at batch 1"
        ),
    ]


def _layers(facts: dict[str, Any], check: dict[str, Any] | None) -> list[dict[str, Any]]:
    errors = {p["layer"]: p for p in (check or {}).get("layers", [])}
    rows = []
    for row in facts["layer_table"]:
        found = errors.get(row["name"])
        rows.append({**row, "sqnr_db": found["sqnr_db"] if found else row.get("sqnr_db")})
    return rows


def _growth(check: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [{k: p[k] for k in ("layer", "op", "sqnr_db", "cosine")} for p in (check or {}).get("layers", [])]


def _verdict(facts: dict[str, Any], check: dict[str, Any] | None) -> dict[str, Any]:
    missed = list(facts["contract"]["missed"])
    missed += [f"{p['what']} {p['where']} {p['got']}".strip() for p in (check or {}).get("problems", [])]
    given = bool(facts["contract"]["given"])
    state = "missed" if missed else "met" if given else "none"
    return {"state": state, "missed": missed, "summary": facts["summary"], "contract": facts["contract"]["given"]}


def _steps(facts: dict[str, Any]) -> list[dict[str, str]]:
    """What was done, in order: each with the method's name where it is one."""
    plan = facts.get("plan_head", {})
    data = facts["facts"].get("calibration", {})
    count = f"{data['count']} samples of {data['source']}" if "count" in data else str(data.get("source", "no data"))
    exact = facts.get("exactness")
    verified = f"{exact['samples']} samples, {exact['codes']:,} codes" if exact else "no compiled runtime: not compared"
    packed = f"{facts['layers']['packed']} layers packed, fused and laid out for integer kernels"
    recipe = plan.get("recipe", "")
    steps = [
        ("captured the network as a graph", "", "batch normalization folded, activations recognised"),
        ("planned every layer", recipe, f"seed {plan.get('seed', 0)}"),
        *(("applied", step, f"calibrated on {count}") for step in plan.get("steps", [])),
        ("compiled to a program", "", packed),
        ("wrote, reloaded and verified the file", "", verified),
    ]
    return [{"what": what, "method": method, "detail": detail} for what, method, detail in steps]


def build(
    facts: dict[str, Any], check: dict[str, Any] | None, bench: dict[str, Any] | None, file: dict[str, Any]
) -> dict[str, Any]:
    """The content from the JSON of compress, check and bench."""
    check = check or facts.get("check")
    growth = _growth(check)
    departs = (check or {}).get("first_departure")
    content = {
        "schema": SCHEMA,
        "name": facts["name"],
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "file": file,
        "verdict": _verdict(facts, check),
        "numbers": _numbers(facts, check),
        "counts": facts["layers"],
        "layers": _layers(facts, check),
        "growth": growth,
        "first_departure": departs,
        "steps": _steps(facts),
        "check": None if check is None else {k: v for k, v in check.items() if k not in ("layers", "schema")},
        "exactness": facts.get("exactness"),
        "bench": bench and {k: bench[k] for k in ("rows", "baselines", "verdict", "notes", "environment")},
        "timing": facts.get("timing") and {k: v for k, v in facts["timing"].items() if not k.endswith("layers")},
        "data": {"calibration": facts["facts"].get("calibration", {}), "evaluation": (check or {}).get("data", {})},
        "environment": facts["facts"].get("environment", {}),
        "plan": facts["plan"],
        "notes": facts["notes"],
        "limits": list(NOT_TESTED),
    }
    return _finite(content)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    """Infinities and NaN, which JSON lacks, as null; everything else as JSON types."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _plan_head(text: str) -> dict[str, Any]:
    import tomllib

    table = tomllib.loads(text) if text else {}
    return {k: table[k] for k in ("recipe", "steps", "seed", "notes") if k in table}


def _weight_bits(program: Program, node: Node) -> int | None:
    """Bits of a stored weight code of the node; 8 for tables, None without constants."""
    names = [n for n in node.inputs[1:2] if n in program.constants]
    return max((stored_bits(program, n) for n in names), default=None)


def _file_layer(program: Program, node: Node) -> dict[str, Any]:
    """One operator as a row of the layer table: only what the file itself says."""
    names = dict.fromkeys(n for n in node.inputs if n in program.constants)
    stored = stored_bytes(program, names)
    packed = node.op not in _CONVERSIONS and (OPERATORS[node.op].group == "integer" or node.op == "wlinear")
    one_bit = node.op in ONE_BIT
    exact_input = packed and node.op != "wlinear"
    return {
        "name": node.name,
        "op": node.op,
        "kernel": node.op,
        "status": "packed" if packed else "float",
        "weight_bits": 1 if one_bit else _weight_bits(program, node) if packed else None,
        "activation_bits": 1 if one_bit else 8 if exact_input else 32,
        "bytes_before": None,
        "bytes": stored,
        "reason": "",
        **dict.fromkeys(("macs", "ms_before", "ms", "sqnr_db", "sensitivity_db")),
    }


def _from_program(program: Program, path: Path) -> dict[str, Any]:
    """Facts of a file without its record: what stands in the file, and nothing else."""
    layers = [_file_layer(program, node) for node in program.nodes]
    counts = {s: sum(r["status"] == s for r in layers) for s in ("packed", "simulated", "float", "fallback")}
    note = f"{path.name}.json, the record compress leaves beside its result, is missing: only the file itself is shown"
    return {
        "name": program.name,
        "bytes": {"before": None, "after": path.stat().st_size},
        "layers": counts | {"total": len(layers)},
        "layer_table": layers,
        "contract": {"given": {}, "met": True, "missed": []},
        "plan": program.plan,
        "summary": f"{program.name}: {len(layers)} operators",
        "notes": [note],
        "facts": {},
        **dict.fromkeys(("check", "timing", "exactness", "memory")),
    }


def report(item: Any, *, check: Any = None, bench: Any = None) -> Report:
    """A report on a compressed network.

    item   a Small, or the path of a .nsk (with the .nsk.json that `netsuke compress` leaves beside it)
    check  a Check or the JSON file of `netsuke check`, else what compress found
    bench  a bench result or its JSON file
    """
    from netsuke import program

    if isinstance(item, (str, Path)):
        path = Path(item)
        loaded = program.read(path)
        record = Path(f"{path}.json")
        facts = _read_json(record, "compress") if record.exists() else _from_program(loaded, path)
        file = {"name": path.name, "bytes": path.stat().st_size}
    else:
        loaded, facts = item.program, json.loads(json.dumps(item.as_json(), default=str))
        file = {"name": item.path.name if item.path else item.name, "bytes": item.bytes_after}
    facts["plan_head"] = _plan_head(facts["plan"])
    return Report(build(facts, _part(check, "check"), _part(bench, "bench"), file), loaded)
