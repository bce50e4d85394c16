"""Small graphs for the tests of placement and quantization, built node by node with seeded weights."""

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper


class Build:
    """Collects nodes and constants; `conv`, `relu` ... return the name of their output."""

    def __init__(self, shape=("N", 4, 8, 8), seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.count = [], [], 0
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]

    def const(self, array, name=None):
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind, *inputs, name=None, outputs=1, **attributes):
        self.count += 1
        name = name or f"{kind.lower()}{self.count}"
        made = [f"{name}_out"] if outputs == 1 else [f"{name}_out{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def conv(self, x, o=4, i=4, k=3, name=None, scale=0.3, bias=True, **attributes):
        name = name or f"conv{self.count + 1}"
        group = attributes.get("group", 1)
        weight = (scale * self.rng.standard_normal((o, i // group, k, k))).astype(np.float32)
        inputs = [x, self.const(weight, f"{name}.weight")]
        if bias:
            inputs.append(self.const((0.1 * self.rng.standard_normal(o)).astype(np.float32), f"{name}.bias"))
        attributes.setdefault("pads", [k // 2] * 4)
        return self.op("Conv", *inputs, name=name, **attributes)

    def linear(self, x, o, i, name):
        weight = (0.3 * self.rng.standard_normal((o, i))).astype(np.float32)
        bias = self.const(self.rng.standard_normal(o).astype(np.float32), f"{name}.bias")
        return self.op("Gemm", x, self.const(weight, f"{name}.weight"), bias, name=name, transB=1)

    def model(self, *outputs):
        import onnx

        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "small", self.inputs, infos, self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
        onnx.checker.check_model(proto, full_check=True)
        return ir.from_proto(proto)


def resnet(classes=5):
    """Stem, a residual block with a projection, global mean, classifier."""
    b = Build()
    stem = b.op("Relu", b.conv("x", 8, 4, name="stem"), name="stem_relu")
    a = b.op("Relu", b.conv(stem, 8, 8, name="block.conv1"), name="block_relu")
    a = b.conv(a, 8, 8, name="block.conv2")
    short = b.conv(stem, 8, 8, k=1, name="block.short")
    out = b.op("Relu", b.op("Add", a, short, name="block_add"), name="block_out")
    flat = b.op("Flatten", b.op("GlobalAveragePool", out, name="gap"), name="flat")
    return b.model(b.linear(flat, classes, 8, "head"))


def normed(hidden=16):
    """Channels last: a layer normalization, two linear layers with a ReLU between, a second one behind an RMS norm."""
    b = Build()
    x = b.op("Transpose", "x", perm=[0, 2, 3, 1], name="last")
    gamma, beta = (b.const(b.rng.standard_normal(4).astype(np.float32)) for _ in range(2))
    x = b.op("LayerNormalization", x, gamma, beta, axis=-1, name="norm")

    def matmul(x, i, o, name):
        weight = b.const((0.3 * b.rng.standard_normal((i, o))).astype(np.float32), f"{name}.weight")
        bias = b.const(b.rng.standard_normal(o).astype(np.float32), f"{name}.bias")
        return b.op("Add", b.op("MatMul", x, weight, name=name), bias, name=f"{name}_add")

    y = matmul(b.op("Relu", matmul(x, 4, hidden, "up"), name="act"), hidden, 4, "down")
    scaled = b.op("Mul", b.op("Tanh", y, name="tanh"), b.const(b.rng.standard_normal(4).astype(np.float32)), name="rms")
    return b.model(matmul(scaled, 4, 3, "head"))


def data(count=64, shape=(4, 8, 8), seed=1):
    from netsuke.data import Dataset

    x = np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
    return Dataset.from_arrays(x, source="test data")
