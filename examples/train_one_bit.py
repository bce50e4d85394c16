"""A residual network with one-bit convolutions: replace, train, freeze, run on XNOR kernels.

python examples/train_one_bit.py
"""

from __future__ import annotations

import torch

import netsuke as nk
from netsuke.methods.binarize import reste
from netsuke.models.binary_digits import BinaryDigitsCNN
from netsuke.nn.binary_layers import freeze, set_progress
from netsuke.pipeline.train import samples


def main(epochs: int = 8) -> None:
    torch.set_num_threads(1)  # layers this small gain nothing from threads
    torch.manual_seed(0)
    x, y = samples("digits:train", "data")
    test = samples("digits:test", "data")
    model = reste.apply(BinaryDigitsCNN(), reste.Config())  # first and last layer stay float
    steps = epochs * (len(x) // 64 + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        set_progress(model, epoch / epochs)  # the surrogate gradient sharpens with the training
        for rows in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}  loss {float(loss.detach()):.3f}")
    freeze(model.eval())
    small = nk.compress(model, shape=(1, 1, 8, 8), calib=x[:256].numpy(), evaluate=test, output="one_bit.nsk")
    print(small.summary())
    for layer in nk.load("one_bit.nsk").kernels():
        print(f"{layer['node']:28} {layer['kernel']}")


if __name__ == "__main__":
    main()
