"""The whole way of post-training quantization, executed by onnxruntime: helpers of the tests."""

import numpy as np

from netsuke.methods.quantize import ptq
from netsuke.methods.quantize._context import feeds

from .ort_runner import runner


def run(model, dataset):
    name = model.graph.outputs[0].name
    return np.concatenate([r[name] for r in runner(model, feeds(model, dataset, 16), [])])


def plan_of(model, recipe="cpu-int8", calib=None, effort="fast", **options):
    return ptq.make_plan(model, recipe=recipe, calib=calib, runner=runner, effort=effort, **options)


def compress(model, recipe="cpu-int8", calib=None, plan=None):
    plan = plan or plan_of(model, recipe, calib)
    return ptq.quantize(model, plan=plan, calib=calib, runner=runner), plan


def db(exact, other):
    return 10 * np.log10((exact.astype(np.float64) ** 2).sum() / ((exact - other.astype(np.float64)) ** 2).sum())
