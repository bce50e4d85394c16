"""How constants stand in the file: codes of few bits, indices into a table, or plain (docs/format.md section 3).

The form follows from the values of a constant alone, so no part of a program has to declare it and none can contradict
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsuke.core.errors import FileError, Problem
from netsuke.formats import fewest_bits, pack_codes, packed_bytes, unpack_codes
from netsuke.formats.codebook import Book, decode_book, find_book
from netsuke.formats.packing_forms import FORM_BITS, pack_form, smallest_form, unpack_form
from netsuke.program.model import Program
from netsuke.program.model_json import Packed

Array = np.ndarray[Any, Any]
# A table must save a sixth: below that, decoding at load and a less readable file are not worth it. E2M1 saves a fifth:
# 15 values up to 12 take 5 bits as codes, 4 as indices.
TABLE_SHARE = 5 / 6
_TABLE_OPS = ("conv", "conv_transpose", "linear")  # whose f32 weights may be indices into a table
_NAMES = {"s8": "int8", "u8": "uint8", "f32": "float32"}


@dataclass(frozen=True)
class Form:
    """A packed constant: what the file says of it, its bytes, and the table where it has one."""

    packed: Packed
    bytes: int
    book: Book | None = None


def _weights(program: Program, ops: tuple[str, ...]) -> set[str]:
    return {node.inputs[1] for node in program.nodes if node.op in ops and len(node.inputs) > 1}


def stored_forms(program: Program, names: Iterable[str] | None = None) -> dict[str, Form]:
    """The packed ones among the constants named; default: among all constants."""
    codes, floats = _weights(program, ("wlinear",)), _weights(program, _TABLE_OPS)
    found = {}
    for name in program.constants if names is None else names:
        form = _form(program, name, codes, floats)
        if form is not None:
            found[name] = form
    return found


def _form(program: Program, name: str, codes: set[str], floats: set[str]) -> Form | None:
    array = program.constants[name]
    is_code = array.dtype == np.int8 or (array.dtype == np.uint8 and name in codes)
    if not array.size or not (is_code or (array.dtype == np.float32 and name in floats)):
        return None
    bits = fewest_bits(array) if is_code else 32
    plain = packed_bytes(array.size, bits) if is_code else array.nbytes
    dtype = "f32" if not is_code else "s8" if array.dtype == np.int8 else "u8"
    named = smallest_form(array, plain) if dtype == "s8" else None
    plain = plain if named is None else named[1]
    book = find_book(array, TABLE_SHARE * plain)
    if book is not None:
        size = (book.entries.shape[0], book.entries.shape[1])
        return Form(Packed(dtype, array.shape, book.bits, size), book.bytes, book)
    if named is not None:
        return Form(Packed(dtype, array.shape, FORM_BITS[named[0]], form=named[0]), plain)
    return Form(Packed(dtype, array.shape, bits), plain) if bits < 8 else None


def encode(array: Array, form: Form) -> Array:
    """The bytes of a packed constant."""
    if form.packed.form:
        return pack_form(array, form.packed.form)
    return pack_codes(array, form.packed.bits) if form.book is None else form.book.encode()


def stored_bits(program: Program, name: str) -> int:
    """Bits that an element of a constant takes in the file, rounded up; entries of a table are not counted.

    A form with a name counts as wide as its codes (ternary 2, salient 8), whatever it takes: see `stored_bytes`.
    """
    form = stored_forms(program, [name]).get(name)
    if form is None:
        return 8 * program.constants[name].itemsize
    length = form.packed.entries[1] if form.packed.entries else 1
    return -(-form.packed.bits // length)


def stored_bytes(program: Program, names: Iterable[str]) -> int:
    """Bytes that the constants named take in the file; names that are no constants, and repetitions, count nothing."""
    known = [name for name in dict.fromkeys(names) if name in program.constants]
    forms = stored_forms(program, known)
    return sum(forms[name].bytes if name in forms else program.constants[name].nbytes for name in known)


def unpack_constants(program: Program, packed: Mapping[str, Packed], where: str) -> None:
    """Decode the packed constants in place. Raises FileError listing every form that its bytes do not fit."""
    problems: list[Problem] = []
    for name, form in packed.items():
        data, place = program.constants.get(name), f"{where}: packed {name[:80]!r}"
        if data is None or data.dtype != np.uint8 or data.ndim != 1:
            got = "no such tensor" if data is None else f"{data.dtype} {list(data.shape)}"
            problems.append(Problem("a packed constant is stored as a list of bytes (U8)", where=place, got=got))
            continue
        try:
            if form.form:
                values = unpack_form(data, form.form, form.shape)
            elif form.entries is None:
                values = unpack_codes(data, form.bits, form.shape, signed=form.dtype == "s8")
            else:
                values = decode_book(data, form.bits, form.entries, form.shape, _NAMES[form.dtype])
        except ValueError as error:
            problems.append(Problem(str(error), where=place))
            continue
        values.flags.writeable = False
        program.constants[name] = values
    if problems:
        raise FileError(problems[:50])
