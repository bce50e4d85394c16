"""The whole way: plan, calibrate, insert; executed by onnxruntime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from netsuke.core.errors import UsageError
from netsuke.data import Dataset
from netsuke.methods.quantize._graph import constant
from netsuke.methods.quantize.placement import place

from .graphs import Build, data, resnet
from .whole import compress, db, plan_of, run

CALIBRATORS = ("minmax", "moving_average", "percentile", "mse", "entropy")


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_each_calibrator_gives_a_close_network(calibrator):
    model, calib, other = resnet(), data(), data(seed=2)
    quantized, plan = compress(model, [f"quantize/whitepaper_int8:calibrator={calibrator}"], calib)
    assert db(run(model, other), run(quantized, other)) > (12 if calibrator == "entropy" else 28)
    assert {row.method for row in plan} == {f"quantize/{calibrator}"}


def test_result_is_valid_onnx_with_standard_quantizers():
    model = resnet()
    quantized, _ = compress(model, calib=data())
    proto = ir.to_proto(quantized)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [n.op_type for n in quantized.graph]
    assert kinds.count("QuantizeLinear") == 7
    assert kinds.count("DequantizeLinear") == 7 + 5
    for node in quantized.graph:
        if node.op_type == "QuantizeLinear":
            assert constant(node.inputs[2]).dtype == np.uint8
            assert constant(node.inputs[1]).shape == ()
        if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None:
            codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
            assert codes.dtype == np.int8
            assert codes.min() >= -127
            assert scale.shape == (codes.shape[0],)
            np.testing.assert_array_equal(np.abs(codes.astype(int)).reshape(len(codes), -1).max(axis=1), 127)
    assert quantized.metadata_props["netsuke.requant"] == "float"


def test_given_model_is_not_changed_and_float_weights_are_gone():
    model = resnet()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    quantized, _ = compress(model, calib=data())
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert not [name for name in quantized.graph.initializers if name.endswith(".weight")]


def test_same_input_and_seed_give_the_same_bytes():
    model, calib = resnet(), data(300)
    base = "quantize/whitepaper_int8:calibrator=mse,samples=100"
    recipe = ["quantize/equalization", base, "quantize/bias_correction"]
    texts = [ir.to_proto(compress(model, recipe, calib)[0]).SerializeToString(deterministic=True) for _ in range(2)]
    assert texts[0] == texts[1]


def test_moved_codes_share_scale_constants():
    quantized, _ = compress(resnet(), calib=data())
    used = {n.name: n.inputs[1].name for n in quantized.graph if n.op_type == "QuantizeLinear"}
    assert used["flat_out/quantize"] == used["gap_out/quantize"] == "gap_out.scale"


def test_fewer_weight_bits_limit_the_codes():
    model, calib = resnet(), data()
    plan = plan_of(model, calib=calib)
    plan["block.conv1"].weight_bits = 4
    quantized, _ = compress(model, calib=calib, plan=plan)
    assert np.abs(constant(quantized.graph.initializers["block.conv1.weight.codes"]).astype(int)).max() == 7
    assert plan["block.conv1"].status == "packed"
    assert plan["block.conv1"].bytes_after == 8 * 8 * 9 // 2 + 8 * 8
    assert plan["stem"].status == "packed"


def test_per_tensor_and_mse_weights():
    model, calib = resnet(), data()
    quantized, _ = compress(model, ["quantize/whitepaper_int8:granularity=tensor,weights=mse"], calib)
    scale = constant(quantized.graph.initializers["stem.weight.scale"])
    assert scale.shape == ()
    assert db(run(model, calib), run(quantized, calib)) > 20


def test_dyadic_is_handed_on_as_metadata():
    model = resnet()
    quantized, plan = compress(model, "cpu-int8-dyadic", data())
    assert plan.requant == "dyadic"
    assert quantized.metadata_props["netsuke.requant"] == "dyadic"


def test_data_free_is_named_so_and_works():
    model, other = resnet(), data(seed=3)
    quantized, plan = compress(model)
    assert plan.data["source"].startswith("data-free")
    assert "data-free" in str(plan)
    assert db(run(model, other), run(quantized, other)) > 10


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (["quantize/whitepaper_int8:calibrator=mean"], "no such calibrator"),
        (["quantize/whitepaper_int8:weights=max"], "maxabs, mse"),
        (["quantize/whitepaper_int8:bitz=4"], "unknown option"),
        (["quantize/minmax"], "not a step"),
        (["quantize/equalization"], "needs one step"),
        (["quantize/whitepaper"], "did you mean quantize/whitepaper_int8"),
    ],
)
def test_bad_recipes(recipe, message):
    with pytest.raises(UsageError, match=message):
        plan_of(resnet(), recipe, data())


def test_nan_inside_the_network_names_the_tensor():
    b = Build()
    y = b.op("Log", b.op("Relu", b.conv("x", name="stem"), name="r"), name="log")  # log(0) is -infinity
    model = b.model(b.conv(y, name="next"))
    with pytest.raises(UsageError, match=r"tensor log_out.*infinity"):
        compress(model, calib=data())


def test_nan_in_the_data_names_the_sample():
    x = data().reader.x.copy()
    x[5, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="sample 5"):
        compress(resnet(), calib=Dataset.from_arrays(x))


def test_zero_range_activation():
    b = Build()
    y = b.op("Relu", b.op("Sub", b.op("Abs", b.conv("x", name="stem")), b.const(np.float32(1e9))), name="dead")
    model = b.model(b.conv(y, name="next"))
    quantized, _ = compress(model, calib=data())
    got, exact = run(quantized, data()), run(model, data())
    np.testing.assert_allclose(got, exact, atol=1e-6)


def test_fixed_batch_uses_whole_batches_only():
    b = Build((3, 4, 8, 8))
    model = b.model(b.conv(b.op("Relu", b.conv("x", name="a"), name="r"), name="b"))
    compress(model, calib=data(7))
    with pytest.raises(UsageError, match="full batch"):
        compress(model, calib=data(2))


def test_wrong_shape_of_data_is_an_error_before_anything_runs():
    with pytest.raises(UsageError, match="do not fit"):
        compress(resnet(), calib=data(shape=(3, 8, 8)))


def test_second_input_is_an_error_that_names_it():
    from onnx import TensorProto, helper

    b = Build()
    b.inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ("N", 4, 8, 8)))
    model = b.model(b.conv(b.op("Mul", "x", "mask"), name="a"))
    with pytest.raises(UsageError, match="allowed: x, mask"):
        compress(model, calib=data())


def test_a_large_table_is_stored_as_codes_with_a_scale_a_row():
    b = Build(("N", 4))
    ids = b.op("Cast", "x", name="ids", to=7)
    table = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    table[5] *= 100
    rows = b.op("Gather", b.const(table, "emb.weight"), ids, name="emb")
    model = b.model(b.op("MatMul", rows, b.const(np.ones((8, 3), np.float32), "head.weight"), name="head"))
    assert place(model).layers["emb"].table is not None
    quantized_model, plan = compress(model, calib=data(shape=(4,)))
    assert (plan["emb"].rows[0].weight_bits, plan["emb"].rows[0].status) == (8, "packed")
    maker = next(n for n in quantized_model.graph if n.op_type == "Gather").inputs[0].producer()
    codes, scale = (v.const_value.numpy() for v in maker.inputs[:2])
    assert codes.dtype == np.int8
    assert scale.shape == (1000,)
    np.testing.assert_allclose(codes * scale[:, None], table, atol=float(np.abs(table).max()) / 254)
    np.testing.assert_allclose((codes * scale[:, None])[6], table[6], atol=float(np.abs(table[6]).max()) / 253)
    plan["emb"].rows[0].method = "keep"
    kept, _ = compress(model, calib=data(shape=(4,)), plan=plan)
    assert "emb.weight" in kept.graph.initializers


def test_concat_shares_a_quantizer_where_it_costs_under_a_bit():
    def scales(gain):
        b = Build()
        first = b.conv("x", name="a", scale=0.3, bias=False)
        second = b.conv("x", name="b", scale=0.3 * gain, bias=False)
        y = b.op("Concat", first, second, name="cat", axis=1)
        quantized, _ = compress(b.model(b.conv(y, 4, 8, name="next")), calib=data())
        return {n.name.split("/")[0]: n.inputs[1].name for n in quantized.graph if n.op_type == "QuantizeLinear"}

    alike = scales(1.0)
    assert alike["a_out"] == alike["b_out"] == alike["cat_out"]
    apart = scales(0.1)
    assert apart["a_out"] == apart["cat_out"]
    assert apart["b_out"] == "b_out.scale"


def test_transformer_like_graph_runs_close():
    b = Build(("N", 6, 8))
    w = lambda n: b.const((0.3 * b.rng.standard_normal((8, 8))).astype(np.float32), f"{n}.weight")  # noqa: E731
    ln = b.op("LayerNormalization", "x", b.const(np.ones(8, np.float32)), name="ln")
    q, k, v = (b.op("MatMul", ln, w(n), name=n) for n in "qkv")
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1], name="kt"), name="qk")
    y = b.op("MatMul", b.op("Softmax", scores, axis=-1, name="soft"), v, name="av")
    model = b.model(b.op("Add", "x", b.op("MatMul", y, w("proj"), name="proj"), name="res"))
    calib = data(shape=(6, 8))
    for recipe in ("cpu-int8", "cpu-int8-equalized"):
        quantized, _ = compress(model, recipe, calib)
        assert db(run(model, calib), run(quantized, calib)) > 30
        axes = [n.attributes["axis"].value for n in quantized.graph if n.name and n.name.endswith("/weight")]
        assert axes == [1, 1, 1, 1]
