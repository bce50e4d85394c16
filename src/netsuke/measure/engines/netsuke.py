"""Ourselves: the compressed program, and the float program made from the same network."""

from __future__ import annotations

import dataclasses
import functools

from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable


def _open(subject: Subject, precision: str, threads: int, isa: str = "") -> Session:
    path = subject.float_nsk if precision == "f32" else subject.nsk
    if path is None:
        raise Unavailable(
            "no float network given (--vs MODEL)" if precision == "f32" else "no compressed program given"
        )
    from netsuke import engine

    loaded = engine.load(path, threads=threads, isa=isa or None)
    feeds = subject.feeds

    def run() -> list[Array]:
        return list(loaded.run(feeds).values())

    return Session(run, threads=loaded.threads, note=loaded.isa)


ENGINE = Engine(
    name="netsuke",
    label="netsuke",
    precisions=("f32", "int8"),  # "int8" stands for the compressed program, whatever it holds: see `bench`
    packages=("netsuke._runtime",),
    install="pip install netsuke",
    open=_open,
)


def with_isa(isa: str) -> Engine:
    """This engine held to one instruction set, as "netsuke:ISA"."""
    return dataclasses.replace(ENGINE, name=f"netsuke:{isa}", open=functools.partial(_open, isa=isa))
