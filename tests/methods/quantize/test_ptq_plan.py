"""Plans of post-training quantization: rows, limits, sensitivity; executed by onnxruntime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from netsuke.core.budget import Budget
from netsuke.core.errors import UsageError
from netsuke.core.plan import Plan
from netsuke.core.recipe import Recipe
from netsuke.methods.quantize import ptq
from netsuke.methods.quantize.placement import place

from .graphs import Build, data, resnet
from .ort_runner import runner
from .whole import compress, db, plan_of, run


def test_plan_rows_have_costs_and_kernels():
    plan = plan_of(resnet(), calib=data())
    rows = {row.name: row for row in plan}
    assert rows["stem"].macs == 8 * 8 * 8 * 4 * 9
    assert rows["block.short"].macs == 8 * 8 * 8 * 8
    assert rows["head"].macs == 40
    assert rows["stem"].kernel == "qconv"
    assert rows["gap"].kernel == "qmean"
    assert rows["head"].kernel == "qlinear"
    assert rows["stem"].bytes_before == 4 * (8 * 4 * 9 + 8)
    assert rows["stem"].bytes_after == 8 * 4 * 9 + 8 * 8
    assert (rows["stem"].reason, rows["head"].reason) == ("first layer", "last layer")
    assert plan.data["count"] == 64
    assert len(plan.data["sha256"]) == 64
    assert Plan.from_toml(plan.to_toml()) == plan


def test_edited_plan_keeps_a_layer_and_the_rows_follow():
    model, calib = resnet(), data()
    plan = plan_of(model, calib=calib)
    plan["head"].method = "keep"
    plan["head"].status = "float"
    quantized, _ = compress(model, calib=calib, plan=plan)
    assert quantized.graph.initializers["head.weight"].dtype == ir.DataType.FLOAT
    rows = {row.name: row for row in plan}
    assert rows["gap"].status == "float"
    assert rows["gap"].reason == "no reader needs codes"
    assert rows["block.short"].status == "packed"
    assert rows["head"].bytes_after > 0


def test_bad_effort_and_bad_rows_are_errors():
    model = resnet()
    with pytest.raises(UsageError, match="thorough"):
        plan_of(model, effort="high")
    plan = plan_of(model, calib=data())
    plan["stem"].method = "quantize/minmx"
    plan["gap"].activation_bits = 9
    plan.rows.pop()
    with pytest.raises(UsageError) as caught:
        compress(model, calib=data(), plan=plan)
    assert len(caught.value.problems) == 3


def test_row_that_has_no_integer_kernel_cannot_be_forced():
    b = Build()
    weight = b.const(np.ones((4, 4, 2, 2), np.float32), "up.weight")
    model = b.model(b.conv(b.op("ConvTranspose", "x", weight, name="up", strides=[2, 2]), name="next"))
    plan = plan_of(model, calib=data())
    assert plan["up"].reason.startswith("transposed")
    plan["up"].method, plan["up"].bits, plan["up"].status = "quantize/minmax", 8, "packed"
    with pytest.raises(UsageError, match="no integer kernel"):
        compress(model, calib=data(), plan=plan)


def test_memory_bound_counts_taps_and_grows_with_the_batch():
    model = resnet()
    one, four = ptq.memory_bound(model, 1), ptq.memory_bound(model, 4)
    taps = 4 * 64 + 3 * 8 * 64 + 8  # x, stem, block_relu, block.conv2, block_out, gap; flat shares
    taps += 8 * 64
    assert four - one == 3 * 2 * 4 * taps
    b = Build(("N", 4, "H", "W"))
    free = b.model(b.conv("x", name="a"))
    assert ptq.memory_bound(free, 1) is None
    assert ptq.memory_bound(free, 1, shapes={"x": (4, 8, 8)}) is not None


def test_sensitivity_fills_rows_and_stays_within_the_limit():
    model = resnet()
    plan = plan_of(model, calib=data(), effort="normal")
    assert all(row.sqnr_db > 15 and 0 < row.output_change < 0.1 for row in plan)
    assert any("output change of the whole network" in note for note in plan.notes)


def test_layer_that_hurts_is_raised_or_kept_with_a_reason():
    b = Build(("N", 4, 8, 8))
    y = b.op("Relu", b.conv("x", 8, 4, name="stem"), name="r")
    # one channel a thousand times larger, whose weights behind it are a thousand times smaller: 8 bits lose the rest
    gain = np.ones((1, 8, 1, 1), np.float32)
    gain[0, 0] = 3000
    y = b.op("Mul", y, b.const(gain), name="outlier")
    y = b.conv(y, 8, 8, name="bad")
    weight = b.constants[-2]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[:, 0] /= 3000
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "bad.weight"))
    model = b.model(b.conv(b.op("Relu", y, name="r2"), 4, 8, name="next"))
    plan = plan_of(model, calib=data(), effort="normal", budget=Budget(drop="top1:0.5%"))
    kept = [row for row in plan if row.kept]
    assert "bad" in [row.name for row in kept]
    assert "output change" in plan["bad"].reason
    quantized, _ = compress(model, calib=data(), plan=plan)
    assert db(run(model, data()), run(quantized, data())) > 20
    assert Plan.from_toml(plan.to_toml()) == plan


def test_size_limit_that_cannot_be_met_is_noted():
    plan = plan_of(resnet(), calib=data(), budget=Budget(size="0.1x"))
    assert any(note.startswith("size:") for note in plan.notes)


def test_every_builtin_recipe_can_be_planned():
    from netsuke.core.budget import Budget
    from netsuke.core.recipe import BUILTIN

    for name in BUILTIN:
        recipe = Recipe.make(name)
        steps = {step.method for step in recipe.steps}
        if "quantize/weight_only" in steps:
            continue  # planned without data by the pipeline: tests/pipeline
        options = {"budget": Budget(size=0.3)} if "bits/search" in steps else {}
        plan = plan_of(resnet(), recipe, data(), **options)
        assert plan.recipe == name
        assert set(place(resnet()).layers) == {row.name for row in plan}


def test_large_networks_are_ranked_on_fewer_samples():
    from netsuke.core.plan import Row
    from netsuke.methods.quantize.sensitivity import ranking_samples

    def plan(macs):
        return Plan(rows=[Row("a", "Conv", macs=macs), Row("b", "Relu")])

    assert [ranking_samples(plan(m), "normal") for m in (None, 40e6, 1e9, 4e9)] == [16, 16, 8, 4]
    assert ranking_samples(plan(4e9), "thorough") == 64


def test_a_layer_alone_is_judged_by_what_stands_behind_it():
    from netsuke.methods.quantize import _alone
    from netsuke.methods.quantize._context import Context

    model, calib = resnet(), data()
    context = ptq.prepare(model, plan_of(model, calib=calib), calib, runner, 0)
    assert isinstance(context, Context)
    rows = [row for row in context.plan.rows if not row.kept]
    groups = list(_alone.groups(context, rows, 8))
    assert [found.row.name for group in groups for found in group] == [row.name for row in rows]
    smaller = 0
    for found in (found for group in groups for found in group):
        exact = _alone.reference(context, [found], 8)
        got = _alone.judge(context, found, exact, 8)
        whole, output = _alone.isolated(context, found.row)
        own, all_outputs = _alone.Change(), _alone.Change()
        taps = [output, *_alone.outputs(model)]
        a, b = _alone.run(context, context.model, taps, 8), _alone.run(context, whole, taps, 8)
        own.add(a[output], b[output])
        all_outputs.add(a[taps[1]], b[taps[1]])
        np.testing.assert_allclose(got, (own.db, all_outputs.relative), rtol=1e-3)
        smaller += len(list(found.part.model.graph)) < len(list(whole.graph)) - 2
    assert smaller >= len(rows) // 2


def test_sizes_are_computed_again_where_a_network_is_cut():
    """Reshape to sizes taken from a tensor: the integers are no border, the floats they come from are."""
    from netsuke.methods.quantize._graph import clone
    from netsuke.methods.quantize._suffix import suffix

    build = Build()
    first = build.conv("x", 8, 4, name="first")
    second = build.conv(first, 8, 8, name="second")
    flat = build.op("Reshape", second, build.op("Shape", first))
    model = build.model(flat)
    edited = clone(model)
    node = next(n for n in edited.graph if n.name == "second")
    relu = ir.node("Relu", [node.inputs[0]], name="edit")
    out, source = relu.outputs[0], node.inputs[0]
    out.name, out.shape, out.type = "edited", source.shape, source.type
    edited.graph.insert_before(node, relu)
    node.replace_input_with(0, out)
    part = suffix(model, edited, [flat])
    assert part.cuts == (first,)
    assert not part.sources
    assert sorted(n.op_type for n in part.model.graph) == ["Conv", "Relu", "Reshape", "Shape"]


def test_a_large_network_is_judged_after_weight_steps_on_fewer_samples():
    from netsuke.core.plan import Row
    from netsuke.methods.quantize._context import Context
    from netsuke.methods.quantize.sensitivity import _few, _few_noted

    def judged(macs):
        context = Context(resnet(), Plan(rows=[Row("a", "Conv", macs=macs)]), data(count=64), runner)
        count = _few(context).count
        assert (_few_noted(context).count, context.plan.notes[1:]) == (count, [])  # said once
        return count, context.plan.notes

    assert judged(1_000_000) == (64, [])
    assert judged(None) == (64, [])
    count, notes = judged(4_000_000_000)
    assert count == 25
    assert notes == ["the whole network was judged after weight steps on 25 of 64 samples"]


def test_layers_that_must_go_together_are_improved_before_the_network_is_judged_again():
    from netsuke.core.plan import Row
    from netsuke.methods.quantize.sensitivity import condemned

    changes = {"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.0}
    rows = [Row(name, "Conv", method="quantize/mse", output_change=change) for name, change in changes.items()]
    total = float(np.sqrt(0.14))  # as if errors were independent

    def names(limit, candidates=rows, total=total):
        return [row.name for row in condemned(rows, candidates, total, limit)]

    assert names(0.3) == ["b"]
    assert names(0.2) == ["b", "c"]  # without b 0.224 would be left
    assert names(0.05) == ["b", "c", "a"]
    assert names(0.05, rows[2:]) == ["c", "d"]
    assert names(0.3, total=2 * total) == ["b", "c"]  # more than the sum of squares: 0.447 left without b
    assert names(0.3, []) == []
    rows[1].output_change = float("inf")
    assert names(0.3) == ["b"]
