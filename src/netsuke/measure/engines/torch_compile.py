"""PyTorch, torch.compile with its default CPU back end."""

from __future__ import annotations

from netsuke.measure.engines.base import Engine, Session, Subject
from netsuke.measure.engines.torch import session


def _open(subject: Subject, precision: str, threads: int) -> Session:
    return session(subject, precision, threads, compiled=True)


ENGINE = Engine(
    name="torch_compile",
    label="PyTorch compiled",
    precisions=("f32", "bf16"),
    packages=("torch",),
    install='pip install "netsuke[torch]"',
    open=_open,
)
