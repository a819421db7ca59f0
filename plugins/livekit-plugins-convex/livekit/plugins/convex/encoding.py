"""How a record becomes bytes: checked, cut to the limits, in the units of the wire; and back.

The only place where seconds become milliseconds, and milliseconds seconds. A field whose name ends
in `_at` is an instant and one that ends in `_s` is a duration.
"""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar, assert_never

import msgspec

from .limits import (
    MAX_INSTANT_MS,
    MAX_NAME_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT_BYTES,
    MAX_USAGE_MODELS,
    MIN_INSTANT_MS,
)
from .values import MAX_NESTING

# Fields that hold what people and tools say; every other string is a name, and shorter.
TEXT_FIELDS: Final = frozenset({"text", "arguments", "output"})


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
    """Camel case on the wire; a field that is None is left out. No other default may be used.

    Attributes:
        text_fields: fields that may be as long as a text.
    """

    text_fields: ClassVar[frozenset[str]] = TEXT_FIELDS


@dataclass(frozen=True, slots=True)
class Mended:
    """A value that could not be stored as it was: which field, and what was done. No content."""

    field: str
    how: Literal["truncated", "left_out", "clamped", "replaced"]


_W = TypeVar("_W", bound=Wire)


def _kind(record: Wire) -> str:
    return str(record.__struct_config__.tag)


def encode(record: Wire) -> tuple[bytes, list[Mended]]:
    """The record as JSON in wire units, without `seq`; and what had to be mended.

    Texts are cut at 64 KiB and names at 1 KiB (whole characters), lone surrogates become U+FFFD,
    an optional field that is not of its type, or that Convex would refuse, is left out,
    `created_at` is clamped to 2020-2100: a lesson goes on with what can be kept.

    Raises:
        RecordError: a required field, or one of an app's own shape, cannot be stored.
    """
    try:
        plain = _quick(type(record))(record)
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


def decode(payload: bytes, cls: type[_W]) -> _W:
    """The record that `encode` made this JSON of: instants and durations are seconds again.

    Fields that `cls` does not know are left out, as `seq`.

    Raises:
        msgspec.DecodeError: it is no record of this type.
    """
    wire: _W = _decoder(cls).decode(payload)
    return _from_wire(wire)


@functools.cache
def _decoder(cls: type[_W]) -> msgspec.json.Decoder[_W]:
    # Not strict: an integer may have been given as 3.0, and was stored so.
    return msgspec.json.Decoder(cls, strict=False)


def _from_wire(struct: _W) -> _W:
    changes: dict[str, Any] = {}
    for name, role in _in_other_units(type(struct)):
        if (value := getattr(struct, name)) is None:
            continue
        if role == "struct":
            changes[name] = _from_wire(value)
        elif role == "structs":
            changes[name] = tuple(_from_wire(part) for part in value)
        else:
            changes[name] = value / 1000.0
    return msgspec.structs.replace(struct, **changes) if changes else struct


@functools.cache
def _in_other_units(cls: type[Wire]) -> tuple[tuple[str, _Role], ...]:
    """The fields that are another value on the wire, or have such within."""
    roles = ("instant", "duration", "struct", "structs")
    return tuple((field.name, field.role) for field in fields_of(cls) if field.role in roles)


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
# The backend's own limits: value/src/size.rs, array.rs and object.rs of convex-backend.
MAX_ARRAY_ITEMS = 8192
MAX_OBJECT_FIELDS = 1024
# The arguments, the list of records and the record are around a field.
_DEPTH_OF_A_FIELD = 3
# Beyond it a double, which is what Convex stores, no longer tells neighbours apart.
MAX_NUMBER = 2**53

_Role = Literal[
    "instant", "duration", "number", "text", "name", "choice", "flag", "struct", "structs", "any"
]

_MIN_INSTANT_S, _MAX_INSTANT_S = MIN_INSTANT_MS / 1000, MAX_INSTANT_MS / 1000


class _Field(NamedTuple):
    name: str
    role: _Role
    required: bool
    annotation: Any
    """Without `None`."""

    @property
    def choices(self) -> tuple[object, ...]:
        return typing.get_args(self.annotation)


@functools.cache
def fields_of(cls: type[Wire]) -> tuple[_Field, ...]:
    """A type's fields with what each holds, in order."""
    fields = ((field, _bare(field.type)) for field in msgspec.structs.fields(cls))
    return tuple(
        _Field(field.name, role_of(field.name, bare, texts=cls.text_fields), field.required, bare)
        for field, bare in fields
    )


def _bare(annotation: Any) -> Any:
    """`X` of `X | None`; any other union stays what it is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return options[0] if len(options) == 1 else annotation
    return annotation


def role_of(name: str, annotation: Any, *, texts: frozenset[str] = TEXT_FIELDS) -> _Role:
    """What a field holds, from its name and its type without `None`.

    Args:
        texts: the record's `text_fields`.
    """
    if annotation is float or annotation is int:
        if name.endswith("_at"):
            return "instant"
        return "duration" if name.endswith("_s") else "number"
    if annotation is str:
        return "text" if name in texts else "name"
    if typing.get_origin(annotation) is Literal:
        return "choice"
    if annotation is bool:
        return "flag"
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        return "struct"
    if typing.get_origin(annotation) is tuple:
        return "structs"
    return "any"


_Quick = Callable[[_W], "_W | None"]


@functools.cache
def _quick(cls: type[_W]) -> _Quick[_W]:
    """The listener's path: a function that puts a plain record into wire units, or returns None.

    None means that a value needs a second look. The function is written out for each type, as
    dataclasses do for theirs, since a loop over its fields costs three times as much.
    """
    known: dict[str, Any] = {"replace": msgspec.structs.replace}
    lines, changes = ["def quick(record):"], []
    for field in fields_of(cls):
        name, indent = field.name, " " * (4 if field.required else 8)
        doubt, change = _doubt(field)
        lines.append(f"    value = record.{name}")
        if not field.required:
            lines.append("    if value is not None:")
        lines.append(f"{indent}if {doubt}:")
        lines.append(f"{indent}    return None")
        if field.role == "struct":
            known[f"quick_{name}"] = _quick(field.annotation)
            lines.append(f"{indent}value = quick_{name}(value)")
            lines.append(f"{indent}if value is None:")
            lines.append(f"{indent}    return None")
        if change:
            lines.append(f"{indent}value = {change}")
        if change or field.role == "struct":
            lines.append(f"    {name} = value")
            changes.append(f"{name}={name}")
    lines.append(
        f"    return replace(record, {', '.join(changes)})" if changes else "    return record"
    )
    exec("\n".join(lines), known)
    return typing.cast("_Quick[_W]", known["quick"])


def _doubt(field: _Field) -> tuple[str, str]:
    """When `value` needs a second look, and what it becomes if it does not; as source text."""
    match field.role:
        case "text" | "name":
            # Strings of a quarter as many characters are within the limit, whatever they are.
            limit = MAX_TEXT_BYTES if field.role == "text" else MAX_NAME_BYTES
            return f"type(value) is not str or len(value) > {limit // 4}", ""
        case "instant":
            bounds = f"{_MIN_INSTANT_S!r} <= value <= {_MAX_INSTANT_S!r}"
            return f"type(value) is not float or not {bounds}", "value * 1000.0"
        case "duration":
            bounds = f"0.0 <= value <= {MAX_NUMBER / 1000!r}"
            return f"type(value) is not float or not {bounds}", "value * 1000.0"
        case "number":
            bounds = f"{-MAX_NUMBER} <= value <= {MAX_NUMBER}"
            kinds = "type(value) is not float and type(value) is not int"
            return f"({kinds}) or not {bounds}", ""
        case "flag":
            return "value is not True and value is not False", ""
        case "choice":
            # True equals 1, and Convex takes no boolean for a number.
            types = sorted({type(choice).__name__ for choice in field.choices})
            none = " and ".join(f"type(value) is not {name}" for name in types)
            return f"({none}) or value not in {field.choices!r}", ""
        case "struct":
            return "False", ""
        case _:
            return "True", ""


def _to_wire(struct: _W, kind: str, path: str, mended: list[Mended], text_limit: int) -> _W:
    """The struct in wire units, each value looked at and mended where it can be."""
    changes: dict[str, Any] = {}
    for field in fields_of(type(struct)):
        value = getattr(struct, field.name)
        if value is None:
            if field.required:
                raise RecordError(kind, path + field.name, "is missing")
            continue
        try:
            changes[field.name] = _checked(
                value, field, kind, path + field.name, mended, text_limit
            )
        except RecordError:
            if field.required or field.role == "any":
                raise
            # A latency that is no number shall not cost the sentence it was measured on.
            mended.append(Mended(path + field.name, "left_out"))
            changes[field.name] = None
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
            if isinstance(value, bool) or value not in field.choices:
                raise RecordError(kind, path, f"is not one of {field.choices}")
            # The choice itself: a number of an enum is equal to it, and the encoder refuses some.
            return field.choices[field.choices.index(value)]
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
        if field.role == "instant" and not math.isnan(value):
            # A machine whose clock is wrong by decades still has a lesson to keep; `seq` orders.
            mended.append(Mended(path, "clamped"))
            return float(MAX_INSTANT_MS if value > _MAX_INSTANT_S else MIN_INSTANT_MS)
        raise RecordError(kind, path, "is not a finite number below 2**53")
    mended.append(Mended(path, "left_out"))
    return None


def _check_any(value: object, kind: str, path: str, depth: int = _DEPTH_OF_A_FIELD) -> None:
    """Values of an app's own shape: nothing is mended, but no number may turn into null.

    What Convex does not take would hold the journal; here it hurts this record alone.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(kind, path, "is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise RecordError(kind, path, "is an integer beyond 2**53")
    if isinstance(value, (Mapping, list, tuple)):
        if depth >= MAX_NESTING:
            raise RecordError(kind, path, f"is nested too deeply for Convex ({MAX_NESTING} levels)")
        limit = MAX_OBJECT_FIELDS if isinstance(value, Mapping) else MAX_ARRAY_ITEMS
        if len(value) > limit:
            raise RecordError(kind, path, f"holds {len(value)} items in one place, over {limit}")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise RecordError(kind, path, "has a key that is no field name of Convex")
            _check_any(item, kind, path, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_any(item, kind, path, depth + 1)
    elif value is not None and not isinstance(value, (str, int, float)):
        # Encoders write sets, dates and dataclasses too, and look at no number in them.
        raise RecordError(kind, path, f"holds a value of type {type(value).__name__}")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        # Pairs become the character they stand for, lone ones U+FFFD.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
