"""Ourselves: the compressed program, and the float program made from the same network."""

from __future__ import annotations

from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable


def _open(subject: Subject, precision: str, threads: int) -> Session:
    path = subject.nsk if precision == "int8" else subject.float_nsk
    if path is None:
        raise Unavailable(
            "no compressed program given" if precision == "int8" else "no float network given (--vs MODEL)"
        )
    from netsuke import engine

    loaded = engine.load(path, threads=threads)
    feeds = subject.feeds

    def run() -> list[Array]:
        return list(loaded.run(feeds).values())

    return Session(run, threads=int(getattr(loaded, "threads", threads)), note=str(getattr(loaded, "isa", "")))


ENGINE = Engine(
    name="netsuke",
    label="netsuke",
    precisions=("f32", "int8"),
    packages=("netsuke._runtime",),
    install="pip install netsuke",
    open=_open,
)
