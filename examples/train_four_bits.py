"""Weights and activations of 4 bits, trained in a loop of one's own; what is trained is what is served.

python examples/train_four_bits.py
"""

from __future__ import annotations

import numpy as np
import torch

import netsuke as nk
from netsuke.methods.qat import prepare
from netsuke.models import build
from netsuke.pipeline.train import samples


def main(epochs: int = 3) -> None:
    torch.set_num_threads(1)  # layers this small gain nothing from threads
    x, y = samples("digits:train", "data")
    test = samples("digits:test", "data")
    network = prepare(build("digits_cnn"), shape=(1, 1, 8, 8), weight_bits=4, activation_bits=4, calib=x[:256])
    optimizer = torch.optim.SGD(network.groups(rate=0.02, decay=1e-4), momentum=0.9)
    for epoch in range(epochs):
        network.train()
        for rows in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}  loss {float(loss.detach()):.3f}")
    small = nk.compress(network.eval(), evaluate=test, output="digits4.nsk")
    print(small.summary())
    with torch.no_grad():
        trained = network(test[0]).numpy()
    assert np.array_equal(nk.load("digits4.nsk")(test[0].numpy()), trained), "the engine gives other logits"
    print(f"all {trained.size} logits of the engine are those of the trained network, bit for bit")


if __name__ == "__main__":
    main()
