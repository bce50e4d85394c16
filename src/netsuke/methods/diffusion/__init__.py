"""Quantizing networks that are run again and again on their own output: image generators that sample in steps.

Belongs here: methods that use the sampling run itself as calibration data, as training data, or as what is measured.
Does not belong here: the sampler (`netsuke.nn.diffusion`), networks (`netsuke.models`), what works on any network.
Contract: `apply(model, sampling, config) -> Tuned` (in `_tuned`). model is a float denoiser in eval mode, a module of
(image, time, label); sampling says from what and in how many steps images are made; nothing else is read, no data. The
result samples like the float network and exports one graph per step, or one for all. No recipe and no verb of the
command line fits: there is no data, and a step may be a program of its own; `netsuke methods show NAME` prints the
call. To add: a file with a record; its test in tests/methods/diffusion. Importing this room loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsuke.methods.diffusion._sampling import Sampling as Sampling
    from netsuke.methods.diffusion._tuned import Tuned as Tuned

_PLACES = {"Sampling": "_sampling", "Tuned": "_tuned"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
