"""A PyTorch network to 8 bits, and the proof: size, accuracy, time, and every layer packed.

python examples/quantize_pytorch.py
"""

from __future__ import annotations

import numpy as np

import netsuke as nk
from netsuke.data import load_data
from netsuke.models import build


def main() -> None:
    model = build("digits_cnn")  # any torch.nn.Module; this one ships with its trained weights
    small = nk.compress(
        model,
        shape=(1, 1, 8, 8),
        calib=load_data("digits:train").take(256),  # an array [N, 1, 8, 8] does as well
        evaluate=load_data("digits:test"),
        budget=nk.Budget(drop={"top1": 0.01}),
        output="digits.nsk",
    )
    print(small.summary())
    net = nk.load("digits.nsk", threads=1)  # needs NumPy only, no torch
    images, labels = next(iter(load_data("digits:test").batches(8)))[:2]
    print("answers", np.argmax(net(images), axis=1), "labels", np.asarray(labels))
    for layer in net.kernels():
        print(f"{layer['node']:24} {layer['kernel']}")


if __name__ == "__main__":
    main()
