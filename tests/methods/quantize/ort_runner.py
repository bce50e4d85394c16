"""A `Runner` on onnxruntime for tests: taps become outputs; graph rewrites of onnxruntime are off unless asked for."""

import numpy as np
import onnx_ir as ir


def runner(model, batches, taps, *, optimize=False):
    import onnxruntime as ort

    proto = ir.to_proto(model)
    names = [o.name for o in proto.graph.output]
    for tap in taps:
        if tap not in names:
            proto.graph.output.append(ir.to_proto(ir.Value(name=tap, type=ir.TensorType(ir.DataType.FLOAT))))
            names.append(tap)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_ENABLE_BASIC
    if not optimize:  # execute QuantizeLinear and DequantizeLinear as they are written
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = list(taps) or [o.name for o in model.graph.outputs]
    for feed in batches:
        arrays = {k: np.ascontiguousarray(v) for k, v in feed.items()}
        yield dict(zip(wanted, session.run(wanted, arrays), strict=True))
