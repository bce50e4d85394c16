"""Toy sentences, a small float transformer trained on them, and how its binary copies are judged: shared by claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

LENGTH, BATCH, HEADS = 16, 32, 4
TRAIN, TEST, HELD_OUT = 4000, 1000, 999


def tensors(count: int, seed: int, task: str = "sentiment") -> tuple[Any, Any]:
    """ids [count, 16] and labels of "sentiment" or "topic"."""
    import torch

    from netsuke.data.toy_text import sentences

    made = sentences(count, seed)
    return torch.from_numpy(made.ids), torch.from_numpy(getattr(made, task))


def batches(x: Any, y: Any, seed: int) -> Callable[[int], tuple[Any, Any]]:
    """Random batches by step."""
    import torch

    def draw(step: int) -> tuple[Any, Any]:
        rows = torch.randint(len(x), (BATCH,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
        return x[rows], y[rows]

    return draw


def network(seed: int, classes: int = 2) -> Any:
    """The float classifier with random weights."""
    import torch

    from netsuke.models.text_classifier import TextClassifier

    torch.manual_seed(seed)
    return TextClassifier(80, 64, HEADS, 2, LENGTH, classes)


def answers(model: Any, x: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(x).argmax(-1).numpy()


def top1(model: Any, x: Any, y: Any) -> float:
    return float((answers(model, x) == y.numpy()).mean())


def compiled(model: Any) -> Any:
    """The frozen network as a program of token ids."""
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    return compile_program(capture(model, shape=(1, LENGTH), dtype="i64"), name="toy_text")


def agreement(program: Any, model: Any, x: Any) -> float:
    """Share of samples to which the engine gives the label of the trained network."""
    from netsuke import engine

    got = next(iter(engine.load(program).run(x.numpy()).values())).argmax(-1)
    return float((got == answers(model, x)).mean())


def attention_is_exact(model: Any, attention: Any, x: Any) -> bool:
    """One trained attention, compiled alone, on what it reads in the network: engine and torch, bit for bit."""
    import torch

    from netsuke import engine
    from netsuke.capture import capture
    from netsuke.passes import compile_program

    seen: list[Any] = []
    handle = attention.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(x)
        handle.remove()
        want = attention(seen[0]).numpy()
    program = compile_program(capture(attention, shape=(1, *seen[0].shape[1:])), name="attention")
    got = next(iter(engine.load(program).run(seen[0].numpy()).values()))
    return bool(np.array_equal(got, want))


def count(program: Any, op: str) -> int:
    return sum(node.op == op for node in program.nodes)
