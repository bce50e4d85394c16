"""The .nsk file: same bytes, round trip, and damaged or hostile files give FileError."""

import copy
import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netsuke import engine
from netsuke.core.errors import FileError, NetsukeError
from netsuke.formats import accumulator_bound, f32_to_bf16
from netsuke.program import (
    Node,
    Port,
    Program,
    Value,
    from_bytes,
    interpreter,
    read,
    stored_bits,
    stored_bytes,
    to_bytes,
    write,
)
from netsuke.program.model_json import shortest


def small_program() -> Program:
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (5, 3, 3, 7)).astype(np.int8)
    window = {"strides": [1, 1], "pads": [1, 1, 1, 1], "x_zero": 3, "acc_bound": int(accumulator_bound(w, 3).max())}
    nodes = [
        Node("quantize", "q", ["x"], ["xq"], {"scale": 0.05, "zero": 3}),
        Node("qconv", "c", ["xq", "w", "m", "b", "", ""], ["y"], window),
        Node("dequantize", "d", ["y"], ["yf"], {"scale": 0.1, "zero": 0}),
        Node("linear", "l", ["yf", "wb", "", ""], ["z"], {"act": "relu"}),
    ]
    constants = {
        "w": w,
        "m": np.full(5, 0.01, np.float32),
        "b": rng.normal(size=5).astype(np.float32),
        "wb": f32_to_bf16(rng.normal(size=(4, 5)).astype(np.float32)),
    }
    values = {"xq": Value("u8", 0.05, 3, "ünï"), "y": Value("u8", 0.1, 0)}
    ports = [Port("x", "f32", ("N", 8, "W", 7))], [Port("z", "f32", ("N", 8, "W", 4))]
    return Program("small", *ports, nodes, constants, values, {"wb"}, 'plan = "α"\n', {"seed": "0"})


def test_round_trip(tmp_path):
    program = small_program()
    size = write(program, tmp_path / "p.nsk")
    assert size == (tmp_path / "p.nsk").stat().st_size
    back = read(tmp_path / "p.nsk")
    assert (back.name, back.inputs, back.outputs, back.plan, back.meta, back.bf16) == (
        program.name,
        program.inputs,
        program.outputs,
        program.plan,
        program.meta,
        program.bf16,
    )
    assert [n.op for n in back.nodes] == [n.op for n in program.nodes]
    assert back.nodes[1].attrs == program.nodes[1].attrs
    assert np.float32(back.nodes[0].attrs["scale"]) == np.float32(0.05)
    for name, array in program.constants.items():
        assert back.constants[name].dtype == array.dtype
        assert np.array_equal(back.constants[name], array)
    assert to_bytes(back) == to_bytes(program)


def test_bytes_do_not_depend_on_insertion_order():
    program, other = small_program(), small_program()
    other.constants = dict(reversed(other.constants.items()))
    other.nodes[1].attrs = dict(reversed(other.nodes[1].attrs.items()))
    assert to_bytes(program) == to_bytes(other)


def test_the_container_is_safetensors(tmp_path):
    from safetensors import safe_open

    write(small_program(), tmp_path / "p.nsk")
    with safe_open(tmp_path / "p.nsk", "np") as file:
        assert set(file.keys()) == {"w", "m", "b", "wb"}
        document = json.loads(file.metadata()["netsuke"])
        assert np.array_equal(file.get_tensor("w"), small_program().constants["w"])
    assert document["format"] == "netsuke-program"
    assert '"scale":0.05' in json.dumps(document, separators=(",", ":"))  # fewest digits, not 0.05000000074505806


def test_data_starts_aligned_and_arrays_are_views(tmp_path):
    write(small_program(), tmp_path / "p.nsk")
    data = (tmp_path / "p.nsk").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0
    array = read(tmp_path / "p.nsk").constants["m"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0


def test_write_replaces_in_one_step(tmp_path):
    path = tmp_path / "p.nsk"
    write(small_program(), path)
    before = path.read_bytes()
    broken = small_program()
    broken.nodes[0].op = "quantise"
    with pytest.raises(FileError, match="did you mean"):
        write(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.nsk"]
    with pytest.raises(FileError, match="cannot write"):
        write(small_program(), tmp_path / "missing" / "p.nsk")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(999999995904.0)  # is written as 1e12, one digit but a longer repr
def test_shortest_float_keeps_the_f32(value):
    assert np.float32(shortest(value)) == np.float32(value)
    assert digits(shortest(value)) <= digits(value)


def digits(value: float) -> int:
    """Significant decimal digits."""
    return len(Decimal(repr(value)).normalize().as_tuple().digits)


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.nsk")
    (tmp_path / "empty.nsk").touch()
    with pytest.raises(FileError, match="empty"):
        read(tmp_path / "empty.nsk")
    (tmp_path / "text.nsk").write_text("hello, this is not a program")
    with pytest.raises(FileError, match=r"not a \.nsk file"):
        read(tmp_path / "text.nsk")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "weights.nsk")
    with pytest.raises(FileError, match="no netsuke program"):
        read(tmp_path / "weights.nsk")


def container(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def document(**changes: object) -> bytes:
    plain = {"format": "netsuke-program", "version": 1, "producer": "", "name": "", "inputs": [], "outputs": []}
    plain |= {"nodes": [], "values": {}, "plan": "", "meta": {}, **changes}
    return container({"__metadata__": {"netsuke": json.dumps(plain)}})


NODE = {"op": "identity", "name": "n", "in": ["x"], "out": ["y"], "attrs": {}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (container(b"[" * 100_000), "not valid JSON|nested"),
        (container(b'{"a":' * 100_000), "not valid JSON|nested"),
        (container(b"\xff\xfe"), "UTF-8"),
        (container([]), "JSON object"),
        (container(b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
        (container({"__metadata__": {"netsuke": "[" * 40 + "]" * 40}}), "nested too deep"),
        (container({"__metadata__": {"netsuke": "1e999"}}), "out of range"),
        (container({"__metadata__": {"netsuke": "NaN"}}), "not a JSON number"),
        (container({"__metadata__": {"netsuke": "9" * 5000}}), "out of range"),
        (container({"__metadata__": {"netsuke": "{}", "other": ""}}), "unknown metadata"),
        (document(version=2), "unknown version"),
        (document(format="other"), "unknown format"),
        (document(extra=1), "unknown key"),
        (document(nodes={}), "not a JSON list"),
        (document(nodes=[{**NODE, "attrs": {"a": None}}]), "neither a number"),
        (document(nodes=[{**NODE, "attrs": {"a": True}}]), "neither a number"),
        (document(nodes=[{**NODE, "in": [1]}]), "expected a text"),
        (document(inputs=[{"name": "x", "dtype": "f32", "shape": [1] * 9}]), "at most 8"),
        (document(inputs=[{"name": "x", "dtype": "f32", "shape": [-1]}]), "sizes or dimension names"),
        (document(values={"y": {"dtype": "u8", "scale": -1.0}}), "not a positive number"),
        ((2**63).to_bytes(8, "little"), "cut short"),
        (b"\x00" * 7, "cut short"),
    ],
)
def test_hostile_files(data, message):
    with pytest.raises(FileError, match=message):
        from_bytes(data)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}, "disagree"),
        ({"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}, "disagree"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}, "outside"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "outside"),
        ({"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}, "unknown dtype"),
        ({"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 8]}, "at most 8"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 8]}, "at most 8"),
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "belong to no tensor"),
        ({"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}, "overlap or leave a hole"),
        ({"dtype": "U8", "shape": [4]}, "expected dtype"),
    ],
)
def test_hostile_tensors(entry, message):
    header = {"__metadata__": {"netsuke": "{}"}, "t": entry}
    with pytest.raises(FileError, match=message):
        from_bytes(container(header, b"\x00" * 8))


@pytest.fixture(scope="module")
def good() -> bytes:
    return to_bytes(small_program())


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_files_give_a_program_or_an_error(good, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(good)
    for _ in range(rng.integers(1, 4)):
        kind, at = rng.integers(0, 4), int(rng.integers(0, len(data)))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = bytes(rng.integers(32, 127, rng.integers(1, 5)).astype(np.uint8))
        if not data:
            break
    try:
        program = from_bytes(bytes(data))
    except FileError:
        return  # the only exception allowed
    assert to_bytes(program)


def places(item: object) -> list[tuple[object, object]]:
    """(container, key) of everything inside a JSON document."""
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [place for key, value in pairs for place in [(item, key), *places(value)]]


JUNK = (None, True, -1, 0, 10**30, 2**62, 1.5, 1e300, "", "x", "y", "w", "qconv", "lut", [], [1], [[]], {}, {"a": 1})


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), inside=st.booleans())
def test_junk_in_any_place_of_the_json_gives_a_program_or_an_error(good, seed, inside):
    rng = np.random.default_rng(seed)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    program = json.loads(header["__metadata__"]["netsuke"])
    for _ in range(rng.integers(1, 3)):
        container_, key = (options := places(program if inside else header))[rng.integers(len(options))]
        if rng.random() < 0.2 and isinstance(container_, dict):
            del container_[key]
        else:
            container_[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])  # the next round may change it
    if inside:
        header["__metadata__"]["netsuke"] = json.dumps(program)
    try:
        back = from_bytes(container(header, good[8 + length :]))
    except FileError:
        return
    assert to_bytes(back)


def low_bit_program(codes: np.ndarray) -> Program:
    attrs = {"x_zero": 3, "acc_bound": int(accumulator_bound(codes, 3).max())}
    node = Node("qlinear", "l", ["x", "w", "m", "", "", ""], ["y"], attrs)
    ports = [Port("x", "u8", ("N", codes.shape[1]))], [Port("y", "u8", ("N", codes.shape[0]))]
    return Program("low", *ports, [node], {"w": codes, "m": np.full(codes.shape[0], 0.01, np.float32)})


@pytest.mark.parametrize(("bits", "low", "high"), [(2, -2, 1), (3, -3, 3), (4, -7, 7), (5, -15, 15), (6, -31, 31)])
def test_codes_take_the_fewest_bits_that_hold_them(bits, low, high):
    w = np.random.default_rng(bits).integers(low, high + 1, (5, 7)).astype(np.int8)
    w[0, :2] = low, high
    program = low_bit_program(w)
    data = to_bytes(program)
    back = from_bytes(data)
    assert np.array_equal(back.constants["w"], w)
    assert back.constants["w"].dtype == np.int8
    assert to_bytes(back) == data
    assert stored_bits(program, "w") == bits
    assert stored_bytes(program, ["w", "w", "x"]) == (35 * bits + 7) // 8
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["w"]["data_offsets"][1] - header["w"]["data_offsets"][0] == (35 * bits + 7) // 8


def test_binary_codes_take_one_bit():
    w = np.where(np.random.default_rng(0).random((6, 9)) < 0.5, -1, 1).astype(np.int8)
    assert stored_bytes(low_bit_program(w), ["w"]) == 7
    assert np.array_equal(from_bytes(to_bytes(low_bit_program(w))).constants["w"], w)


def test_ternary_codes_take_a_fifth_of_a_byte():
    w = np.random.default_rng(0).integers(-1, 2, (6, 9)).astype(np.int8)
    program = low_bit_program(w)
    data = to_bytes(program)
    assert stored_bits(program, "w") == 2
    assert stored_bytes(program, ["w"]) == 11  # 54 codes
    assert json.loads(from_header(data)["netsuke"])["packed"]["w"] == {
        "form": "ternary",
        "dtype": "s8",
        "shape": [6, 9],
    }
    assert np.array_equal(from_bytes(data).constants["w"], w)
    assert to_bytes(from_bytes(data)) == data


def test_two_levels_a_row_and_exceptions_take_little_more_than_two_bits():
    rng = np.random.default_rng(0)
    w = np.where(rng.random((16, 200)) < 0.5, rng.integers(-30, -10, (16, 1)), rng.integers(10, 30, (16, 1)))
    salient = rng.random(w.shape) < 0.05
    w = np.where(salient, rng.integers(-127, 128, w.shape), w).astype(np.int8)
    program = low_bit_program(w)
    data = to_bytes(program)
    assert stored_bits(program, "w") == 8
    bits = 8 * stored_bytes(program, ["w"]) / w.size
    assert 2.1 < bits < 2.6
    assert json.loads(from_header(data)["netsuke"])["packed"]["w"]["form"] == "salient"
    assert np.array_equal(from_bytes(data).constants["w"], w)
    assert to_bytes(from_bytes(data)) == data


def from_header(data):
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ({"form": "ternary", "dtype": "s8", "shape": [5, 7]}, "take 7 bytes"),
        ({"form": "ternary", "dtype": "u8", "shape": [5, 7]}, "form of s8 codes"),
        ({"form": "golden", "dtype": "s8", "shape": [5, 7]}, "form of s8 codes"),
        ({"form": "ternary", "bits": 2, "dtype": "s8", "shape": [5, 7]}, "unknown key"),
        ({"form": "salient", "dtype": "s8", "shape": [5, 7]}, "unused bit|exceptions|cut short"),
        ({"form": "salient", "dtype": "s8", "shape": []}, "rows of codes"),
        ({"form": "salient", "dtype": "s8", "shape": [0, 7]}, "rows of codes"),
        ({"bits": 7, "dtype": "s8", "shape": [5, 7]}, "1, 2, 3, 4, 5 or 6 bits"),
        ({"bits": 2.0, "dtype": "s8", "shape": [5, 7]}, "1, 2, 3, 4, 5 or 6 bits"),
        ({"bits": 3, "dtype": "f32", "shape": [5, 7]}, "1, 2, 3, 4, 5 or 6 bits"),
        ({"bits": 2, "dtype": "s8", "shape": [5, 7]}, "take 9 bytes"),
        ({"bits": 3, "dtype": "s8", "shape": [5, -7]}, "shape"),
        ({"bits": 3, "dtype": "s8", "shape": [2**40, 2**40]}, "shape"),
        ({"bits": 3, "dtype": "s8"}, "'shape' is missing"),
        ([], "expected a JSON object"),
    ],
)
def test_damaged_packed_forms_are_refused(form, what):
    w = np.array([[3, -3, 1, 0, 2, 1, 0]] * 5, np.int8)
    data = to_bytes(low_bit_program(w))
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    document = json.loads(header["__metadata__"]["netsuke"])
    document["packed"]["w"] = form
    header["__metadata__"]["netsuke"] = json.dumps(document)
    with pytest.raises(FileError, match=what):
        from_bytes(container(header, data[size:]))
    spoiled = bytearray(data)
    spoiled[-1] |= 0x80  # 35 codes of 3 bits leave 7 bits of the last byte
    with pytest.raises(FileError, match="unused bit"):
        from_bytes(bytes(spoiled))


def test_codes_of_few_vectors_are_stored_as_indices_and_run_as_codes():
    rng = np.random.default_rng(0)
    entries = rng.integers(-127, 128, (13, 4)).astype(np.int8)
    w = entries[rng.integers(0, 13, (40, 24))].reshape(40, 96)
    program = low_bit_program(w)
    data = to_bytes(program)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    form = json.loads(header["__metadata__"]["netsuke"])["packed"]["w"]
    assert form == {"bits": 4, "dtype": "s8", "entries": [13, 4], "shape": [40, 96]}
    assert header["w"]["shape"] == [13 * 4 + 40 * 24 * 4 // 8]
    assert stored_bytes(program, ["w"]) == header["w"]["shape"][0]
    assert stored_bits(program, "w") == 1
    back = from_bytes(data)
    np.testing.assert_array_equal(back.constants["w"], w)
    assert to_bytes(back) == data
    ours = engine.load(program)
    x = rng.integers(0, 256, (5, 96)).astype(np.uint8)
    np.testing.assert_array_equal(ours(x), next(iter(interpreter.run(program, {"x": x}).values())))
    assert ours.kernels()[0]["stored"] == "4-bit indices, 13 entries of 4, decoded at load"


def test_float_weights_of_few_vectors_too_and_ordinary_ones_are_left_alone():
    rng = np.random.default_rng(1)
    table = rng.standard_normal((32, 2)).astype(np.float32)
    w = table[rng.integers(0, 32, (20, 33))].reshape(20, 66)

    def program(weights):
        ports = [Port("x", "f32", ("N", 66))], [Port("y", "f32", ("N", 20))]
        return Program("f", *ports, [Node("linear", "l", ["x", "w", "", ""], ["y"])], {"w": weights})

    assert stored_bytes(program(w), ["w"]) == 32 * 2 * 4 + (660 * 5 + 7) // 8
    back = from_bytes(to_bytes(program(w)))
    np.testing.assert_array_equal(back.constants["w"], w)
    x = rng.standard_normal((3, 66)).astype(np.float32)
    plain = engine.load(program(w))
    np.testing.assert_allclose(plain(x), x @ w.T, rtol=1e-4, atol=1e-4)
    ordinary = rng.standard_normal((20, 66)).astype(np.float32)
    assert stored_bytes(program(ordinary), ["w"]) == ordinary.nbytes


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"entries": [257, 4]}, "entries"),
        ({"entries": [13, 65]}, "entries"),
        ({"entries": [13.0, 4]}, "entries"),
        ({"entries": [13]}, "entries"),
        ({"bits": 5}, "fewest bits"),
        ({"entries": [14, 4]}, "take 296 bytes"),
        ({"entries": [13, 7]}, "no vectors of 7"),
        ({"dtype": "i32"}, "s8, u8 or f32"),
    ],
)
def test_damaged_tables_are_refused(change, what, tmp_path):
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (13, 4)).astype(np.int8)[rng.integers(0, 13, (20, 24))].reshape(20, 96)
    data = to_bytes(low_bit_program(w))
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    document = json.loads(header["__metadata__"]["netsuke"])
    document["packed"]["w"] |= change
    header["__metadata__"]["netsuke"] = json.dumps(document)
    with pytest.raises(FileError, match=what):
        from_bytes(container(header, data[size:]))
    (tmp_path / "bad.nsk").write_bytes(container(header, data[size:]))
    with pytest.raises(NetsukeError):
        engine.load(tmp_path / "bad.nsk")


def test_plain_bytes_hold_the_same_program_without_shorter_forms():
    program = small_program()
    program.constants["w"] = np.sign(program.constants["w"])  # ternary: the file keeps a fifth of a byte each
    plain = to_bytes(program, plain=True)
    assert len(plain) > len(to_bytes(program)) + program.constants["w"].size // 2
    x = np.random.default_rng(1).normal(size=(1, 8, 4, 7)).astype(np.float32)
    runs = [interpreter.run(from_bytes(data), {"x": x})["z"] for data in (plain, to_bytes(program))]
    runs += [engine.load(program, plain=plain).run({"x": x})["z"] for plain in (True, False)]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0], other)
