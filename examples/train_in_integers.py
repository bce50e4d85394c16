"""Forward, input gradients and weight gradients in 6-bit integers, with any torch optimizer; resumable bit for bit.

python examples/train_in_integers.py
"""

from __future__ import annotations

import torch

import netsuke as nk
from netsuke.models.cifar_resnet import CifarResNet
from netsuke.pipeline.train import samples


def main(epochs: int = 3) -> None:
    torch.set_num_threads(1)  # layers this small gain nothing from threads
    torch.manual_seed(0)
    train, test = (samples(f"digits:{split}", "data") for split in ("train", "test"))
    net = CifarResNet(1)
    net.conv1 = torch.nn.Conv2d(1, 16, 3, padding=1, bias=False)  # digits are grey
    result = nk.train(
        net,
        train,
        method="integer/shiftquant",
        options={"weight_bits": 6, "activation_bits": 6, "gradient_bits": 6},
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        epochs=epochs,
        batch=64,
        evaluate=test,
        checkpoint="integers.pt",  # interrupt it and start it again: the same bits as without the interrupt
    )
    for row in result.history:
        print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(nk.compress(result.model, shape=(1, 1, 8, 8), evaluate=test).summary())


if __name__ == "__main__":
    main()
