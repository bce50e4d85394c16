"""Binarizers of transformers: what they replace, what they are trained by, and what the engine makes of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from netsuke import engine
from netsuke.capture import capture
from netsuke.core.errors import UsageError
from netsuke.core.method import find
from netsuke.data import toy_text
from netsuke.methods.binarize import bibert, bipft, bivit, ecoformer, elastic
from netsuke.methods.binarize._attention import attentions, recorded
from netsuke.methods.binarize._fit import Training, fit
from netsuke.models.digits_vit import DigitsViT
from netsuke.models.seq2seq import Seq2Seq
from netsuke.models.text_classifier import TextClassifier
from netsuke.nn.binary_attention import BinaryAttention
from netsuke.nn.binary_layers import freeze, layers
from netsuke.nn.hash_attention import HashAttention
from netsuke.passes import compile_program
from netsuke.program import interpreter


def text() -> TextClassifier:
    torch.manual_seed(0)
    return TextClassifier(80, 32, 2, 1, 16, 2)


def image() -> DigitsViT:
    torch.manual_seed(0)
    return DigitsViT(32, 2, 1)


def draw(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = toy_text.sentences(16, step)
    return torch.from_numpy(made.ids), torch.from_numpy(made.sentiment)


def trained(model: nn.Module) -> nn.Module:
    return freeze(fit(model, draw, Training(3, 1e-2)))


@pytest.mark.parametrize("name", ["bibert", "bivit", "bipft", "elastic"])
def test_attentions_and_mlps_become_binary(name: str) -> None:
    method = find(f"binarize/{name}")
    model = method.apply(text(), method.config())
    assert not attentions(model)
    assert len(list(layers(model))) == 6
    program = compile_program(capture(trained(model), shape=(1, 16), dtype="i64"))
    one_bit = sum(node.op == "blinear" for node in program.nodes)
    assert one_bit == (0 if name == "elastic" else 6)  # ternary activations have no kernel
    x = toy_text.sentences(20, 9).ids
    with torch.no_grad():
        want = model(torch.from_numpy(x)).numpy()
    got = engine.load(program)(x)
    # Float norms may round differently, which could flip a sign; none does here.
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    reference = interpreter.run(program, {program.inputs[0].name: x[:2]})
    np.testing.assert_allclose(next(iter(reference.values())), want[:2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("method", "config"), [(bibert, bibert.Config()), (bivit, bivit.Config())])
def test_a_binary_attention_is_the_same_bit_for_bit(method, config) -> None:
    model = trained(method.apply(text(), config))
    block = model.get_submodule("blocks.0.attn")
    x = torch.randn(7, 16, 32, generator=torch.Generator().manual_seed(1))
    program = compile_program(capture(block, shape=(1, 16, 32)))
    with torch.no_grad():
        want = block(x).numpy()
    assert np.array_equal(engine.load(program)(x.numpy()), want)
    ops = [node.op for node in program.nodes]
    assert ops.count("bmatmul") == 2
    assert ops.count("blinear") == 4
    assert not {"softmax", "matmul", "linear", "binary", "where"} & set(ops)


def test_stages_of_bivit() -> None:
    model = bivit.apply(image(), bivit.Config("attention"))
    assert len(list(layers(model))) == 4
    assert isinstance(model.blocks[0].mlp[1], nn.GELU)
    bivit.apply(model, bivit.Config("mlp"))
    assert len(list(layers(model))) == 6
    with pytest.raises(UsageError, match="no attention and no MLP"):
        bivit.apply(model, bivit.Config("both"))


def test_hash_attention_replaces_attention_alone() -> None:
    model = ecoformer.apply(image(), ecoformer.Config(bits=8, anchors=12))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ecoformer.learn(model, x, ecoformer.Config())
    (module,) = [m for m in model.modules() if isinstance(m, HashAttention)]
    assert bool(module.ready)
    with torch.no_grad():
        want = model(x).numpy()
    program = compile_program(capture(freeze(model), shape=(1, 1, 8, 8)))
    ops = [node.op for node in program.nodes]
    assert ops.count("bmatmul") == 2
    assert "softmax" not in ops
    np.testing.assert_allclose(engine.load(program)(x.numpy()), want, rtol=1e-3, atol=1e-4)


def test_an_encoder_decoder_becomes_ternary_with_its_cross_attention() -> None:
    torch.manual_seed(0)
    teacher = Seq2Seq(toy_text.TARGET_WORDS, 32, 2, 1, (toy_text.SOURCE_LENGTH, toy_text.TARGET_LENGTH))
    model = elastic.apply(copy.deepcopy(teacher), elastic.Config())
    assert sum(isinstance(m, BinaryAttention) for m in model.modules()) == 3
    made = toy_text.translations(8, 0)
    source, target = torch.from_numpy(made.source), torch.from_numpy(made.target)
    wanted = torch.where(target[:, 1:] == 0, -100, target[:, 1:])
    loss = elastic.distillation(teacher)
    with torch.no_grad():
        first = float(loss(model, (source, target[:, :-1]), wanted))
    fit(model, lambda _: ((source, target[:, :-1]), wanted), Training(20, 5e-3), loss)
    with torch.no_grad():
        assert float(loss(model, (source, target[:, :-1]), wanted)) < first
        assert float(loss(copy.deepcopy(teacher), (source, target[:, :-1]), wanted)) < first
    assert model.translate(source, toy_text.START, 5).shape == (8, 5)


def test_direction_distance_is_zero_for_the_teacher_itself() -> None:
    teacher = text()
    x, y = draw(0)
    with torch.no_grad(), recorded(teacher) as ours:
        teacher(x)
    assert len(ours.qkv) == 1
    assert len(ours.hidden) == 1
    assert float(bibert.direction_distance(ours, ours, 2)) == 0
    student = bibert.apply(copy.deepcopy(teacher), bibert.Config())
    loss = bibert.distillation(teacher, 2)(student, x, y)
    loss.backward()
    assert all(p.grad is not None for n, p in student.named_parameters() if "head" in n or "attn" in n)
    with torch.no_grad(), recorded(student) as theirs:
        student(x)
    assert float(bibert.direction_distance(theirs, ours, 2)) > 0.1
    for layer in (*ours.qkv[0], *theirs.qkv[0]):
        assert layer.shape == (16, 16, 32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bibert.apply(nn.Sequential(nn.Linear(3, 3)), bibert.Config()), "no attention and no MLP"),
        (lambda: ecoformer.apply(nn.Sequential(nn.Linear(3, 3)), ecoformer.Config()), "no attention to replace"),
        (lambda: bibert.apply(text(), bibert.Config(), keep=["block.0"]), "no attention or MLP matches"),
        (lambda: bibert.apply(text(), bibert.Config("soft")), "boolean, direct"),
        (lambda: bivit.apply(text(), bivit.Config("first", rule="x")), r"(?s)stage.*rule"),
        (lambda: elastic.apply(text(), elastic.Config(4, 3, rule="x")), r"(?s)weight_levels.*rule"),
    ],
)
def test_refusals(call, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()


def test_kept_attentions_stay_float() -> None:
    model = bipft.apply(text(), bipft.Config(), keep=["blocks.0.attn"])
    assert list(attentions(model)) == ["blocks.0.attn"]
    assert len(list(layers(model))) == 2
