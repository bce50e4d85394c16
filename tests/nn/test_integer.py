"""Gradients of the integer arithmetic in torch. Its values: tests/program and tests/fuzz."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from netsuke.formats import dyadic  # noqa: E402
from netsuke.formats import quantize as reference_quantize  # noqa: E402
from netsuke.nn import integer  # noqa: E402


def test_rounding_is_to_even_and_passes_the_gradient():
    v = torch.tensor([0.5, 1.5, -0.5, 2.4], requires_grad=True)
    y = integer.rne(v)
    assert y.tolist() == [0.0, 2.0, -0.0, 2.0]
    y.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert v.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_quantize_equals_the_reference_and_its_gradient_stops_at_the_clamp():
    x = torch.tensor([-100.0, -1.0, 0.04, 1.0, 100.0], requires_grad=True)
    q = integer.quantize(x, 0.1, 20, 5, 40)
    assert q.tolist() == reference_quantize(x.detach().numpy(), 0.1, 20, 5, 40).tolist()
    integer.dequantize(q, 0.1, 20).sum().backward()
    np.testing.assert_allclose(x.grad, [0, 1, 1, 1, 0], rtol=1e-6)


def test_division_is_a_true_one():
    """A multiplication by the reciprocal would give other codes for some of these."""
    x = torch.arange(1, 20001, dtype=torch.float32) * 0.5
    for scale in (0.1, 0.3, 0.7, 1 / 3):
        scale = float(np.float32(scale))
        want = reference_quantize((x * scale).numpy(), scale, 0)
        assert np.array_equal(integer.quantize(x * scale, scale, 0).numpy(), want)


def test_scale_gets_a_gradient():
    scale = torch.tensor([0.1], requires_grad=True)
    integer.fake_quantize(torch.tensor([0.26]), scale, 0).sum().backward()
    # y = s * round(x / s): dy/ds = round(x / s) - x / s, the learned-step rule
    np.testing.assert_allclose(scale.grad, [3 - 2.6], rtol=1e-5)


def test_convolution_and_requantization_are_differentiable():
    x = torch.randint(0, 256, (1, 5, 5, 4)).float().requires_grad_()
    w = torch.randint(-127, 128, (6, 3, 3, 2)).float().requires_grad_()
    acc = integer.convolve(x - 7, w, [1, 1], [1, 1, 1, 1], [1, 1], 2, 2**20)
    y = integer.requantize(acc, torch.full((6,), 1e-4), zero=100)
    y.sum().backward()
    assert x.grad.abs().sum() > 0
    assert w.grad.abs().sum() > 0


@pytest.mark.parametrize("bound", [2**20, 2**30])
def test_convolution_is_exact_in_both_precisions(bound):
    torch.manual_seed(0)
    x, w = torch.randint(-255, 256, (2, 9, 8, 6)), torch.randint(-128, 128, (4, 3, 2, 3))
    got = integer.convolve(x.float(), w.float(), [2, 1], [1, 0, 2, 1], [1, 2], 2, bound)
    assert got.dtype == (torch.float32 if bound < 2**24 else torch.float64)
    image = torch.nn.functional.pad(x.double().permute(0, 3, 1, 2), (0, 1, 1, 2))
    want = torch.nn.functional.conv2d(image, w.double().permute(0, 3, 1, 2), stride=(2, 1), dilation=(1, 2), groups=2)
    assert torch.equal(got.double(), want.permute(0, 2, 3, 1).round())


def test_dyadic_gradient_is_that_of_the_real_multiplier():
    m, e = (torch.from_numpy(v.astype(np.int64)) for v in dyadic(np.array([0.01, 0.02])))
    acc = torch.tensor([[500.0, 700.0], [1e6, -1e6]], dtype=torch.float64, requires_grad=True)
    y = integer.requantize_dyadic(acc, m, e, zero=10)
    assert y.tolist() == [[15.0, 24.0], [255.0, 0.0]]
    y.sum().backward()
    np.testing.assert_allclose(acc.grad, [[0.01, 0.02], [0, 0]], rtol=1e-6)
