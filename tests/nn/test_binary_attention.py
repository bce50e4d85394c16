"""Rules for scores, binary attention, and attention over hash codes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netsuke.core.errors import UsageError
from netsuke.nn.binarizer import Binarizer, One, Sign
from netsuke.nn.binary_attention import (
    BinaryAttention,
    Boolean,
    DirectSign,
    ElasticRule,
    RankOneScores,
    RoundedRule,
    Softmax,
    SoftmaxAware,
    TokenMap,
    score_entropy,
)
from netsuke.nn.hash_attention import HashAttention, HashSums, learn_hash
from netsuke.nn.surrogates import Clipped

SEEDS = st.integers(0, 2**31)


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(seed)).float()


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.booleans())
def test_softmax_aware_keeps_what_the_softmax_says(seed: int, ratio: float, factor: float, hidden: bool) -> None:
    scores, mask = whole(seed, 2, 5, 9), None
    if hidden:
        mask = torch.zeros(5, 9)
        mask[:, 6:] = -1e4
    kept, scale = SoftmaxAware(ratio)(scores, factor, mask)
    p = (scores.double() * factor + (0 if mask is None else mask)).softmax(-1)
    share = p / p.amax(-1, keepdim=True)
    clear = (share - ratio).abs() > 1e-4  # f32 and f64 may disagree on the edge itself
    assert bool((kept == (share >= ratio))[clear].all())
    assert scale is None
    assert bool((kept.sum(-1) >= 1).all())
    if hidden:
        assert not bool(kept[..., 6:].any())


def test_softmax_aware_has_the_gradient_of_the_softmax() -> None:
    scores, weights = whole(0, 3, 7).requires_grad_(True), numbers(1, 3, 7)
    (SoftmaxAware()(scores, 0.25, None)[0] * weights).sum().backward()
    found = scores.grad
    again = scores.detach().clone().requires_grad_(True)
    ((again * 0.25).softmax(-1) * weights).sum().backward()
    assert found is not None
    assert again.grad is not None
    torch.testing.assert_close(found, again.grad)


def test_boolean_reads_keys_with_scores_from_zero_on() -> None:
    scores = torch.tensor([[-8.0, -1.0, 0.0, 1.0, 8.0]], requires_grad=True)
    kept, _ = Boolean()(scores, 0.25, None)
    assert kept.tolist() == [[0, 0, 1, 1, 1]]
    kept.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 0.125, 0.125, 0.125, 0]]  # half the sign's slope, times the factor
    masked, _ = Boolean()(scores.detach(), 0.25, torch.tensor([0.0, 0, 0, 0, -1e4]))
    assert masked.tolist() == [[0, 0, 1, 1, 0]]


def test_the_sign_of_a_softmax_reads_every_key() -> None:
    assert bool((DirectSign()(whole(0, 4, 6), 0.25, None)[0] == 1).all())


def test_elastic_and_rounded_probabilities() -> None:
    scores = whole(3, 4, 6)
    p = Softmax()(scores, 0.25, None)[0]
    levels, scale = ElasticRule(2).eval()(scores, 0.25, None)
    assert scale is not None
    assert bool((levels == torch.round((p / scale).clamp(0, 2))).all())
    assert bool((RoundedRule(2)(scores, 0.25, None)[0] == torch.round(p * 2) / 2).all())


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5])
def test_a_ratio_outside_of_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match="ratio"):
        SoftmaxAware(ratio)


def attention(rule: nn.Module, *, signs: bool = True, residual: bool = False) -> BinaryAttention:
    torch.manual_seed(0)
    q, k, v, proj = (nn.Linear(12, 12) for _ in range(4))
    levels = (lambda: Binarizer(Sign(Clipped()), One())) if signs else None
    extra, value = (RankOneScores(12), TokenMap(12)) if residual else (None, None)
    return BinaryAttention((q, k, v, proj), 3, levels, rule, extra=extra, value=value)


def test_without_levels_and_with_softmax_it_is_ordinary_attention() -> None:
    module, x = attention(Softmax(), signs=False), numbers(0, 2, 5, 12)
    want = nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        want.in_proj_weight.copy_(torch.cat([p.weight for p in (module.q, module.k, module.v)]))
        want.in_proj_bias.copy_(torch.cat([p.bias for p in (module.q, module.k, module.v)]))
        want.out_proj.weight.copy_(torch.eye(12))
        want.out_proj.bias.zero_()
        expected = module.proj(want(x, x, x)[0] / math.sqrt(5))
        torch.testing.assert_close(module(x), expected)


def test_memory_gives_keys_and_values() -> None:
    module, x, memory = attention(Boolean()), numbers(0, 2, 5, 12), numbers(1, 2, 7, 12)
    assert module(x, None, memory).shape == (2, 5, 12)
    assert not torch.equal(module(x, None, memory), module(x, None, memory.roll(1, 0)))
    module(x, None, memory).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_rank_one_terms_add_to_scores_and_values() -> None:
    module, x = attention(Softmax(), residual=True), numbers(0, 2, 5, 12)
    y = module(x)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, TokenMap):
                part.map.weight.zero_()
        torch.testing.assert_close(module(x), attention(Softmax())(x))
        assert not torch.equal(y, module(x))


def test_entropy_of_scores_and_of_the_sign_of_a_softmax() -> None:
    x = numbers(0, 8, 16, 12)
    assert score_entropy(attention(Boolean()), x) > 0.8  # heads of 4: three scores in eight are 0, and 0 is read
    assert score_entropy(attention(DirectSign()), x) == 0


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40), st.integers(1, 20))
def test_hash_sums_equal_the_quadratic_form(seed: int, tokens: int, bits: int) -> None:
    z, v = numbers(seed, 2, 3, tokens, bits), whole(seed, 2, 3, tokens, 4)
    y = torch.where(z >= 0, 1.0, -1.0)
    weight = y @ y.transpose(-2, -1) + bits + 1
    assert bool((weight >= 1).all())
    got = HashSums(bits)(z, v)
    assert torch.equal(got[..., :-1], weight @ v)
    assert torch.equal(got[..., -1], weight.sum(-1))


def hashed() -> HashAttention:
    torch.manual_seed(0)
    shared, value, proj = (nn.Linear(16, 16) for _ in range(3))
    return HashAttention(shared, value, proj, 2, 16, 16, 25)


def test_learned_codes_keep_neighbours() -> None:
    """Clustered tokens: pairs of one cluster share more signs than pairs of two, and a gradient reaches everything."""
    module = hashed()
    centres = numbers(0, 6, 16)
    x = (3 * centres[torch.arange(96) % 6] + 0.3 * numbers(1, 96, 16))[None]
    learn_hash(module, x, steps=40)
    y = torch.where(module.projected(x) >= 0, 1.0, -1.0)
    products = (y @ y.transpose(-2, -1))[0].mean(0) / 16
    same = (torch.arange(96)[:, None] % 6) == (torch.arange(96) % 6)
    assert float(products[same].mean()) > float(products[~same].mean()) + 0.5
    module(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_bits_of_a_code_are_checked() -> None:
    with pytest.raises(UsageError, match="mask"):
        hashed()(numbers(0, 1, 4, 16), torch.zeros(4, 4))
    with pytest.raises(UsageError, match=r"(?s)bits.*anchors"):
        HashAttention(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), 2, 8, 65, 0)


def test_learned_planes_find_more_neighbours_of_an_image_than_random_ones() -> None:
    """Images of few tokens whose common offset says nothing: only pairs inside an image are learned from."""
    module = hashed()
    x = numbers(2, 16, 1, 16) * 3 + numbers(3, 16, 16, 16)

    def recall() -> float:
        with torch.no_grad():
            t, z = module.tokens(x), module.projected(x)
            y = torch.where(z >= 0, 1.0, -1.0)
            near = [(v @ v.transpose(-2, -1) - 1e3 * torch.eye(16)).topk(4, -1).indices for v in (t, y)]
        return float((near[0][..., :, None] == near[1][..., None, :]).any(-1).float().mean())

    learn_hash(module, x, steps=100)
    learned = recall()
    random = []
    for seed in range(5):
        with torch.no_grad():
            module.planes.copy_(numbers(seed + 10, *module.planes.shape))
        random.append(recall())
    assert learned > max(random)
