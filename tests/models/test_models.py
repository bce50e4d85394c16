"""Reference networks: the published parameter counts, the promised shapes, the same weights for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from netsuke import models
from netsuke.core.errors import FileError, UsageError

torch = pytest.importorskip("torch")

# Parameters as published (papers or the usual implementations); counted with 1000 classes where the paper says so.
PARAMETERS = {
    "convnext_t": 28_589_128,
    "densenet121": 7_978_856,
    "efficientnet_b0": 5_288_548,
    "mobilenetv2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "shufflenetv2": 2_278_604,
    "squeezenet": 1_235_496,
    "swin_t": 28_288_354,
    "vit_tiny": 5_717_416,
}
SMALL = (
    "bert_tiny",
    "bireal_small",
    "digits_cnn",
    "digits_vit",
    "espcn",
    "fashion_cnn",
    "resnet20",
    "squeezenet",
    "shufflenetv2",
    "text_classifier",
    "yolov8n",
    "unet",
)
OUTPUTS = {
    "bert_tiny": (2, 2),
    "bireal_small": (2, 10),
    "digits_cnn": (2, 10),
    "digits_vit": (2, 10),
    "espcn": (2, 1, 192, 192),
    "fashion_cnn": (2, 10),
    "resnet20": (2, 10),
    "squeezenet": (2, 1000),
    "shufflenetv2": (2, 1000),
    "text_classifier": (2, 2),
    "yolov8n": (2, 144, 1344),
    "unet": (2, 2, 128, 128),
}


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert sum(p.numel() for p in models.build(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
def test_output_shape_and_finite(name: str) -> None:
    item = models.entry(name)
    size = (2, *item.shape[1:])
    x = torch.randint(0, 100, size) if item.dtype == "i64" else torch.randn(size)
    with torch.no_grad():
        y = models.build(name)(x)
    assert tuple(y.shape) == OUTPUTS[name]
    assert bool(torch.isfinite(y).all())


def test_seed_decides_the_weights_and_leaves_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (models.build("digits_cnn", weights="random", seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_unknown_network_lists_near_names() -> None:
    with pytest.raises(UsageError, match="resnet50"):
        models.build("resnet-50")


def test_weights_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    state = models.build("digits_cnn").state_dict()
    state["head.weight"] = torch.zeros(3, 3)
    del state["head.bias"]
    state["extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(FileError) as caught:
        models.build("digits_cnn", weights=tmp_path / "w.pth")
    assert {p.where for p in caught.value.problems} == {"head.weight", "head.bias", "extra"}


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Path("x")}))
    with pytest.raises(FileError, match="without running code"):
        models.build("digits_cnn", weights=tmp_path / "evil.pth")


def test_shipped_digits_network_is_trained() -> None:
    from netsuke.models.train import accuracy, tensors

    assert accuracy(models.build("digits_cnn"), *tensors("digits:test", None)) > 0.99


def test_character_model_looks_only_back() -> None:
    network = models.build("char_lm_tiny")
    first = torch.randint(0, 128, (1, 32))
    second = first.clone()
    second[0, 20:] = torch.randint(0, 128, (12,))
    with torch.no_grad():
        a, b = network(first), network(second)
    assert a.shape == (1, 32, 128)
    torch.testing.assert_close(a[:, :20], b[:, :20])
    assert not torch.allclose(a[:, 20:], b[:, 20:])
    assert sum(p.numel() for p in models.build("char_lm").parameters()) == 1_299_008


def test_character_model_learns_a_periodic_text(tmp_path: Path) -> None:
    from netsuke.models.train_lm import perplexity, train

    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox. " * 200)
    network = train(text, network="char_lm_tiny", steps=60, rate=1e-2, count=8)
    assert perplexity(network, text, 32) < 3  # 18 different characters; untrained about 128
