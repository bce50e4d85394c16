"""PB-LLM: which weights stay, what the others become, what GPTQ's order adds, what the file takes."""

import numpy as np
import pytest

from methods.quantize.test_gptq import problem
from netsuke.core.errors import UsageError
from netsuke.core.options import configure
from netsuke.formats.packing_forms import pack_salient, salient_bytes
from netsuke.methods.quantize._codes import weight_scales
from netsuke.methods.quantize.gptq import _factor
from netsuke.methods.quantize.pb_llm import PbLlm, binary_levels, pb_codes, salient_mask


def heavy(rows=64, columns=96, seed=0):
    """Student t weights of four degrees of freedom and correlated inputs."""
    _, hessian, _ = problem(rows, columns, 800, seed)
    return np.random.default_rng(seed).standard_t(4, (rows, columns)), hessian


def error(weight, hessian, **options):
    scales = weight_scales(weight, 0)
    codes, mask = pb_codes(weight, hessian, scales, PbLlm(**options))
    delta = weight - codes * scales[:, None].astype(np.float64)
    return float(np.einsum("ri,ij,rj->", delta, hessian, delta)), codes, mask


@pytest.mark.parametrize("metric", ["hessian", "magnitude"])
def test_the_error_falls_with_salient_weights(metric):
    weight, hessian = heavy()
    errors = [error(weight, hessian, salient=f, metric=metric)[0] for f in (0.0, 0.05, 0.1, 0.3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.5 * errors[0]


def test_compensation_and_the_hessian_mask_help():
    weight, hessian = heavy()
    alone, _, mask = error(weight, np.diag(np.diag(hessian)), salient=0.1)  # a diagonal H compensates nothing
    scales = weight_scales(weight, 0)
    codes, _ = pb_codes(weight, np.diag(np.diag(hessian)), scales, PbLlm(salient=0.1))
    delta = weight - codes * scales[:, None].astype(np.float64)
    plain = float(np.einsum("ri,ij,rj->", delta, hessian, delta))
    assert error(weight, hessian, salient=0.1)[0] < 0.9 * plain
    assert alone > 0
    assert mask.mean() == pytest.approx(0.1, abs=0.001)


def test_codes_are_two_levels_a_row_and_the_salient_ones():
    weight, hessian = heavy()
    _, codes, mask = error(weight, hessian, salient=0.05)
    for row, marked in zip(codes, mask, strict=True):
        assert len(np.unique(row[~marked])) <= 2
    size = salient_bytes(codes)
    assert size is not None
    assert size == pack_salient(codes).size
    assert 8 * size / codes.size <= 2 + 7 * 0.05 + 16 / codes.shape[1] + 24 / codes.size
    none = error(weight, hessian, salient=0.0)[1]
    assert 8 * pack_salient(none).size / none.size <= 1 + 16 / none.shape[1] + 8 / none.size


def test_levels_divide_by_the_weights_they_are_made_of():
    weight = np.array([[1.0, -3.0, 50.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    mask = np.array([[False, False, True, False], [True, True, True, True]])
    mu, alpha = binary_levels(weight, mask)
    assert mu.tolist() == pytest.approx([-1 / 3, 0])
    assert alpha.tolist() == pytest.approx([16 / 9, 0])


def test_the_hessian_prefers_columns_that_are_heard():
    weight = np.ones((4, 6))
    hessian = np.diag([1.0, 1.0, 100.0, 1.0, 1.0, 1.0])
    mask = salient_mask(weight, _factor(hessian, 0.0), 1 / 6, "hessian")
    assert mask[:, 2].all()
    assert mask.sum() == 4


def test_impossible_options_and_values_are_refused():
    with pytest.raises(UsageError) as caught:
        configure(PbLlm, {"salient": 1.5, "metric": "taste"}, "quantize/pb_llm")
    assert len(caught.value.problems) == 2
    weight, hessian = heavy(4, 8)
    weight[0, 0] = np.nan
    with pytest.raises(UsageError, match="NaN"):
        pb_codes(weight, hessian, np.ones(4, np.float32), PbLlm())


def test_it_needs_a_grid_of_eight_bits():
    from methods.quantize.graphs import data, resnet
    from methods.quantize.test_reconstruction import compress

    with pytest.raises(UsageError, match="8-bit weights"):
        compress(resnet(), ["quantize/uniform:weight_bits=4", "quantize/pb_llm"], data(16))
