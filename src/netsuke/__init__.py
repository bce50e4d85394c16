"""netsuke makes trained networks small and fast on CPUs, and proves that nothing broke.

The public names are few and load what they need when first used; importing netsuke imports neither torch nor a
competitor:

    plan        decide per layer, read and edit the table, save it as TOML
    compress    a trained network and calibration inputs in, one small exact INT8 program out
    train       train a network with integer products, resumable bit for bit
    load        a .nsk file ready to run on this CPU, tuned if it was tuned here
    check       is the compressed network still as good, and where does it depart
    bench       how fast it is, beside the engines that are installed
    report      one HTML file with everything that was measured, and the same as JSON
    inspect     layers, shapes, bytes, multiply-adds and what can be packed
    doctor      what of this machine and installation works, and how to fix the rest
    methods     the catalogue of methods
    explain     one page on one method
    Plan        the table of decisions
    Budget      the contract: size, drop of a metric, time
    errors      the exceptions, each a list of problems
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "plan": "netsuke.pipeline:plan",
    "compress": "netsuke.pipeline:compress",
    "train": "netsuke.pipeline:train",
    "load": "netsuke.measure.tuning:load",
    "check": "netsuke.verify:check",
    "bench": "netsuke.measure:bench",
    "report": "netsuke.report:report",
    "inspect": "netsuke.pipeline:inspect",
    "doctor": "netsuke.measure:doctor",
    "methods": "netsuke.core.method:methods",
    "explain": "netsuke.pipeline:explain",
    "Plan": "netsuke.core.plan:Plan",
    "Budget": "netsuke.core.budget:Budget",
    "errors": "netsuke.core:errors",
}
__all__ = ["__version__", *_NAMES]


def _resolve(name: str) -> Any:
    module, _, attribute = _NAMES[name].partition(":")
    loaded = importlib.import_module(module)
    if not hasattr(loaded, attribute):
        return importlib.import_module(f"{module}.{attribute}")
    return getattr(loaded, attribute)


class _CallableRoom(types.ModuleType):
    """`report` and `methods` are verbs and rooms at once: the room stays importable and can be called like the verb."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return _resolve(self.__name__.rpartition(".")[2])(*args, **keywords)


class _Face(types.ModuleType):
    """The package itself. Importing a room assigns it here, which is the moment to make it callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NAMES and type(value) is types.ModuleType:
            if value.__name__ != f"{__name__}.{name}":
                return
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'netsuke' has no attribute {name!r}; public names: {', '.join(_NAMES)}")
    if name in ("report", "methods"):
        return importlib.import_module(f"{__name__}.{name}")
    value = _resolve(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


sys.modules[__name__].__class__ = _Face

if TYPE_CHECKING:
    from netsuke.core import errors as errors
    from netsuke.core.budget import Budget as Budget
    from netsuke.core.plan import Plan as Plan
    from netsuke.measure.bench import bench as bench
    from netsuke.measure.doctor import doctor as doctor
    from netsuke.measure.tuning import load as load
    from netsuke.pipeline.compress import compress as compress
    from netsuke.pipeline.explain import explain as explain
    from netsuke.pipeline.inspect import inspect as inspect
    from netsuke.pipeline.plan import plan as plan
    from netsuke.pipeline.train import train as train
    from netsuke.verify.check import check as check
