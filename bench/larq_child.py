"""What `larq.py` runs in the other environment: needs TensorFlow, tf_keras and larq-compute-engine, not netsuke.

python larq_child.py convert WEIGHTS.npz OUT.tflite
python larq_child.py serve MODEL.tflite INPUT.npy THREADS plain|indirect    # a line in, a run and a line out
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

PACKAGES = ("larq-compute-engine", "tensorflow-cpu", "tf_keras", "numpy")


def hwio(weight):
    """OIHW as TensorFlow has it."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def network(state):
    """The graph of netsuke.models.binary.BiRealResNet18 in Keras, "same" padding throughout.

    One-bit layers: sign, a convolution with weights of -1 and +1, and one multiplication and addition a channel that
    holds the weight's magnitude and the normalization, which the converter folds into the layer.
    """
    import tensorflow as tf

    layers = tf.keras.layers

    def norm(x, key, scale=1.0):
        factor = state[f"{key}.weight"] / np.sqrt(state[f"{key}.running_var"] + 1e-5)
        offset = state[f"{key}.bias"] - state[f"{key}.running_mean"] * factor
        layer = layers.BatchNormalization(epsilon=0.0)
        y = layer(x)
        layer.set_weights([factor * scale, offset, np.zeros_like(factor), np.ones_like(factor)])
        return y

    def conv(x, weight, stride):
        layer = layers.Conv2D(weight.shape[3], weight.shape[:2], stride, "same", use_bias=False)
        y = layer(x)
        layer.set_weights([weight])
        return y

    inputs = layers.Input((224, 224, 3), batch_size=1)
    x = norm(conv(inputs, hwio(state["conv1.weight"]), 2), "bn1")
    x = layers.MaxPool2D(3, 2, "same")(x)
    for index in range(16):
        key = f"layers.{index}"
        weight, stride = state[f"{key}.conv.weight"], 2 if index in (4, 8, 12) else 1
        short = x
        if f"{key}.shortcut.1.weight" in state:
            short = layers.AvgPool2D(2, 2)(x) if stride == 2 else x
            short = norm(conv(short, hwio(state[f"{key}.shortcut.1.weight"]), 1), f"{key}.shortcut.2")
        signs = layers.Lambda(lambda v: tf.sign(tf.sign(v) + 0.1))(x)
        y = conv(signs, hwio(np.where(weight >= 0, 1.0, -1.0).astype(np.float32)), stride)
        y = norm(y, f"{key}.bn", np.abs(weight).mean((1, 2, 3)))
        x = layers.Add()([y, short])
    head = layers.Dense(1000)
    y = head(layers.GlobalAveragePooling2D()(x))
    head.set_weights([state["fc.weight"].T, state["fc.bias"]])
    return tf.keras.Model(inputs, y)


def convert(weights, out):
    """Write the converted model; print versions and how many layers became one-bit ones."""
    import larq_compute_engine as lce

    model = lce.convert_keras_model(network(dict(np.load(weights))))
    Path(out).write_bytes(model)
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "bytes": len(model), "names_lce_bconv": b"LceBconv2d" in bytes(model)}


def serve(path, feed, threads, variant):
    """First line: the logits. Then one run for every line read."""
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    model = Path(path).read_bytes()
    runner = Interpreter(model, num_threads=int(threads), use_indirect_bgemm=variant == "indirect").interpreter
    x = [np.load(feed)]
    reply({"logits": np.asarray(runner.predict(x)[0]).reshape(-1).tolist()})
    for _ in sys.stdin:
        runner.predict(x)
        replies.write("\n")
        replies.flush()


def reply(value):
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # TensorFlow prints on standard output
    if sys.argv[1] == "convert":
        reply(convert(*sys.argv[2:]))
    else:
        serve(*sys.argv[2:])
