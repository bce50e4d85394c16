"""`QuantSpec`: everything that defines a quantizer except its tensors. Frozen, comparable, loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netsuke.core.errors import Problem, UsageError, near

GRIDS = ("integer", "power2", "E4M3", "E5M2", "E3M2", "E2M1", "codebook", "sign", "ternary")
GRANULARITIES = ("tensor", "channel", "group", "token")
ROLES = ("weight", "activation")
STATISTICS = ("maxabs", "minmax", "percentile", "mse", "lsq", "meanabs", "medianabs", "unit")
SCHEDULES = ("live", "moving", "learned", "fixed")
ROUNDINGS = ("nearest", "stochastic", "learned")
GRADIENTS = ("ste", "clipped", "lsq", "pact")
LEARNING = ("lsq", "pact")


@dataclass(frozen=True)
class QuantSpec:
    """What a quantizer does.

    role         "weight" or "activation": what counts as one sample
    grid, bits   see `netsuke.nn.grids.grid`; bits count for "integer" and "power2"
    signed       symmetric around zero; else from zero upwards
    wide         signed integers include -2^(b-1)
    affine       unsigned integers with a zero point
    granularity  one scale per "tensor", slice of `axis` ("channel"), `group` consecutive values of each slice of the
                 first axis ("group"), or vector along the last axis ("token", taken from the data at hand)
    statistic    how a range is found in data: "maxabs", "minmax", "percentile", "mse", "lsq" (2 mean|x| / sqrt(hi)),
                 "meanabs", "medianabs" (hi times the mean or median of |x|: the scale is that number), or "unit": 0
                 (or -1) to 1 whatever the data
    schedule     when: "live" (every call), "moving" (average over training batches), "learned" (once, then trained),
                 "fixed" (by `calibrate` only)
    rounding     "nearest", "stochastic", "learned"
    gradient     see `netsuke.nn.gradients`
    momentum     of the moving average: range <- momentum * range + (1 - momentum) * batch
    percent      of the values that stay inside, for "percentile"
    norm         exponent of the error, for "mse"
    entries      of a codebook, ascending

    Raises UsageError that lists every contradiction.
    """

    role: str = "activation"
    grid: str = "integer"
    bits: int = 8
    signed: bool = False
    wide: bool = False
    affine: bool = False
    granularity: str = "tensor"
    axis: int = 0
    group: int = 0
    statistic: str = "minmax"
    schedule: str = "moving"
    rounding: str = "nearest"
    gradient: str = "clipped"
    momentum: float = 0.99
    percent: float = 99.9
    norm: float = 2.0
    entries: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        problems = [*self._unknown(), *self._contradictions()]
        if problems:
            raise UsageError(problems, f"{len(problems)} problem{'s' * (len(problems) > 1)} in a QuantSpec")

    def _unknown(self) -> Iterator[Problem]:
        words = {
            "role": ROLES,
            "grid": GRIDS,
            "granularity": GRANULARITIES,
            "statistic": STATISTICS,
            "schedule": SCHEDULES,
            "rounding": ROUNDINGS,
            "gradient": GRADIENTS,
        }
        for key, allowed in words.items():
            value = getattr(self, key)
            if value not in allowed:
                yield Problem(key, got=str(value), allowed=near(str(value), allowed))
        if self.grid in ("integer", "power2") and not 2 <= self.bits <= 8:
            yield Problem("bits", got=str(self.bits), allowed="2 to 8", hint='grid "sign" is one bit')
        for key, low, high in (("momentum", 0.0, 1.0), ("percent", 50.0, 100.0), ("norm", 1.0, 8.0)):
            if not low <= getattr(self, key) <= high:
                yield Problem(key, got=str(getattr(self, key)), allowed=f"{low:g} to {high:g}")

    def _contradictions(self) -> Iterator[Problem]:
        if self.affine and (self.grid != "integer" or self.signed):
            yield Problem("a zero point needs an unsigned integer grid", got=f"grid {self.grid}, signed {self.signed}")
        if self.wide and not (self.grid == "integer" and self.signed):
            yield Problem("wide", got="True", allowed="signed integer grids")
        if (self.granularity == "group") != (self.group > 0):
            yield Problem("group", got=str(self.group), allowed="a size above 0 with granularity group, else 0")
        if self.granularity == "token" and (self.role, self.schedule) != ("activation", "live"):
            what = "scales per token exist only for the data at hand"
            yield Problem(what, got=f"{self.role}, schedule {self.schedule}", allowed="activation, schedule live")
        if self.granularity == "channel" and self.role == "activation" and self.affine:
            yield Problem("a zero point per channel of an activation", got="affine", allowed="one per tensor")
        if (self.schedule == "learned") != (self.gradient in LEARNING):
            got = f"schedule {self.schedule}, gradient {self.gradient}"
            allowed = f"schedule learned with gradient {' or '.join(LEARNING)}, others with ste or clipped"
            yield Problem("who trains the scale", got=got, allowed=allowed)
        if self.schedule == "moving" and self.role == "weight":
            yield Problem("a moving average of weights", got="moving", allowed="live, learned, fixed")
        if (self.grid == "codebook") != bool(self.entries):
            yield Problem(
                "entries", got=f"{len(self.entries)} with grid {self.grid}", allowed="with grid codebook only"
            )

    @property
    def two_sided(self) -> bool:
        """True when the grid has points below zero without a zero point."""
        return self.signed or self.grid in ("E4M3", "E5M2", "E3M2", "E2M1", "codebook", "sign", "ternary")
