"""PyTorch, eager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netsuke.measure.engines.base import Array, Engine, Session, Subject, Unavailable


def module_of(subject: Subject) -> Any:
    """The network as a torch module in eval mode, rebuilt from its description where no live module was given."""
    if subject.module is not None:
        return subject.module.eval()
    if subject.torch_spec is None and subject.onnx is None:
        raise Unavailable("no float network given (--vs MODEL)")
    if subject.torch_spec is None:
        raise Unavailable("the network came as ONNX; PyTorch needs the module (file.py:factory)")
    model, weights, _shape = subject.torch_spec
    return _load(model, weights)


def _load(model: str, weights: str) -> Any:
    from netsuke.models import MODELS, build, load_weights

    if model in MODELS:
        return build(model, weights=weights or None)
    if model.endswith(".pt2"):
        import torch

        return torch.export.load(model).module()
    from netsuke.capture.torch_export import load_factory

    module = load_factory(model)
    if weights:
        load_weights(module, Path(weights))
    return module.eval()


def to_list(outputs: Any) -> list[Array]:
    """Outputs of a module, of any nesting, as float32 NumPy arrays."""
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return [array for part in outputs for array in to_list(part)]
    return [outputs.float().numpy()]


def session(subject: Subject, precision: str, threads: int, *, compiled: bool) -> Session:
    """A session around the module; compiled ones get their own graph per thread count."""
    import torch

    module = module_of(subject)
    inputs = [torch.from_numpy(a.copy()) for a in subject.feeds.values()]
    if precision == "bf16":
        import copy

        module = copy.deepcopy(module).to(torch.bfloat16)
        inputs = [i.to(torch.bfloat16) if i.is_floating_point() else i for i in inputs]
    torch.set_num_threads(threads)
    if compiled:
        module = torch.compile(module, dynamic=False)

    def run() -> list[Array]:
        with torch.inference_mode():
            return to_list(module(*inputs))

    def activate() -> None:
        torch.set_num_threads(threads)

    run()
    return Session(run, threads=torch.get_num_threads(), activate=activate)


def _open(subject: Subject, precision: str, threads: int) -> Session:
    return session(subject, precision, threads, compiled=False)


ENGINE = Engine(
    name="torch",
    label="PyTorch eager",
    precisions=("f32", "bf16"),
    packages=("torch",),
    install='pip install "netsuke[torch]"',
    open=_open,
)
