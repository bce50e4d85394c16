import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from netsuke.core.errors import FileError, UsageError
from netsuke.data import Dataset, Preprocess, load_data, overlap


def write(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def gather(data, size=64):
    parts = list(data.batches(size))
    y = None if parts[0][1] is None else np.concatenate([p[1] for p in parts])
    return np.concatenate([p[0] for p in parts]), y


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.standard_normal((23, 3, 4, 4)).astype(np.float32), rng.integers(0, 5, 23)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_npz_streams_the_same_samples(tmp_path, arrays, compressed, size):
    x, y = arrays
    data = load_data(write(tmp_path / "a.npz", compressed, x=x, y=y))
    got_x, got_y = gather(data, size)
    np.testing.assert_array_equal(got_x, x)
    np.testing.assert_array_equal(got_y, y)
    assert (data.count, data.shape, data.labels) == (23, (3, 4, 4), True)
    assert max(len(p) for p, _ in data.batches(size)) <= size


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 9))
def test_take_is_seeded_sorted_and_without_replacement(count, seed, size):
    x = np.arange(20, dtype=np.float32)[:, None]
    data = Dataset.from_arrays(x)
    got = gather(data.take(count, seed), size)[0][:, 0]
    assert len(got) == min(count, 20)
    assert (np.diff(got) > 0).all()
    np.testing.assert_array_equal(got, gather(data.take(count, seed))[0][:, 0])


def test_take_of_a_take_and_select():
    data = Dataset.from_arrays(np.arange(20, dtype=np.float32)[:, None])
    part = data.take(10, 1)
    assert set(gather(part.take(5, 2))[0][:, 0]) <= set(gather(part)[0][:, 0])
    assert gather(data.select([7, 3]))[0][:, 0].tolist() == [3, 7]


def test_hash_depends_on_content_not_on_chunks_or_file(tmp_path, arrays):
    x, y = arrays
    first = load_data(write(tmp_path / "a.npz", x=x, y=y))
    second = load_data(write(tmp_path / "b.npz", True, x=x, y=y))
    assert first.sha256 == second.sha256 == Dataset.from_arrays(x, y).sha256
    x[3, 0, 0, 0] += 1
    assert Dataset.from_arrays(x, y).sha256 != first.sha256
    assert Dataset.from_arrays(arrays[0]).sha256 != Dataset.from_arrays(arrays[0].reshape(23, 48)).sha256


def test_overlap_counts_shared_inputs(arrays):
    data = Dataset.from_arrays(*arrays)
    assert overlap(data.select(range(10)), data.select(range(10, 23))) == 0
    assert overlap(data.select(range(10)), data.select(range(7, 23))) == 3


def test_memory_stays_at_a_chunk(tmp_path):
    path = write(tmp_path / "big.npz", True, x=np.zeros((4000, 64, 64), np.float32))  # 64 MB unpacked
    data = load_data(path)
    tracemalloc.start()
    for _ in data.batches(16):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_nan_and_infinity_name_the_sample(arrays):
    for value, word in ((np.nan, "NaN"), (np.inf, "infinity")):
        x = arrays[0].copy()
        x[17, 0, 1, 1] = value
        with pytest.raises(UsageError, match=f"sample 17.*{word}"):
            gather(Dataset.from_arrays(x), 5)


@pytest.mark.parametrize(
    ("arrays_", "message"),
    [
        ({"x": np.zeros((0, 3), np.float32)}, "empty"),
        ({"x": np.zeros((4, 0), np.float32)}, "empty samples"),
        ({"x": np.float32(1)}, "plain array"),
        ({"x": np.zeros((4, 2), np.uint8)}, "wrong dtype"),
        ({"x": np.zeros((4, 2), np.complex64)}, "plain array"),
        ({"x": np.zeros((4, 2), np.float32), "y": np.zeros(3, int)}, "does not fit"),
        ({"x": np.zeros((4, 2), np.float32), "y": np.zeros(4)}, "y has the wrong dtype"),
        ({"y": np.zeros(4, int)}, "no array 'x'"),
    ],
)
def test_bad_npz(tmp_path, arrays_, message):
    with pytest.raises((FileError, UsageError), match=message):
        gather(load_data(write(tmp_path / "a.npz", **arrays_)))


def test_damaged_npz(tmp_path, arrays):
    path = write(tmp_path / "a.npz", x=arrays[0])
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError):
            gather(load_data(path))
    broken = bytearray(whole)
    broken[400] ^= 0xFF  # inside the samples: the checksum of the archive must notice
    path.write_bytes(broken)
    with pytest.raises(FileError, match="damaged"):
        gather(load_data(path))


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{"a": 1}], object))
    with pytest.raises((FileError, UsageError)):
        load_data(path)


def test_dtypes_that_a_network_takes():
    assert gather(Dataset.from_arrays(np.zeros((2, 2), np.float64)))[0].dtype == np.float32
    assert gather(Dataset.from_arrays(np.zeros((2, 2), np.int64)))[0].dtype == np.int64


def test_digits_are_built_in_and_split():
    train, test, every = (load_data(f"digits:{s}") for s in ("train", "test", "all"))
    assert (train.count, test.count, every.count) == (1438, 359, 1797)
    assert overlap(test, train) == 0
    x, y = gather(test)
    assert (x.shape, x.dtype) == ((359, 1, 8, 8), np.float32)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert set(y) == set(range(10))
    assert load_data("digits", role="calib").source == "digits:train"
    assert load_data("digits").source == "digits:test"


def test_digits_equal_scikit_learn():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = gather(load_data("digits:all"))
    np.testing.assert_array_equal(x[:, 0] * 16, digits.images)
    np.testing.assert_array_equal(y, digits.target)


def test_cifar_and_fashion_from_a_directory(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    (tmp_path / "cifar10").mkdir()
    write(tmp_path / "cifar10" / "test_1k.npz", x=pixels, y=np.arange(6, dtype=np.uint8))
    x, y = gather(load_data("cifar10:test", tmp_path))
    expected = (pixels[..., 0] / 255 - 0.485) / 0.229
    np.testing.assert_allclose(x[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert y.tolist() == list(range(6))

    gray = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    for name, header, body in (
        ("t10k-images-idx3-ubyte.gz", struct.pack(">HBBIII", 0, 8, 3, 5, 28, 28), gray.tobytes()),
        ("t10k-labels-idx1-ubyte.gz", struct.pack(">HBBI", 0, 8, 1, 5), bytes(range(5))),
    ):
        (tmp_path / name).write_bytes(gzip.compress(header + body))
    monkeypatch.setenv("NETSUKE_DATA", str(tmp_path))
    x, y = gather(load_data("fashion-mnist"))
    np.testing.assert_allclose(x[:, 0], (gray / 255 - 0.286) / 0.353, rtol=1e-5, atol=1e-6)
    assert y.tolist() == list(range(5))


def test_missing_files_say_which_and_what_else_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("NETSUKE_DATA", raising=False)
    with pytest.raises(FileError, match=r"NETSUKE_DATA.*digits is built in"):
        load_data("cifar10")
    with pytest.raises(FileError) as caught:
        load_data("fashion-mnist", tmp_path)
    assert len(caught.value.problems) == 2
    assert "t10k-images-idx3-ubyte.gz" in str(caught.value)
    with pytest.raises(UsageError, match="test-jpeg"):
        load_data("cifar10:jpeg", tmp_path)
    with pytest.raises(FileError, match="did you mean digits"):
        load_data("digit")
    with pytest.raises(FileError, match="no such file"):
        load_data(tmp_path / "none.npz")


def make_folder(root, sizes=((10, 12), (10, 12))):
    for index, size in enumerate(sizes):
        folder = root / f"class{index}"
        folder.mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", size, (index * 40, k * 10, 7)).save(folder / f"{k}.png")
    return root


def test_folder_of_images(tmp_path):
    make_folder(tmp_path / "a")
    (tmp_path / "a" / "preprocess.toml").write_text('resize = 8\ncrop = 8\nmean = 0.5\nstd = [0.5]\nlayout = "nhwc"\n')
    data = load_data(tmp_path / "a")
    x, y = gather(data, 4)
    assert x.shape == (6, 8, 8, 3)
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(x[3, 0, 0], (np.array([40, 0, 7]) / 255 - 0.5) / 0.5, rtol=1e-5)
    small = gather(load_data(tmp_path / "a", preprocess="resize=9/7,gray=true"))[0]
    assert small.shape == (6, 1, 9, 7)


def test_folder_problems(tmp_path):
    make_folder(tmp_path / "a", ((10, 12), (10, 11)))
    with pytest.raises(FileError, match="preprocess"):
        load_data(tmp_path / "a")
    with pytest.raises(UsageError, match="different sizes"):
        gather(load_data(tmp_path / "a", preprocess="scale=255"))
    with pytest.raises(UsageError, match="smaller than the crop"):
        gather(load_data(tmp_path / "a", preprocess="crop=64"))
    (tmp_path / "a" / "class0" / "bad.png").write_bytes(b"not an image")
    with pytest.raises(FileError, match="not a readable image"):
        gather(load_data(tmp_path / "a", preprocess="resize=8/8"))
    (tmp_path / "b").mkdir()
    with pytest.raises(FileError, match="no images"):
        load_data(tmp_path / "b", preprocess="resize=8")


def test_preprocess_lists_mistakes():
    with pytest.raises(UsageError) as caught:
        Preprocess.from_table({"men": 1, "crop": "a", "layout": 3}, "x.toml")
    assert len(caught.value.problems) == 3
    for bad in ("std=0", "layout=hwc", "crop=0", "mean=a", "crop", "mean=0.5/0.5"):
        with pytest.raises(UsageError):
            Preprocess.parse(bad)(np.zeros((1, 4, 4, 3), np.uint8))


def test_raw_pixels_in_an_npz_need_a_preprocessing(tmp_path):
    path = write(tmp_path / "a.npz", x=np.full((2, 4, 4, 3), 51, np.uint8))
    with pytest.raises(UsageError, match="preprocessing"):
        gather(load_data(path))
    x, _ = gather(load_data(path, preprocess="mean=0.2,std=0.5"))
    assert x.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(x, 0, atol=1e-6)
