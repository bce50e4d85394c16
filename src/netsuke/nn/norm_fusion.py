"""`fuse_norms(model, example)`: a network's training pass with every batch normalization, the addition and the ReLU
behind it in one kernel (`fused_norm`), and with integer convolutions before it, several in a row, in one step
(`conv_norm`).

    forward = fuse_norms(model, example)       # model: any PyTorch network, integer layers or not
    loss = criterion(forward(images), labels)  # instead of model(images)

torch.fx finds the places. What comes back is a function that walks through the model's own modules in another order of
calls: the model keeps its class, parameters, state dict, hooks and code, and is what is evaluated, saved, folded and
exported. In eval mode the function calls the model.

A network whose pass torch.fx cannot write down completely is refused with the reason: control flow on values, other
code in training than in evaluation, random numbers, constants or attributes made while it runs, hooks on modules that
are opened, gradients or autocast switched inside. One pass in eval mode must then give the model's outputs bit for bit.
A normalization that cannot be taken is left to torch, `left` says why.
"""

from __future__ import annotations

import copy
import inspect
import operator
import random
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from netsuke.core.errors import Problem, UnsupportedError
from netsuke.nn.conv_norm import conv_norms
from netsuke.nn.fused_norm import hooked, norm_activation
from netsuke.nn.integer_train import IntegerConv2d
from netsuke.nn.l1_norm import L1Norm2d
from netsuke.nn.tracer import Tracer

_RELU = (functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_")
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_", "__add__", "__iadd__")
_IN_PLACE_ADD = (operator.iadd, "add_", "__iadd__")


class FusedForward:
    """The training pass of `model`. fused: what each normalization was joined with, by name; left: why others were
    not. Structure must not change afterwards (modules may be replaced one for one): call `fuse_norms` again."""

    def __init__(self, model: nn.Module, example: Tensor, code: Callable[..., Any]) -> None:
        self.model, self.example, self._code = model, example, code
        self.fused: dict[str, str] = {}
        self.left: dict[str, str] = {}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        plain = not self.model.training or len(inputs) != 1 or named or hooked(self.model)
        if plain or torch.nn.modules.module._has_any_global_hook():
            return self.model(*inputs, **named)
        return self._code(self.model, *inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        return fuse_norms, (self.model, self.example)

    def summary(self) -> str:
        """One line; the first normalization left with its reason."""
        text = f"{len(self.fused)} normalizations in one kernel with what stands behind them"
        if self.left:
            name, why = next(iter(self.left.items()))
            text += f"; {len(self.left)} left to torch: {name}: {why}" + (", ..." if len(self.left) > 1 else "")
        return text


class _Tracer(Tracer):
    """Opens the user's modules; torch's and netsuke's are single steps."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: dict[str, nn.Module] = {}
        self.problems: set[str] = set()
        self._modes = self._current()

    @staticmethod
    def _current() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.modules.batchnorm._BatchNorm) or m.__module__.startswith("netsuke.nn")
        leaf = leaf or super().is_leaf_module(m, module_qualified_name)
        if not leaf:
            self.opened[module_qualified_name] = m
        return leaf

    def create_node(self, kind: str, target: Any, *rest: Any, **named: Any) -> fx.Node:
        if self._current() != self._modes:
            self.problems.add("gradients or autocast are switched inside")
        return super().create_node(kind, target, *rest, **named)


def _refuse(what: str, got: str = "", where: str = "") -> UnsupportedError:
    return UnsupportedError(Problem(what, where, got, hint="train without fuse_norms"))


def _parameters(model: nn.Module) -> dict[str, Any]:
    """The defaults of `forward`, which stay as they are; one input is required."""
    fixed, required = {}, 0
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _refuse("forward takes any number of arguments", str(parameter))
        if parameter.default is parameter.empty:
            required += 1
        else:
            fixed[name] = parameter.default
    if required != 1:
        raise _refuse("forward needs other than one input", str(required))
    return fixed


def _state(modules: dict[str, nn.Module]) -> dict[str, Any]:
    """What a pass could change besides the tensors it makes: attributes and the lengths of lists, versions of tensors,
    generators."""
    legacy: Any = np.random.get_state()  # noqa: NPY002 - what the user's code may draw from
    drawn = (random.getstate(), legacy[1].tolist(), legacy[2], torch.get_rng_state().tolist())
    found: dict[str, Any] = {"random numbers": drawn}
    for name, module in modules.items():
        for key, value in vars(module).items():
            many = len(value) if isinstance(value, list | dict | set) else None
            found[f"{name}.{key}".lstrip(".")] = (id(value), many)
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            found[f"{name}.{key}".lstrip(".")] = None if tensor is None else (id(tensor), tensor._version)
    return found


def _traced(model: nn.Module, fixed: dict[str, Any]) -> fx.Graph:
    """The pass as a graph; `model` is a copy, which tracing may change."""
    tracer, modules = _Tracer(), dict(model.named_modules())
    before = _state(modules)
    try:
        graph = tracer.trace(model, concrete_args=fixed)
    except Exception as error:  # whatever the user's code does with placeholders
        raise _refuse(
            "torch.fx cannot follow the pass", f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        ) from error
    after = _state(modules)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        named = ["a constant tensor" if key.startswith("_tensor_constant") else key for key in changed]
        raise _refuse("the pass changes, draws or makes what a graph cannot hold", ", ".join(sorted(set(named))[:4]))
    if tracer.problems:
        raise _refuse(", and ".join(sorted(tracer.problems)))
    for name, module in {"": model, **tracer.opened}.items():
        if hooked(module):
            raise _refuse("hooks on a module that has to be opened", type(module).__name__, name)
    return graph


class _Fuser:
    """Joins normalizations of a graph with what reads them."""

    def __init__(self, graph: fx.Graph, model: nn.Module) -> None:
        self.graph, self.nodes = graph, list(graph.nodes)
        self.modules = dict(model.named_modules())
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.taken: set[fx.Node] = set()
        self.fused: dict[str, str] = {}
        self.left: dict[str, str] = {}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def run(self) -> None:
        """From the last normalization to the first: of two that meet in an addition the later one takes it, so that
        nothing stands between."""
        norms = [n for n in self.nodes if isinstance(self.module(n), nn.BatchNorm2d | L1Norm2d)]
        calls = [id(self.module(n)) for n in norms]
        for node, name in ((n, str(n.target)) for n in reversed(norms)):
            module = self.module(node)
            assert module is not None
            if type(module) not in (nn.BatchNorm2d, L1Norm2d):
                self.left[name] = f"it is a {type(module).__name__}"
            elif calls.count(id(module)) > 1:
                self.left[name] = "it is called more than once"
            elif hooked(module):
                self.left[name] = "it has hooks"
            elif len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node):
                self.left[name] = "it is called in another way than with one input"
            else:
                self._join(node, name)
        self.fused, self.left = dict(reversed(self.fused.items())), dict(reversed(self.left.items()))
        self.join_convolutions()

    def join_convolutions(self) -> None:
        """Integer convolutions and the normalizations that alone read them become one step (`conv_norms`), and so do
        several in a row; only the last one's may have a residual."""
        rows: dict[Any, list[fx.Node]] = {}  # by their last normalization
        self.nodes = list(self.graph.nodes)
        self.order = {node: index for index, node in enumerate(self.nodes)}
        for norm in [n for n in self.nodes if n.target is norm_activation]:
            conv: Any = norm.args[0]
            if not self._is_integer(conv) or len(conv.users) > 1:
                continue
            before: Any = conv.args[0]
            row = [conv, norm]
            if before in rows and len(before.users) == 1 and before.args[2] is None:
                longer = [*rows[before], *row]
                if not self._writes_between(longer):
                    rows.pop(before)
                    row = longer
            if not self._writes_between(row):
                rows[norm] = row
        for row in rows.values():
            self._join_row(row)

    def _is_integer(self, node: fx.Node) -> bool:
        module = self.module(node)
        plain = type(module) is IntegerConv2d and len(node.args) == 1 and not node.kwargs
        return plain and not hooked(cast(nn.Module, module))

    def _writes_between(self, row: list[fx.Node]) -> bool:
        between = self.nodes[self.order[row[0]] + 1 : self.order[row[-1]]]
        return any(self._writes(n) for n in between if n not in row)

    def _join_row(self, row: list[fx.Node]) -> None:
        last, pairs = row[-1], zip(row[::2], row[1::2], strict=True)
        with self.graph.inserting_before(last):
            units = tuple((self.graph.get_attr(str(c.target)), n.args[1], n.args[3]) for c, n in pairs)
            residual, shortcut = self._shortcut(cast(Any, row[0].args[0]), last)
            new = self.graph.call_function(conv_norms, (row[0].args[0], residual, *units))
        last.replace_all_uses_with(new)
        for node in (*reversed(row), *shortcut):
            self.graph.erase_node(node)

    def _shortcut(self, x: fx.Node, last: fx.Node) -> tuple[Any, tuple[fx.Node, ...]]:
        """(step, channels of zeros before, after) where the residual is every n-th pixel of x and nobody else reads it,
        and the nodes that made it."""
        residual = cast(fx.Node | None, last.args[2])
        given: Any = residual.args if residual is not None and residual.target is functional.pad else (None,)
        pixels, named = given[0], {} if residual is None else residual.kwargs
        if not isinstance(pixels, fx.Node) or pixels.target is not operator.getitem or pixels.args[0] is not x:
            return residual, ()
        assert residual is not None
        index: Any = pixels.args[1]
        step = index[3].step if isinstance(index, tuple) and len(index) == 4 and isinstance(index[3], slice) else None
        every, nth = slice(None), slice(None, None, step)
        sizes: Any = given[1] if len(given) == 2 and isinstance(given[1], list | tuple) else ()
        zeros = (
            named.get("mode", "constant") == "constant" and not named.get("value") and set(named) <= {"mode", "value"}
        )
        fits = len(sizes) == 6 and all(isinstance(v, int) and v >= 0 for v in sizes) and not any(sizes[:4])
        plain = isinstance(step, int) and step > 0 and index == (every, every, nth, nth)
        alone = len(pixels.users) == 1 and len(residual.users) == 1
        if not (plain and zeros and fits and alone) or self._writes_between([pixels, residual, last]):
            return residual, ()
        return (step, *sizes[4:]), (residual, pixels)

    def _reader(self, node: fx.Node) -> fx.Node | None:
        """The only reader, not part of another normalization yet."""
        readers = list(node.users)
        free = len(readers) == 1 and readers[0] not in self.taken and readers[0].op != "output"
        return readers[0] if free else None

    def _is_relu(self, node: fx.Node | None) -> bool:
        if node is None or len(node.args) > 2 or set(node.kwargs) - {"inplace"}:
            return False
        if node.op == "call_module":
            module = self.module(node)
            return type(module) is nn.ReLU and not hooked(module)
        return node.op in ("call_function", "call_method") and node.target in _RELU

    def _residual(self, norm: fx.Node, node: fx.Node | None) -> fx.Node | None:
        """The other summand when `node` adds one, like `norm` in shape or not, and writes into nothing but `norm`."""
        if node is None or node.op not in ("call_function", "call_method") or node.target not in _ADD:
            return None
        if len(node.args) != 2 or node.kwargs:  # alpha, out
            return None
        first, second = node.args
        if first is second or not (isinstance(first, fx.Node) and isinstance(second, fx.Node)):
            return None
        if node.target in _IN_PLACE_ADD and first is not norm:
            return None
        return second if first is norm else first

    def _writes(self, node: fx.Node) -> bool:
        """May this node write into a tensor that exists?"""
        name = str(getattr(node.target, "__name__", node.target))
        operators = name == "setitem" or (node.target in vars(operator).values() and name.startswith("i"))
        underscore = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
        settings = bool(node.kwargs.get("inplace")) or "out" in node.kwargs
        return operators or underscore or settings or bool(getattr(self.module(node), "inplace", False))

    def _join(self, norm: fx.Node, name: str) -> None:
        chain, x, reader = [norm], norm.args[0], self._reader(norm)
        residual = self._residual(norm, reader)
        if residual is not None:
            assert reader is not None
            chain.append(reader)
            reader = self._reader(reader)
        relu = self._is_relu(reader)
        if relu:
            assert reader is not None
            chain.append(reader)
        between = self.nodes[self.order[norm] + 1 : self.order[chain[-1]]]
        if any(self._writes(n) for n in between if n not in chain):
            chain, residual, relu = [norm], None, False  # its input could be another one by then
        last = chain[-1]
        with self.graph.inserting_before(last):
            new = self.graph.call_function(norm_activation, (x, self.graph.get_attr(name), residual, relu))
        last.replace_all_uses_with(new)
        for node in reversed(chain):
            self.graph.erase_node(node)
        self.taken.update(chain, (new,))
        self.fused[name] = " + ".join(["norm", *["add"] * (residual is not None), *["relu"] * relu])


def _same(a: Any, b: Any) -> bool:
    """Equal outputs, bit for bit, whatever holds them."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(v, w) for v, w in zip(a, b, strict=True))
    return bool(a == b)


def _function(graph: fx.Graph) -> Callable[..., Any]:
    """The graph as a function of (model, *inputs)."""
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(compile(code.src, "<fused pass>", "exec"), names)
    made: Callable[..., Any] = names["forward"]
    return made


def fuse_norms(model: nn.Module, example: Tensor) -> FusedForward:
    """The training pass of `model` with fused normalizations; the model is not changed.

    example: a batch of inputs, f32 [N, C, H, W] of at least two images, for one training pass of a copy (integer layers
    need a range) and one comparison in eval mode. Raises UnsupportedError with the reason for a network that cannot be
    taken, or that has no normalization to take.
    """
    if not any(isinstance(m, nn.BatchNorm2d | L1Norm2d) for m in model.modules()):
        raise _refuse("no batch normalization in this network", type(model).__name__)
    fixed = _parameters(model)
    try:
        twin = copy.deepcopy(model)
    except Exception as error:  # a model may hold anything
        raise _refuse("the network cannot be copied", f"{type(error).__name__}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        graphs = [_traced(twin.train(mode), fixed) for mode in (False, True)]
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise _refuse("the pass differs between training and evaluation")
    fuser = _Fuser(graphs[1], twin)
    fuser.run()
    if not fuser.fused:
        name, why = next(iter(fuser.left.items()), ("", "none is called"))
        raise _refuse(f"no normalization can be taken: {why}", where=name)
    made = FusedForward(model, example, _function(graphs[1]))
    made.fused, made.left = fuser.fused, fuser.left
    _check(twin, made, example)
    return made


def _check(twin: nn.Module, made: FusedForward, example: Tensor) -> None:
    """A training pass of the copy, then the model's and the traced outputs in eval mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            twin.train()(example)
            expected, found = twin.eval()(example), made._code(twin, example)
        except Exception as error:  # the user's code or example
            raise _refuse("the example does not pass", f"{type(error).__name__}: {error}") from error
    if not _same(expected, found):
        raise _refuse("the traced pass gives other outputs than the network")
