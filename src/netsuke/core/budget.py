"""`Budget`: the contract of a compression, parsed strictly from what a person types.

size   "0.25x" (at most this share of the stored bytes) or "6.3MB" (at most so many bytes)
bops   "0.5x" (share of the bit operations of the 8-bit plan) or "2.1G" (multiply-accumulates x weight bits x activation
       bits of one sample)
latency  "0.8x" (share of the 8-bit plan's time on this machine) or "1.5ms" (one sample, the layers' sum)
drop   {"top1": 0.01}, "top1:1%" or "top1:0.01": a metric may fall by at most this much (fractions)
time   "20m", "90s", "1h30m": how long the compression itself may take
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netsuke.core.errors import Problem, UsageError

_RATIO = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)")
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_DROP = re.compile(r"([A-Za-z_][\w.-]*)\s*:\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kMGT]?)")
_MS = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*ms")
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_KEYS = ("size", "bops", "latency", "time", "drop")
_UNITS = {"B": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20, "GB": 1e9, "GiB": 2**30}


@dataclass(frozen=True, init=False)
class Budget:
    """What may be lost and what must be won: `Budget(size="0.25x", drop={"top1": 0.01}, time="20m")`.

    Given as in the table above; a number stands for a share (time: for seconds), None for no limit. Kept as:

    size_ratio     stored bytes after / before, at most
    size_bytes     stored bytes after, at most
    drop           metric name to the largest allowed fall, as a fraction (0.01 is one point of top-1)
    seconds        time the compression may take
    bops_ratio, bops           bit operations of one sample, at most: share of the 8-bit plan's, or a count
    latency_ratio, latency_ms  time of one sample, at most: share of the 8-bit plan's, or milliseconds
    """

    size_ratio: float | None
    size_bytes: int | None
    drop: Mapping[str, float]
    seconds: float | None
    bops_ratio: float | None
    bops: float | None
    latency_ratio: float | None
    latency_ms: float | None

    def __init__(
        self,
        size: str | float | None = None,
        drop: str | Mapping[str, float] | None = None,
        time: str | float | None = None,
        bops: str | float | None = None,
        latency: str | float | None = None,
    ) -> None:
        """UsageError lists every part that cannot be read."""
        problems: list[Problem] = []
        ratio, count = _size(size, problems)
        operations_ratio, operations = _limited("bops", bops, _COUNT, "0.5x or 2.1G", problems)
        latency_ratio, milliseconds = _limited("latency", latency, _MS, "0.8x or 1.5ms", problems)
        read = {
            "size_ratio": ratio,
            "size_bytes": count,
            "drop": _drops(drop, problems),
            "seconds": _seconds(time, problems),
            "bops_ratio": operations_ratio,
            "bops": operations,
            "latency_ratio": latency_ratio,
            "latency_ms": milliseconds,
        }
        if problems:
            raise UsageError(problems, "the budget cannot be read")
        for name, value in read.items():
            object.__setattr__(self, name, value)

    @property
    def searches(self) -> bool:
        """True when something is limited that only a choice of bits can meet."""
        return any(v is not None for v in (self.bops_ratio, self.bops, self.latency_ratio, self.latency_ms))

    @classmethod
    def parse_text(cls, text: str, **others: Any) -> Budget:
        """From "size=0.15x,latency=0.8x": keys size, bops, latency, time, drop; `others` are keywords of `Budget`."""
        given: dict[str, Any] = {k: v for k, v in others.items() if v}
        problems = []
        for part in filter(None, (p.strip() for p in text.split(","))):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if key not in _KEYS or not (equals and value):
                problems.append(Problem("budget", got=repr(part), allowed=", ".join(f"{k}=..." for k in _KEYS)))
            elif key in given:
                problems.append(Problem("budget names a limit twice", got=key))
            else:
                given[key] = value
        try:
            budget = cls(**{k: v for k, v in given.items() if k in _KEYS})
        except UsageError as error:
            problems += error.problems
        if problems:
            raise UsageError(problems, "the budget cannot be read")
        return budget

    def __str__(self) -> str:
        parts = []
        if self.size_ratio is not None:
            parts.append(f"size {self.size_ratio:g}x")
        if self.size_bytes is not None:
            parts.append(f"size {self.size_bytes:,} bytes")
        parts += [f"drop {name}:{value:g}" for name, value in sorted(self.drop.items())]
        if self.bops_ratio is not None or self.bops is not None:
            parts.append(f"bops {self.bops_ratio:g}x" if self.bops_ratio is not None else f"bops {self.bops:g}")
        if self.latency_ratio is not None:
            parts.append(f"latency {self.latency_ratio:g}x")
        if self.latency_ms is not None:
            parts.append(f"latency {self.latency_ms:g}ms")
        if self.seconds is not None:
            parts.append(f"time {self.seconds:g}s")
        return ", ".join(parts) or "no limits"


def _size(size: str | float | None, problems: list[Problem]) -> tuple[float | None, int | None]:
    if size is None:
        return None, None
    text = f"{size}x" if isinstance(size, int | float) and not isinstance(size, bool) else str(size).strip()
    if match := _RATIO.fullmatch(text):
        value = float(match.group(1))
        if 0 < value <= 1:
            return value, None
    elif match := _BYTES.fullmatch(text):
        count = int(float(match.group(1)) * _UNITS[match.group(2)])
        if count > 0:
            return None, count
    problems.append(Problem("size", got=repr(size), allowed="a share in (0, 1] like 0.25x, or bytes like 6.3MB"))
    return None, None


def _limited(
    key: str, value: str | float | None, absolute: re.Pattern[str], allowed: str, problems: list[Problem]
) -> tuple[float | None, float | None]:
    """(share, absolute) of "0.5x" or of a number with a unit."""
    if value is None:
        return None, None
    text = f"{value}x" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).strip()
    if match := _RATIO.fullmatch(text):
        share = float(match.group(1))
        if share > 0:
            return share, None
    elif match := absolute.fullmatch(text):
        count = float(match.group(1)) * _THOUSANDS[match.group(2) if absolute is _COUNT else ""]
        if count > 0:
            return None, count
    problems.append(Problem(key, got=repr(value), allowed=allowed))
    return None, None


def _drops(drop: str | Mapping[str, float] | None, problems: list[Problem]) -> dict[str, float]:
    if drop is None:
        return {}
    if isinstance(drop, Mapping):
        bad = {k: v for k, v in drop.items() if not _is_fraction(v)}
        for name, value in bad.items():
            problems.append(
                Problem("drop", where=str(name), got=repr(value), allowed="a fraction in [0, 1], e.g. 0.01")
            )
        return {str(k): float(v) for k, v in drop.items() if k not in bad}
    limits: dict[str, float] = {}
    for part in str(drop).split(","):
        match = _DROP.fullmatch(part.strip())
        value = float(match.group(2)) / (100 if match.group(3) else 1) if match else math.nan
        if match is None or not _is_fraction(value):
            hint = "write top1:1% for one point" if match else ""
            problems.append(
                Problem("drop", got=repr(part.strip()), allowed="metric:fraction or metric:percent%", hint=hint)
            )
        elif match.group(1) in limits:
            problems.append(Problem("drop names a metric twice", got=match.group(1)))
        else:
            limits[match.group(1)] = value
    return limits


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _seconds(time: str | float | None, problems: list[Problem]) -> float | None:
    if time is None:
        return None
    if isinstance(time, int | float) and not isinstance(time, bool):
        total = float(time)
    else:
        text = str(time).strip()
        match = _TIME.fullmatch(text)
        hours, minutes, seconds = (float(g or 0) for g in match.groups()) if match and text else (math.nan,) * 3
        total = hours * 3600 + minutes * 60 + seconds
    if math.isfinite(total) and total > 0:
        return total
    problems.append(Problem("time", got=repr(time), allowed="like 90s, 20m, 1h30m"))
    return None
