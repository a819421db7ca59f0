import math
import struct
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, strategies as st
from livekit.plugins import convex

from livekit.plugins.convex.values import (
    JsonArgs,
    decode,
    dump_json,
    encode_args,
    encode_call,
    load_json,
)

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8).filter(
    lambda name: not name.startswith("$")
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text()
    | st.binary()
    | st.integers(-(2**63), 2**63 - 1).map(convex.ConvexInt64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
)


def over_the_wire(args: Mapping[str, object]) -> convex.ConvexValue:
    return decode(load_json(dump_json(encode_args("a:b", args))))


def same(left: object, right: object) -> bool:
    """Equal, with NaN equal to NaN and -0.0 apart from 0.0."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return type(left) is type(right) and left == right


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_every_value_comes_back_as_it_was_sent(args: dict[str, object]) -> None:
    assert same(args, over_the_wire(args))


@given(st.dictionaries(NAMES, JSON_VALUES, max_size=4))
def test_what_was_json_already_arrives_as_if_it_had_been_looked_at(args: dict[str, object]) -> None:
    looked_at = load_json(encode_call("a:b", args))
    taken = load_json(encode_call("a:b", JsonArgs(args)))

    assert isinstance(looked_at, dict) and isinstance(taken, dict)
    assert taken.keys() == looked_at.keys() == {"path", "args", "format"}
    assert same(decode(taken), decode(looked_at))


def test_what_python_has_more_of_becomes_the_nearest_convex_value() -> None:
    class Role(StrEnum):
        USER = "user"

    sent = {"int": 3, "tuple": (1, 2), "enum": Role.USER, "view": memoryview(b"x")}

    assert over_the_wire(sent) == {"int": 3.0, "tuple": [1.0, 2.0], "enum": "user", "view": b"x"}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


class Secretive:
    def __repr__(self) -> str:
        return "ashamed"


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"records": [{"text": "ashamed \ud800"}]}, "args.records[0].text"),
        ({"n": 2**53 + 1}, "args.n"),
        ({"x": Secretive()}, "args.x"),
        ({"x": {1, 2}}, "args.x"),
        ({"x": {"$ashamed": 1}}, "args.x"),
        ({"x": {"avergonzado ashamed ñ": 1}}, "args.x"),
        ({"x": {"a" * 1025: 1}}, "args.x"),
        ({"x": [{3: 1}]}, "args.x[0]"),
        (["not", "a", "mapping"], "args"),
        ({"x": nested(70)}, "args.x" + "[0]" * 63),
    ],
)
def test_value_convex_cannot_hold_is_named_by_its_path_and_not_shown(args: Any, path: str) -> None:
    with pytest.raises(convex.EncodingError) as caught:
        encode_args("a:b", args)

    assert caught.value.path == path
    assert f"a:b: {path} " in str(caught.value)
    assert "ashamed" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_list_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)

    with pytest.raises(convex.EncodingError, match="nested"):
        encode_args("a:b", {"x": loop})


@pytest.mark.parametrize("text", ["", "<html>", "NaN", "[" * 100_000])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        load_json(text)


def test_number_is_always_a_float() -> None:
    numbers = load_json("[1, 1.5, -0.0, 1e300, 1" + "0" * 400 + "]")

    assert isinstance(numbers, list)
    assert all(type(number) is float for number in numbers)
    assert math.isinf(numbers[-1])
