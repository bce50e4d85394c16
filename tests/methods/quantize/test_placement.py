"""Where quantizers go: one small graph per rule."""

import numpy as np

from netsuke.methods.quantize.placement import place

from .graphs import Build, resnet


def quantized(model, keep=()):
    """Names of tensors that get a quantizer, and each one's owner."""
    return {v.name: r.name for v, r in place(model, keep).group.items()}


def layer(model, name):
    return place(model).layers[name]


def test_residual_block_has_no_quantizer_inside_fused_chains():
    model = resnet()
    found = quantized(model)
    # the projection is computed before the second convolution only if it comes first in the graph; here it is last
    inner = {"stem_relu_out", "block_relu_out", "block.conv2_out", "block_out_out", "gap_out", "flat_out"}
    assert set(found) == {"x", *inner}
    assert found["flat_out"] == "gap_out"
    fused = layer(model, "block.short")
    assert [n.op_type for n in fused.nodes] == ["Conv", "Add", "Relu"]
    assert fused.residual.name == "block.conv2_out"
    assert layer(model, "head").reached is False  # logits stay float


def test_every_layer_has_one_row_and_fused_nodes_have_none():
    layers = place(resnet()).layers
    assert list(layers) == ["stem", "block.conv1", "block.conv2", "block.short", "gap", "head"]
    assert all(entry.quantized for entry in layers.values())


def test_kept_layer_reads_float_and_its_readers_get_codes():
    found = quantized(resnet(), keep={"stem"})
    assert "x" not in found
    assert "stem_relu_out" in found
    found = quantized(resnet(), keep={"head"})
    assert {"gap_out", "flat_out", "block_out_out"}.isdisjoint(found)  # nobody needs them as codes any more
    assert "block.conv2_out" not in found  # the residual add behind a float output is a float add


def test_tensor_with_two_readers_has_one_quantizer():
    b = Build()
    stem = b.op("Relu", b.conv("x", name="stem"), name="r")
    model = b.model(b.conv(stem, name="a"), b.conv(stem, name="b"))
    assert quantized(model) == {"x": "x", "r_out": "r_out"}


def test_conv_with_two_readers_is_not_fused():
    b = Build()
    stem = b.conv("x", name="stem")
    model = b.model(b.conv(b.op("Relu", stem, name="r"), name="a"), b.conv(stem, name="b"))
    assert set(quantized(model)) == {"x", "stem_out", "r_out"}
    assert layer(model, "r").kernel == "lut"


def test_moving_operators_share_their_input():
    b = Build()
    y = b.op("Relu", b.conv("x", name="stem"), name="r")
    y = b.op("MaxPool", y, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("Transpose", y, name="t", perm=[0, 1, 3, 2])
    y = b.op("Slice", y, *(b.const(np.array([v])) for v in (0, 3, 1)), name="s")
    y = b.op("Pad", y, b.const(np.array([0, 1, 0, 0, 0, 0, 0, 0])), name="p")
    model = b.model(b.conv(y, name="next"))
    assert set(quantized(model).values()) == {"x", "r_out"}
    assert len(quantized(model)) == 6


def test_padding_with_another_number_does_not_share():
    b = Build()
    pads, one = b.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.const(np.float32(1.5))
    y = b.op("Pad", b.op("Relu", b.conv("x", name="stem"), name="r"), pads, one, name="p")
    assert quantized(b.model(b.conv(y, name="next"))) == {"x": "x", "p_out": "p_out"}


def test_activation_tables_are_quantized_on_both_sides_and_not_inside():
    b = Build()
    y = b.conv("x", name="stem")
    y = b.op("Mul", y, b.op("Sigmoid", y, name="sig"), name="silu")
    model = b.model(b.conv(y, name="next"))
    assert set(quantized(model)) == {"x", "stem_out", "silu_out"}
    entry = layer(model, "silu")
    assert entry.kernel == "lut"
    assert [n.name for n in entry.nodes] == ["sig", "silu"]


def test_gelu_of_five_nodes_and_per_channel_constants_are_one_table():
    b = Build()
    y = b.conv("x", name="stem")
    inner = b.op("Erf", b.op("Div", y, b.const(np.float32(1.4142135))))
    y = b.op("Mul", y, b.op("Add", inner, b.const(np.float32(1))))
    y = b.op("Mul", y, b.const(np.linspace(0.1, 1, 4, dtype=np.float32).reshape(4, 1, 1)), name="last")
    model = b.model(b.conv(y, name="next"))
    assert set(quantized(model)) == {"x", "stem_out", "last_out"}
    assert len(layer(model, "last").nodes) == 5


def test_gate_multiplies_two_quantized_tensors():
    b = Build()
    y = b.op("Relu", b.conv("x", name="stem"), name="r")
    gate = b.op("HardSigmoid", b.conv(b.op("GlobalAveragePool", y, name="gap"), k=1, name="squeeze"), name="gate")
    model = b.model(b.conv(b.op("Mul", y, gate, name="scale"), name="next"))
    assert set(quantized(model)) == {"x", "r_out", "gap_out", "squeeze_out", "gate_out", "scale_out"}
    assert layer(model, "scale").kernel == "qmul"


def test_add_of_another_shape_is_not_a_residual():
    b = Build()
    y = b.op("Relu", b.conv("x", name="stem"), name="r")
    pooled = b.op("GlobalAveragePool", y, name="gap")
    model = b.model(b.conv(b.op("Add", b.conv(y, name="a"), pooled, name="sum"), name="next"))
    assert layer(model, "a").residual is None
    assert layer(model, "sum").kernel == "qadd"
    assert set(quantized(model)) == {"x", "r_out", "gap_out", "a_out", "sum_out"}


def test_transformer_residual_stream_and_softmax_stay_float():
    b = Build(("N", 6, 8))

    def norm(x, name):
        return b.op("LayerNormalization", x, b.const(np.ones(8, np.float32)), name=name)

    def linear(x, name):
        weight = b.const((0.3 * b.rng.standard_normal((8, 8))).astype(np.float32), f"{name}.weight")
        bias = b.const(np.ones(8, np.float32), f"{name}.bias")
        return b.op("Add", b.op("MatMul", x, weight, name=name), bias, name=f"{name}_bias")

    y = norm("x", "ln1")
    q, k, v = (linear(y, n) for n in ("q", "k", "v"))
    scores = b.op("MatMul", q, b.op("Transpose", k, name="kt", perm=[0, 2, 1]), name="qk")
    attention = b.op("MatMul", b.op("Softmax", scores, name="soft", axis=-1), v, name="av")
    y = b.op("Add", "x", linear(attention, "proj"), name="res1")
    z = linear(b.op("Gelu", linear(norm(y, "ln2"), "up"), name="gelu"), "down")
    model = b.model(b.op("Add", y, z, name="res2"))
    found = quantized(model)
    assert set(found) == {
        *("ln1_out", "q_bias_out", "k_bias_out", "kt_out", "v_bias_out", "soft_out", "av_out"),
        *("ln2_out", "up_bias_out", "gelu_out"),
    }
    assert found["kt_out"] == "k_bias_out"
    assert layer(model, "proj").residual.name == "x"
    assert layer(model, "down").residual.name == "res1_out"
    assert "softmax" in layer(model, "soft").blocked
    assert layer(model, "qk").kernel == "qmatmul"


def test_operators_without_integer_kernel_say_why():
    b = Build()
    weight = b.const(np.ones((4, 4, 2, 2), np.float32), "up.weight")
    y = b.op("ConvTranspose", "x", weight, name="up", strides=[2, 2])
    model = b.model(b.conv(y, name="next"))
    entry = layer(model, "up")
    assert not entry.quantized
    assert "transposed" in entry.blocked
    assert set(quantized(model)) == {"up_out"}


def test_integer_tensors_and_constants_get_no_quantizer():
    b = Build(("N", 4))
    ids = b.op("Cast", "x", name="ids", to=7)
    table = b.const(np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32), "emb.weight")
    rows = b.op("Gather", table, ids, name="emb")
    model = b.model(b.op("MatMul", rows, b.const(np.ones((8, 3), np.float32), "head.weight"), name="head"))
    assert quantized(model) == {"emb_out": "emb_out"}


def test_concat_demands_all_inputs():
    b = Build()
    y = b.op("Concat", b.conv("x", name="a"), b.op("Relu", b.conv("x", name="b"), name="r"), name="cat", axis=1)
    model = b.model(b.conv(y, 4, 8, name="next"))
    assert set(quantized(model)) == {"x", "a_out", "r_out", "cat_out"}
    assert len(place(model).concats) == 1


def test_one_bit_layers_read_signs_and_write_codes():
    b = Build()
    stem = b.conv("x", name="stem")
    above = b.op("GreaterOrEqual", stem, b.const(np.float32(0)), name="above")
    sign = b.op("Where", above, b.const(np.float32(1)), b.const(np.float32(-1)), name="sign")
    weight = np.where(b.rng.random((4, 4, 3, 3)) < 0.5, 0.25, -0.25).astype(np.float32)
    y = b.op("Conv", sign, b.const(weight, "binary.weight"), name="binary", pads=[1] * 4)
    found = b.model(b.conv(b.op("Add", y, stem, name="sum"), name="last"))
    layers = place(found).layers
    assert layers["binary"].one_bit
    assert layers["binary"].quantized  # its sums leave as codes, the residual in them
    assert layers["binary"].residual is not None
    assert layers["binary"].inputs == []
    assert layers["stem"].quantized
    assert layers["last"].quantized
    assert not {"sign_out", "above_out"} & set(quantized(found))
    assert {"sum_out", "stem_out"} <= set(quantized(found))
