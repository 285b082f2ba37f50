"""JSON as ATLAS reads and writes it."""

import json
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_plugin.json_text import decode, encode, encode_strictly

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    text = encode_strictly(value)
    assert text == encode(value)
    assert decode(text) == value
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{} x",
        b"[1,]",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"01",
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'{"\xff":1}',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\xed\xa0\x80"',
        b'"\x00"',
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_is_not_json(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text)


def test_numbers_that_are_none() -> None:
    assert encode([nan, inf, -inf]) == b"[null,null,null]"


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        [{1.5: 2}],
        {None: 1},
        ({True: 1},),
        b"a",
        {"a": {1}},
        "\ud800",
        {"\ud800": 1},
        10**5000,
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(TypeError, match=r"."):
        encode_strictly(value)


def test_what_holds_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(TypeError, match="it is nested too deeply"):
        encode_strictly(ring)
