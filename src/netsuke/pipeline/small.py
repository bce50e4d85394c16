"""`Small`: a compressed network and the truth about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netsuke.core.errors import FileError, Problem, UsageError
from netsuke.core.plan import Plan
from netsuke.pipeline.layers import Layers
from netsuke.pipeline.timing import Timing
from netsuke.program.model import Program
from netsuke.verify.check import STAND_INS, Check
from netsuke.verify.parity import Exactness

SCHEMA = "netsuke.compress/1"


@dataclass(frozen=True)
class Missed:
    """A line of the contract that was not met.

    kind  "size", "time", "drop", or "unmeasured": a drop was limited and nothing measured it
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass
class Small:
    """What `compress` returns.

    program      the compiled program; quantized: the same network as ONNX with QuantizeLinear/DequantizeLinear
    bytes_before/bytes_after  the float program and the compressed one, as files of the same format
    check        metrics, agreement and parity on evaluation data (on calibration data where none were given: see notes)
    exactness    reloaded file on the engine against the reference interpreter; None without the compiled runtime
    missed       lines of the contract that were not met; empty when it was met
    """

    name: str
    program: Program
    quantized: Any
    plan: Plan
    bytes_before: int
    bytes_after: int
    layers: Layers
    check: Check | None = None
    timing: Timing | None = None
    exactness: Exactness | None = None
    path: Path | None = None
    missed: list[Missed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    memory: dict[str, int | None] = field(default_factory=dict)

    def summary(self) -> str:
        """Three lines of truth: before and after, the contract with counts, the verification."""
        return "\n".join([self._truth(), self._contract(), self._verified(), *(f"note: {n}" for n in self.notes)])

    def _truth(self) -> str:
        before, after = self.bytes_before, self.bytes_after
        parts = [self.name, f"{size(before)} -> {size(after)} ({before / max(after, 1):.1f}x)", *self._metrics()]
        if self.timing is not None:
            t = self.timing
            speed = f"{t.speedup:.1f}x" if t.low > 1 or t.high < 1 else "no difference"
            batch = f"batch {t.batch}, " * (t.batch > 1)
            where = f"{batch}{t.threads} thread{'s' * (t.threads > 1)}, {t.isa}"
            noisy = "" if t.quiet else ", noisy machine"
            parts.append(f"{ms(t.float_ms)} -> {ms(t.compressed_ms)} ms ({speed}, {where}{noisy})")
        return "   ".join(parts)

    def _metrics(self) -> list[str]:
        check = self.check
        if check is None:
            return []
        if set(check.drop) <= STAND_INS:  # no labels and no metric of the user's own
            decibel = "equal" if check.sqnr_db is None else f"{check.sqnr_db:.1f} dB"
            same = "" if check.agreement is None else f"same answer {100 * check.agreement:.1f}%, "
            return [f"outputs: {same}SQNR {decibel} ({check.samples} samples, no labels)"]
        lines = []
        for name, lost in check.drop.items():
            if name == "top5":
                continue
            limit = f", limit {-100 * check.limits[name]:.1f}" if name in check.limits else ""
            before, after = check.float_metrics[name], check.compressed_metrics[name]
            shown = (before, after, lost) if name == "rmse" else (100 * before, 100 * after, 100 * lost)
            lines.append(f"{name} {shown[0]:.2f} -> {shown[1]:.2f} ({0.0 - shown[2]:+.2f}{limit})")
        return lines

    def _contract(self) -> str:
        counts = self.layers.counts()
        kept = [row.name for row in self.layers if row.status == "float"]
        named = f" ({', '.join(kept[:3])}{', ...' if len(kept) > 3 else ''}, by plan)" if kept else ""
        told = "; ".join(map(str, self.missed))
        head = f"contract MISSED: {told}." if told else ("contract met." if self.plan.budget else "no contract given.")
        bits = self._packed_bits()
        return (
            f"{head}  {len(self.layers)} layers: {bits}, {counts['float']} float{named}; "
            f"{counts['simulated']} simulated, {counts['fallback']} fallback{'s' * (counts['fallback'] != 1)}"
        )

    def _packed_bits(self) -> str:
        found: dict[str, int] = {}
        for row in self.layers:
            if row.status == "packed":
                weight = row.weight_bits or row.activation_bits
                same = weight == row.activation_bits
                name = (
                    "binary" if same and weight == 1 else f"int{weight}" if same else f"w{weight}a{row.activation_bits}"
                )
                found[name] = found.get(name, 0) + 1
        return ", ".join(f"{n} packed {name}" for name, n in sorted(found.items())) or "0 packed"

    def _verified(self) -> str:
        name = self.path.name if self.path else "program"
        e = self.exactness
        if e is None:
            return f"{name} reloaded; NOT compared: no compiled runtime here (netsuke doctor)"
        if not e.exact:
            return f"{name} reloaded, {e.samples} samples: codes DIFFER from the reference, first in {e.differing[0]}"
        return f"{name} verified: reloaded, {e.samples} samples, integer layers equal to the reference bit for bit"

    def as_json(self) -> dict[str, Any]:
        """The versioned form, keys documented in docs/json.md."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "file": str(self.path) if self.path else None,
            "bytes": {
                "before": self.bytes_before,
                "after": self.bytes_after,
                "ratio": self.bytes_before / max(self.bytes_after, 1),
            },
            "layers": self.layers.counts() | {"total": len(self.layers)},
            "layer_table": self.layers.as_json(),
            "contract": {
                "given": dict(self.plan.budget),
                "met": not self.missed,
                "missed": [str(line) for line in self.missed],
            },
            "check": self.check.as_json() if self.check else None,
            "timing": self.timing.as_json() if self.timing else None,
            "exactness": self.exactness.as_json() if self.exactness else None,
            "plan": self.plan.to_toml(),
            "summary": self.summary(),
            "notes": self.notes,
            "memory": self.memory,
            "facts": self.facts,
            "interrupted": self.interrupted,
        }

    def save(self, path: str | Path) -> int:
        """Write the .nsk file; the number of bytes."""
        from netsuke import program

        self.path = Path(path)
        return int(program.write(self.program, self.path))

    def export(self, path: str | Path) -> None:
        """Write the network as ONNX with QuantizeLinear and DequantizeLinear, for other engines and for viewers."""
        import onnx_ir

        if self.quantized is None:
            raise UsageError(Problem("only a network compressed in this process can be exported", where=str(path)))
        try:
            onnx_ir.save(self.quantized, Path(path))
        except OSError as error:
            raise FileError(Problem("cannot write", where=str(path), got=str(error.strerror))) from None


def size(count: int) -> str:
    """Bytes as people read them, decimal units."""
    if count >= 10**9:
        return f"{count / 1e9:.2f} GB"
    if count >= 10**6:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e3:.1f} kB"


def ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def meets(budget: Mapping[str, Any], before: int, after: int, check: Check | None) -> list[Missed]:
    """Lines of the contract that are missed. `budget` is the table a plan carries."""
    missed = []
    limit = budget.get("size_bytes") or (budget["size_ratio"] * before if budget.get("size_ratio") else None)
    if limit is not None and after > limit:
        missed.append(Missed("size", f"size {size(after)} is above {size(int(limit))}"))
    for name, allowed in dict(budget.get("drop", {})).items():
        lost = check.drop.get(name) if check else None
        if lost is None:
            text = f"{name} was limited to a drop of {allowed:.2%} but not measured (give --eval data with labels)"
            missed.append(Missed("unmeasured", text))
        elif lost > allowed:
            missed.append(Missed("drop", f"{name} dropped by {lost:.2%}, limit {allowed:.2%}"))
    return missed
