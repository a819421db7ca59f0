"""How a record becomes bytes: checked, cut to the limits, in the units of the wire.

The only place where seconds become milliseconds. A field whose name ends in `_at` is an instant
and one that ends in `_s` is a duration.
"""

from __future__ import annotations

import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, assert_never

import msgspec

from .limits import (
    MAX_INSTANT_MS,
    MAX_NAME_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT_BYTES,
    MAX_USAGE_MODELS,
    MIN_INSTANT_MS,
)

# Fields that hold what people and tools say; every other string is a name, and shorter.
TEXT_FIELDS = frozenset({"text", "arguments", "output"})


class RecordError(ValueError):
    """A record that cannot be stored: `field` is not what its type says. Nothing was written."""

    def __init__(self, kind: str, field: str, problem: str) -> None:
        super().__init__(f"{kind}.{field} {problem}")
        self.kind = kind
        self.field = field


def wire_name(name: str) -> str:
    """`started_speaking_at` -> `startedSpeakingAt`; `audio_s` -> `audioMs`."""
    stem, *rest = name.split("_")
    if rest and rest[-1] == "s":
        rest[-1] = "ms"
    return stem + "".join(part.capitalize() for part in rest)


class Wire(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name, gc=False
):
    """Camel case on the wire; a field that is None is left out. No other default may be used."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A value that could not be stored as it was: which field, and what was done. No content."""

    field: str
    how: Literal["truncated", "left_out", "clamped", "replaced"]


def _kind(record: Wire) -> str:
    return str(record.__struct_config__.tag)


def encode(record: Wire) -> tuple[bytes, list[Mended]]:
    """The record as JSON in wire units, without `seq`; and what had to be mended.

    Texts are cut at 64 KiB and names at 1 KiB (whole characters), lone surrogates become U+FFFD,
    an optional number or instant that Convex would refuse is left out, `created_at` is clamped to
    2020-2100: a lesson goes on with what can be kept.

    Raises:
        RecordError: a required field has the wrong type or is not a finite number.
    """
    try:
        plain = _plain(record)
        if plain is not None and len(body := _ENCODER.encode(plain)) <= MAX_RECORD_BYTES:
            return body, []
    except (UnicodeEncodeError, TypeError):
        pass  # the careful way says what is wrong, or mends it
    mended: list[Mended] = []
    body = _encode(record, mended, MAX_TEXT_BYTES)
    # JSON escapes may make six bytes of one.
    limit = MAX_TEXT_BYTES
    while len(body) > MAX_RECORD_BYTES:
        limit //= 2
        if limit < MAX_NAME_BYTES:
            raise RecordError(
                _kind(record), "*", f"is {len(body)} bytes; the limit is {MAX_RECORD_BYTES}"
            )
        body = _encode(record, mended, limit)
    return body, mended


def _encode(record: Wire, mended: list[Mended], text_limit: int) -> bytes:
    kind = _kind(record)
    try:
        wire = _to_wire(record, kind, "", mended, text_limit)
        try:
            return _ENCODER.encode(wire)
        except UnicodeEncodeError:
            # Rare, so looked for only when the encoder stumbles over one.
            mended.append(Mended("*", "replaced"))
            return _ENCODER.encode(_without_surrogates(msgspec.to_builtins(wire)))
    except (TypeError, AttributeError, OverflowError) as error:
        raise RecordError(kind, "*", f"cannot be encoded ({type(error).__name__})") from None


_ENCODER = msgspec.json.Encoder()

# Printable ASCII, not beginning with what Convex keeps to itself (docs.convex.dev, data types).
_KEY = re.compile(r"[!-#%-^`-~][ -~]{0,1023}")
# Beyond it a double, which is what Convex stores, no longer tells neighbours apart.
MAX_NUMBER = 2**53

_Role = Literal[
    "instant", "duration", "number", "text", "name", "choice", "flag", "struct", "structs", "any"
]

# Strings of so many characters are within the limit, whatever they are.
_SHORT: dict[_Role, int] = {"text": MAX_TEXT_BYTES // 4, "name": MAX_NAME_BYTES // 4}
_MIN_INSTANT_S, _MAX_INSTANT_S = MIN_INSTANT_MS / 1000, MAX_INSTANT_MS / 1000
_MAX_DURATION_S = MAX_NUMBER / 1000


class _Field(NamedTuple):
    name: str
    role: _Role
    required: bool
    short: int
    choices: tuple[object, ...]


class _Plan(NamedTuple):
    """How to look at the values of one type. The numbers are places in `values(struct)`."""

    values: Callable[[Any], tuple[Any, ...]]
    fields: tuple[_Field, ...]
    strings: tuple[tuple[int, int], ...]
    times: tuple[tuple[int, str, float, float], ...]
    structs: tuple[tuple[int, str], ...]
    others: tuple[int, ...]


_PLANS: dict[type[Wire], _Plan] = {}


def _plan(cls: type[Wire]) -> _Plan:
    fields = tuple(
        _Field(
            field.name,
            role := _role(field.name, field.type),
            field.required,
            _SHORT.get(role, -1),
            typing.get_args(field.type) if role == "choice" else (),
        )
        for field in msgspec.structs.fields(cls)
    )
    names = [field.name for field in fields]
    ranges = {"instant": (_MIN_INSTANT_S, _MAX_INSTANT_S), "duration": (0.0, _MAX_DURATION_S)}
    places = list(enumerate(fields))
    plan = _PLANS[cls] = _Plan(
        # attrgetter of a single name gives the bare value; the second makes it a tuple.
        values=operator.attrgetter(*names, names[0]),
        fields=fields,
        strings=tuple((i, f.short) for i, f in places if f.role in _SHORT),
        times=tuple((i, f.name, *ranges[f.role]) for i, f in places if f.role in ranges),
        structs=tuple((i, f.name) for i, f in places if f.role == "struct"),
        others=tuple(
            i for i, f in places if f.role not in _SHORT and f.role not in (*ranges, "struct")
        ),
    )
    return plan


def _role(name: str, annotation: Any) -> _Role:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        annotation = options[0] if len(options) == 1 else None
    if annotation is float or annotation is int:
        if name.endswith("_at"):
            return "instant"
        return "duration" if name.endswith("_s") else "number"
    if annotation is str:
        return "text" if name in TEXT_FIELDS else "name"
    if typing.get_origin(annotation) is Literal:
        return "choice"
    if annotation is bool:
        return "flag"
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        return "struct"
    if typing.get_origin(annotation) is tuple:
        return "structs"
    return "any"


_W = TypeVar("_W", bound=Wire)


def _plain(struct: _W) -> _W | None:
    """The struct in wire units if nothing about it needs a second look: the listener's path."""
    cls = type(struct)
    plan = _PLANS.get(cls) or _plan(cls)
    values = plan.values(struct)
    changes: dict[str, Any] = {}
    for index, short in plan.strings:
        value = values[index]
        if (type(value) is not str or len(value) > short) and (
            value is not None or plan.fields[index].required
        ):
            return None
    for index, name, least, most in plan.times:
        value = values[index]
        if value is not None:
            if type(value) is not float or not least <= value <= most:
                return None
            changes[name] = value * 1000.0
        elif plan.fields[index].required:
            return None
    for index, name in plan.structs:
        if (value := values[index]) is not None:
            if (inner := _plain(value)) is None:
                return None
            changes[name] = inner
    for index in plan.others:
        value, field = values[index], plan.fields[index]
        if field.role == "flag":
            if type(value) is not bool:
                return None
        elif field.role == "choice":
            if value not in field.choices:
                return None
        elif field.role == "number" and type(value) in (int, float):
            if not -MAX_NUMBER <= value <= MAX_NUMBER:
                return None
        elif value is not None or field.required:
            return None
    return msgspec.structs.replace(struct, **changes)


def _to_wire(struct: _W, kind: str, path: str, mended: list[Mended], text_limit: int) -> _W:
    """The struct in wire units, each value looked at and mended where it can be."""
    cls = type(struct)
    plan = _PLANS.get(cls) or _plan(cls)
    changes: dict[str, Any] = {}
    for value, field in zip(plan.values(struct), plan.fields, strict=False):
        if value is None:
            if field.required:
                raise RecordError(kind, path + field.name, "is missing")
        else:
            changes[field.name] = _checked(
                value, field, kind, path + field.name, mended, text_limit
            )
    return msgspec.structs.replace(struct, **changes)


def _checked(
    value: Any, field: _Field, kind: str, path: str, mended: list[Mended], text_limit: int
) -> Any:
    """The value in wire units, mended where it can be."""
    match field.role:
        case "text":
            return _text(value, kind, path, mended, text_limit)
        case "name":
            return _text(value, kind, path, mended, MAX_NAME_BYTES)
        case "number" | "instant" | "duration":
            return _number(value, field, kind, path, mended)
        case "struct":
            return _to_wire(value, kind, f"{path}.", mended, text_limit)
        case "structs":
            if len(value) > MAX_USAGE_MODELS:
                mended.append(Mended(path, "truncated"))
            return tuple(
                _to_wire(part, kind, f"{path}.", mended, text_limit)
                for part in value[:MAX_USAGE_MODELS]
            )
        case "flag":
            if not isinstance(value, bool):
                raise RecordError(kind, path, f"is {type(value).__name__}, not a bool")
            return value
        case "choice":
            if value not in field.choices:
                raise RecordError(kind, path, f"is not one of {field.choices}")
            return value
        case "any":
            _check_any(value, kind, path)
            return value
        case _:
            assert_never(field.role)


def _text(value: object, kind: str, path: str, mended: list[Mended], limit: int) -> str:
    if type(value) is not str:
        if not isinstance(value, str):
            raise RecordError(kind, path, f"is {type(value).__name__}, not a string")
        # LiveKit's LanguageCode is a str of its own class, which the encoder refuses.
        value = str.__str__(value)
    if len(value) * 4 <= limit:
        return value
    # The slice bounds the work for a text of 10 MB: no character is shorter than a byte.
    data = value[: limit + 1].encode("utf-8", "surrogatepass")
    if len(data) <= limit:
        return value
    mended.append(Mended(path, "truncated"))
    # A character cut in half at the end is dropped.
    return data[:limit].decode("utf-8", "ignore")


def _number(
    value: Any, field: _Field, kind: str, path: str, mended: list[Mended]
) -> float | int | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise RecordError(kind, path, f"is {type(value).__name__}, not a number")
    # Encoders make null of NaN and infinities in silence, so they are looked for here; integers
    # beyond what a double holds are no better.
    if abs(value) <= MAX_NUMBER:
        if field.role == "number":
            return int(value) if isinstance(value, int) else float(value)
        converted = float(value) * 1000.0
        if field.role == "duration" or MIN_INSTANT_MS <= converted <= MAX_INSTANT_MS:
            return converted
        if field.required:
            # A machine whose clock is wrong by decades still has a lesson to keep; `seq` orders.
            mended.append(Mended(path, "clamped"))
            return float(min(max(converted, MIN_INSTANT_MS), MAX_INSTANT_MS))
    if field.required:
        raise RecordError(kind, path, "is not a finite number below 2**53")
    mended.append(Mended(path, "left_out"))
    return None


def _check_any(value: object, kind: str, path: str) -> None:
    """Values of an app's own shape: nothing is mended, but no number may turn into null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(kind, path, "is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise RecordError(kind, path, "is an integer beyond 2**53")
    if isinstance(value, Mapping):
        for key, item in value.items():
            # What Convex does not take would hold the journal; here it hurts this record alone.
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise RecordError(kind, path, "has a key that is no field name of Convex")
            _check_any(item, kind, path)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_any(item, kind, path)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        # Pairs become the character they stand for, lone ones U+FFFD.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
