"""Values on their way to and from Convex.

| Python | Convex |
|---|---|
| `None` | null (for an optional field leave the key out: null is not "absent") |
| `bool`, `str`, `bytes` | the same |
| `float` | float64; NaN, the infinities and -0.0 are kept |
| `int` | float64, as JavaScript's `number`; between -2^53 and 2^53 |
| `ConvexInt64` | int64, JavaScript's `bigint` |
| `list`, `tuple` | array |
| `dict`, any `Mapping` | object; keys are ASCII and do not begin with `$` |

What comes back is always one of `ConvexValue`; a number is always a `float`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from convex import ConvexInt64, convex_to_json, json_to_convex

from .errors import EncodingError

ConvexValue: TypeAlias = (
    bool | float | str | bytes | ConvexInt64 | list["ConvexValue"] | dict[str, "ConvexValue"] | None
)

# The backend's own limits: value/src/size.rs and value/src/field_name.rs of convex-backend.
MAX_NESTING = 64
MAX_FIELD_NAME_LENGTH = 1024
MAX_SAFE_INTEGER = 2**53


def encode_args(function: str, args: Mapping[str, object] | None) -> object:
    """The JSON form of a call's arguments.

    Raises:
        EncodingError: a value Convex cannot hold, named by function and path, never shown.
    """
    given: object = {} if args is None else args
    if not isinstance(given, Mapping):
        raise EncodingError(f"{function}: args is not a mapping of names to values", path="args")
    _check(function, given, "args", 0)
    return convex_to_json(given)


class JsonArgs(dict[str, object]):
    """Arguments that were read from JSON of our own: nothing to check or convert.

    For the delivery, whose records were looked at when they were stored. Looking at 64 of them
    again costs 2 ms on the loop that carries the audio.
    """


def encode_call(function: str, args: Mapping[str, object] | None) -> bytes:
    """The body of a request that calls `function`.

    Raises:
        EncodingError: as `encode_args`.
    """
    # Without the format the answer's int64, bytes and NaN would come as lossy strings.
    document = {"path": function, "args": args, "format": "convex_encoded_json"}
    if isinstance(args, JsonArgs):
        return msgspec.json.encode(document)
    return dump_json({**document, "args": encode_args(function, args)}).encode()


def decode(value: object) -> ConvexValue:
    """The Python form of Convex's encoded JSON; ValueError if it is not that."""
    try:
        decoded: ConvexValue = json_to_convex(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError, struct.error):
        raise ValueError("not a value in Convex's encoded JSON") from None  # the cause quotes it
    return decoded


def dump_json(document: object) -> str:
    """JSON text, refusing what JSON cannot say."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load_json(text: str | bytes) -> object:
    """Parse JSON whose every number is a float64; ValueError if it is not JSON.

    A RecursionError (thousands of brackets) becomes a ValueError: it is no answer either.
    """
    try:
        parsed: object = json.loads(text, parse_int=float, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return parsed


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _check(function: str, value: object, path: str, depth: int) -> None:
    """Refuse by path what `convex_to_json` would refuse by value, or misread."""
    if value is None or isinstance(value, (bool, float, bytes, bytearray, memoryview)):
        return
    if isinstance(value, str):
        if not value.isascii() and not _is_unicode(value):
            raise EncodingError(
                f"{function}: {path} holds half a surrogate pair, which is not text; "
                "encode it with errors='replace' first",
                path=path,
            )
        return
    if isinstance(value, int):
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise EncodingError(
                f"{function}: {path} is an int outside -2^53..2^53; pass a ConvexInt64",
                path=path,
            )
        return
    if isinstance(value, ConvexInt64):
        return
    if depth >= MAX_NESTING:
        raise EncodingError(f"{function}: {path} is nested more than {MAX_NESTING} deep", path=path)
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_name(function, name, path)
            _check(function, item, f"{path}.{name}", depth + 1)
    elif isinstance(value, Sequence):
        for index, item in enumerate(value):
            _check(function, item, f"{path}[{index}]", depth + 1)
    else:
        raise EncodingError(
            f"{function}: {path} is a {type(value).__module__}.{type(value).__qualname__}, "
            "which Convex cannot hold",
            path=path,
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_name(function: str, name: object, path: str) -> None:
    # The name itself is not shown: a mapping keyed by what was said is the usual mistake here.
    if not isinstance(name, str):
        fault = "that is not a string"
    elif name.startswith("$"):
        fault = "that begins with '$', which is reserved"
    elif len(name) > MAX_FIELD_NAME_LENGTH:
        fault = f"longer than {MAX_FIELD_NAME_LENGTH} characters"
    elif not name.isascii() or not name.isprintable():
        fault = "with characters other than printable ASCII; use an array of pairs"
    else:
        return
    raise EncodingError(f"{function}: {path} has a field name {fault}", path=path)
