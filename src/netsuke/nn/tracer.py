"""torch.fx's tracer for networks as people write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn


class Tracer(fx.Tracer):
    """Goes into modules that `forward` makes of the network's own, as in `self.layers[:2](x)`.

    A slice of a Sequential is a new Sequential, of which the network knows nothing; torch.fx refuses it. What is inside
    belongs to the network, and is traced under its own name.
    """

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The module as one step, its insides, or, where it is no part of the network, always its insides."""
        try:
            self.path_of_module(m)
        except NameError:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def traced(model: nn.Module) -> fx.GraphModule:
    """The network's graph. Raises what torch.fx raises when control flow depends on data."""
    return fx.GraphModule(model, Tracer().trace(model), type(model).__name__)
