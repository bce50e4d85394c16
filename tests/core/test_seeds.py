import numpy as np
import pytest

from netsuke.core.errors import UsageError
from netsuke.core.seeds import generator


def test_same_seed_and_labels_give_the_same_numbers():
    # fixed numbers: another machine or version must draw the same
    assert generator(0, "a").integers(0, 1000, 4).tolist() == generator(0, "a").integers(0, 1000, 4).tolist()
    assert (
        generator(0).integers(0, 1000, 4).tolist()
        == np.random.Generator(np.random.PCG64(np.random.SeedSequence([0]))).integers(0, 1000, 4).tolist()
    )


def test_labels_and_seeds_give_other_streams():
    draws = [generator(s, *labels).random(8).tolist() for s in (0, 1) for labels in ((), ("a",), ("b",), ("a", "b"))]
    assert len({tuple(d) for d in draws}) == len(draws)


@pytest.mark.parametrize("bad", [-1, 1.5, "0", True, None])
def test_bad_seeds(bad):
    with pytest.raises(UsageError):
        generator(bad)
