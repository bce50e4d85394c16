"""Windows of characters."""

import numpy as np
import pytest

from netsuke.core.errors import FileError, UsageError
from netsuke.data.text import characters, windows


def test_windows_follow_each_other_and_splits_are_apart(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("".join(chr(33 + i % 90) for i in range(1000)))
    train, test = windows(file, 16, "train"), windows(file, 16, "test")
    x, _ = next(train.batches(100))
    assert x.dtype == np.int64
    np.testing.assert_array_equal(x.ravel(), characters(file)[: 900 // 16 * 16])
    assert (len(train), len(test)) == (900 // 16, 100 // 16)
    np.testing.assert_array_equal(next(test.batches(1))[0][0], characters(file)[900:916])


def test_other_characters_become_question_marks(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("aé")
    assert characters(file).tolist() == [97, 63]


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileError, match=r"missing\.txt"):
        characters(tmp_path / "missing.txt")
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(UsageError, match="too short"):
        windows(tmp_path / "short.txt", 16, "train")
    with pytest.raises(UsageError, match="dev"):
        windows(tmp_path / "short.txt", 16, "dev")
