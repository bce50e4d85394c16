"""One streaming pass over the calibration data: statistics of every tensor that owns a quantizer, then its range."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from netsuke.core.errors import Problem, UsageError, near
from netsuke.core.method import Method, methods
from netsuke.core.options import configure
from netsuke.core.recipe import Step
from netsuke.methods.quantize import data_free
from netsuke.methods.quantize._context import Context, Feeds, data_inputs
from netsuke.methods.quantize._graph import Array, clone, constant, dims
from netsuke.methods.quantize._layer import Layer
from netsuke.methods.quantize._parallel import each, threads_of
from netsuke.methods.quantize._statistics import STATE_BYTES, Statistics
from netsuke.methods.quantize._store import Store
from netsuke.methods.quantize._widths import widths
from netsuke.methods.quantize.placement import Placement

_BUDGET = 512 * 2**20  # bytes of activations held at a time; the batch is chosen to stay below


def calibrator(text: str) -> tuple[Method, Any]:
    """The record and the config of "quantize/name:options"; UsageError when there is no such calibrator."""
    step = Step.parse(text)
    known = {name: m for name, m in methods().items() if "calibrator" in m.tags}
    if step.method not in known:
        raise UsageError(Problem("no such calibrator", got=step.method, allowed=near(step.method, known)))
    record = known[step.method]
    return record, configure(record.config, step.options, step.method)


def chosen(context: Context) -> dict[str, tuple[Method, Any]]:
    """Calibrator by quantizer: the row of the first layer (in graph order) that reads the tensor decides."""
    rows = {row.name: row for row in context.plan.rows}
    table = {}
    for root in context.placement.roots:
        readers = context.placement.readers(root)
        named = [rows[layer.name].method for layer in readers if layer.name in rows and not rows[layer.name].kept]
        if not named:
            raise ValueError(f"{root.name}: a quantizer that no quantized layer reads")
        table[root.name or ""] = calibrator(named[0])
    return table


def calibrate(context: Context, *, histograms: bool = False) -> None:
    """Run the float network over the calibration data and set the context's statistics and ranges.

    histograms  keep one for every tensor, so that any calibrator can be tried later without another run
    """
    if not context.placement.roots:  # the plan keeps every layer in float: there is nothing to find a range for
        settle(context)
        return
    statistics: dict[str, Statistics] = {}
    store, key, done = context.store, store_key(context), 0
    for done, statistics in stream(context, histograms=histograms, store=store):
        if store is not None:
            store.keep(key, done, statistics, last=False)
    if store is not None and statistics and done > store.done * (store.key == key):
        store.keep(key, done, statistics, last=True)
    if not statistics:
        what = "no batch of calibration data reached the network"
        raise UsageError(Problem(what, hint="at least one full batch is needed; is the batch dimension fixed?"))
    context.statistics = statistics
    settle(context)


def settle(context: Context) -> None:
    """Set the context's ranges from its statistics; merges quantizers of concats in the context's fresh placement."""
    context.widths = widths(context.plan, context.placement)
    context.ranges = ranges(context, context.statistics)
    if context.plan.data.get("source") == data_free.SOURCE:
        data_free.from_batch_norm(context)
    share_concats(context.placement, context.ranges, context.widths)


def stream(
    context: Context, limit: int | None = None, *, histograms: bool = False, store: Store | None = None
) -> Iterator[tuple[int, dict[str, Statistics]]]:
    """After every batch: samples seen so far and the running statistics (the same objects, updated).

    store  statistics of an earlier stream over the same samples: what it has seen is not run again
    """
    table = chosen(context)
    statistics = {
        name: Statistics(name, histogram=histograms or "histogram" in m.tags, momentum=getattr(config, "momentum", 0.9))
        for name, (m, config) in table.items()
    }
    sources = {value.name or "" for value in data_inputs(context.model)}
    taps = [name for name in table if name not in sources]
    count = context.calib.count if context.calib else 0
    total = count if limit is None else min(count, limit)
    done, fed = store.restore(store_key(context), statistics) if store is not None else 0, deque[Feeds]()
    if done:
        context.progress("calibrate", done, total)
        yield done, statistics
    if done >= total and done:
        return
    threads = threads_of(context.runner)
    for tapped in context.runner(context.model, _tee(context, limit, fed, done), taps):
        x = fed.popleft()
        for name in sources & statistics.keys():
            statistics[name].add(x[name])  # type: ignore[arg-type]
        each(functools.partial(_take, statistics, tapped), taps, threads)
        done += len(next(iter(x.values())))
        context.progress("calibrate", done, total)
        yield done, statistics


def _take(statistics: dict[str, Statistics], tapped: Mapping[str, Array], name: str) -> None:
    statistics[name].add(tapped[name])


def store_key(context: Context) -> str:
    """What the float network's activations depend on: steps that edit it, layers they may touch, and the samples."""
    kept = [row.name for row in context.plan.rows if row.kept] if "equalization" in " ".join(context.plan.steps) else []
    data = context.calib.sha256 if context.calib is not None else ""
    return repr((context.plan.steps, kept, data, context.seed, context.batch))


def _tee(context: Context, limit: int | None, fed: deque[Feeds], seen: int = 0) -> Iterator[Feeds]:
    """Feeds for the runner behind the first `seen` samples; inputs it has taken and not yet answered stand in `fed`."""
    for feed in context.feeds(limit):
        if seen > 0:
            seen -= len(next(iter(feed.values())))
            continue
        fed.append(feed)
        yield feed


def ranges(context: Context, statistics: dict[str, Statistics]) -> dict[str, tuple[float, float]]:
    """(lo, hi) of each quantizer by its calibrator."""
    table = chosen(context)
    bits = context.widths
    found = {}
    for name, (record, config) in table.items():
        known = statistics[name].known  # a search over a histogram; settling a plan again mostly asks the same
        key = (record.name, repr(config), bits.get(name, 8))
        if key not in known:
            known[key] = record.apply(statistics[name], config, bits=bits.get(name, 8))
        found[name] = known[key]
    for layer in context.placement.layers.values():
        factor = scaling(layer)
        name = layer.output.name or ""
        if factor is not None and name in found:
            source = context.placement.group[layer.inputs[0]].name or ""
            if bits.get(source, 8) == bits.get(name, 8):
                found[name] = (found[source][0] * factor, found[source][1] * factor)
    return found


def range_at(context: Context, root: str, bits: int) -> tuple[float, float]:
    """(lo, hi) of a quantizer if its codes had this many bits; the statistics must be there unless it has them."""
    if bits == context.widths.get(root, 8):
        return context.ranges[root]
    record, config = chosen(context)[root]
    low, high = record.apply(context.statistics[root], config, bits=bits)
    return float(low), float(high)


def scaling(layer: Layer) -> float | None:
    """c > 0 when the layer multiplies by the constant c: with the input's range times c, its codes are the input's."""
    if layer.kernel != "lut" or not layer.quantized or [n.op_type for n in layer.nodes] not in (["Mul"], ["Div"]):
        return None
    node = layer.node
    array = constant(node.inputs[1] if constant(node.inputs[0]) is None else node.inputs[0])
    if array is None or array.size != 1 or (node.op_type == "Div" and constant(node.inputs[1]) is None):
        return None
    value = float(array.reshape(-1)[0])
    factor = value if node.op_type == "Mul" else (1 / value if value else 0.0)
    return factor if 0 < factor < math.inf else None


def share_concats(
    placement: Placement, found: dict[str, tuple[float, float]], bits: Mapping[str, int] | None = None
) -> None:
    """Give the inputs and the output of a concat one quantizer where every part keeps more than half of its levels.

    Codes can then be copied as they are (exact and cheaper); a part whose range is under half of the common one would
    lose a bit and keeps its own quantizer (its codes pass a table). So does a part of another width (`bits` by name, 8
    where absent).
    """
    width = bits or {}
    owner = {root: root for root in placement.roots}
    spans: dict[ir.Value, list[float]] = {root: [_span(found[root.name or ""])] for root in owner}
    for inputs, output in placement.concats:
        target = _find(owner, placement.group[output])
        for value in inputs:
            part = _find(owner, placement.group[value])
            if part is target or width.get(part.name or "", 8) != width.get(target.name or "", 8):
                continue
            low = min(found[part.name or ""][0], found[target.name or ""][0])
            high = max(found[part.name or ""][1], found[target.name or ""][1])
            if min(spans[part] + spans[target]) * 2 > high - low:
                owner[part] = target
                spans[target] += spans.pop(part)
                found[target.name or ""] = (low, high)
    for value, root in placement.group.items():
        placement.group[value] = _find(owner, root)


def _span(bounds: tuple[float, float]) -> float:
    return bounds[1] - bounds[0]


def _find(owner: dict[ir.Value, ir.Value], value: ir.Value) -> ir.Value:
    while owner[value] is not value:
        value = owner[value]
    return value


def memory_bound(model: ir.Model, batch: int, *, shapes: Mapping[str, Sequence[int]] | None = None) -> int | None:
    """Most bytes that calibration holds at a time, besides the weights and what the runner needs to compute.

    The tapped activations of one batch (twice: as the runner yields them and as they are read), the statistics, and
    the index array of one slice. `shapes` gives sizes per sample of tensors whose height and width are free; None is
    returned when a size is unknown and not given.
    """
    found = tapped(model, shapes or {})
    return None if found is None else 8 * 2**20 + 2 * 4 * found[0] * batch + STATE_BYTES * found[1]


def tapped(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """Elements per sample of all tensors that may own a quantizer, and how many they are; None: a size is unknown."""
    from netsuke.methods.quantize.placement import place

    sizes = [_elements(root, shapes) for root in place(model).roots]
    known = [size for size in sizes if size is not None]
    return (sum(known), len(known)) if len(known) == len(sizes) else None


def sizes(model: ir.Model, sample: Sequence[int] | Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Shape per sample of every value whose size is known once the data inputs hold samples of this shape.

    sample  shape for the only input, or by input name ("" for the only one), as `Dataset.shapes`
    """
    from netsuke.capture.shapes import infer_shapes

    sized = clone(model)
    inputs = data_inputs(sized)
    given = sample if isinstance(sample, Mapping) else {"": sample}
    known = {v.name or "": given.get(v.name or "", given.get("")) for v in inputs}
    for value in inputs:
        wanted = known[value.name or ""]
        if wanted is not None:
            value.shape = ir.Shape([1, *wanted])
    infer_shapes(sized)
    found = {}
    for value in (v for node in sized.graph for v in node.outputs):
        shape = dims(value)
        if value.name and shape and None not in shape[1:]:
            found[value.name] = [d for d in shape[1:] if d is not None]
    return {**found, **{name: list(size) for name, size in known.items() if size is not None}}


def choose_batch(
    model: ir.Model, samples: int, sample: Sequence[int] | Mapping[str, Sequence[int]] | None = None
) -> int:
    """The largest power of two up to 32 whose `memory_bound` is at most 512 MiB; 1 when sizes are unknown.

    `sample` is the shape of one sample, for networks whose height and width are free.
    """
    shapes = sizes(model, sample) if sample is not None else None
    batch = 32
    while batch > 1 and (batch >= 2 * samples or (memory_bound(model, batch, shapes=shapes) or _BUDGET + 1) > _BUDGET):
        batch //= 2
    return batch


def _elements(value: ir.Value, shapes: Mapping[str, Sequence[int]]) -> int | None:
    sizes: Sequence[object] = shapes.get(value.name or "") or (dims(value) or [None, None])[1:]
    count = 1
    for d in sizes:
        if not isinstance(d, int):
            return None
        count *= d
    return count
