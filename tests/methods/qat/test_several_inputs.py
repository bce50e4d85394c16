"""Networks with several inputs, and quantizers that several tensors share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netsuke import engine
from netsuke.methods.qat import prepare
from netsuke.passes import compile_program


class Conditioned(nn.Module):
    """A convolution whose rectified output is joined with a signed one; a class is added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(8, 4, 3)
        self.table = nn.Embedding(3, 6)
        self.bias = nn.Linear(6, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        x = torch.cat([torch.relu(self.a(image)), self.b(image)], 1)
        x = torch.relu(self.c(x) + self.bias(self.table(label)).unsqueeze(2).unsqueeze(3))
        return self.head(x.mean((2, 3)))


SHAPES = {"image": (1, 1, 6, 6), "label": (1,)}


def prepared(**options: Any) -> tuple[Any, nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = Conditioned().eval()
    calib = torch.randn(32, 1, 6, 6), torch.arange(32) % 3
    return prepare(model, shape=SHAPES, dtype={"image": "f32", "label": "i64"}, calib=calib, **options), model, calib


def test_a_shared_quantizer_covers_all_its_tensors() -> None:
    network, model, calib = prepared(weight_bits=8, activation_bits=8)
    network.eval()
    with torch.no_grad():
        far = (network(*calib) - model(*calib)).abs().max()
        assert float(far) < 0.05 * float(model(*calib).std()), "a range of the rectified part alone cuts the signed one"


def test_the_engine_gives_what_was_trained() -> None:
    network, _, calib = prepared()
    optimizer = torch.optim.SGD(network.groups(0.05, 0.0), lr=0.05)
    for _ in range(3):
        loss = nn.functional.cross_entropy(network.train()(*calib), calib[1] % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    run = engine.load(compile_program(network.export()))
    given = {"image": calib[0].numpy(), "label": calib[1].numpy()}
    with torch.no_grad():
        assert np.array_equal(next(iter(run.run(given).values())), network(*calib).numpy())
