"""The `redact` hook of a recorder, and what is stored where it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import msgspec

from .encoding import RecordError, Wire, encode, fields_of
from .log import logger
from .records import RECORD_TYPES, Record, kind_of

Redact: TypeAlias = Callable[[Record], Record | None]

REDACTED = "[redacted]"
_OURS = frozenset(RECORD_TYPES)

_W = TypeVar("_W", bound=Wire)


class Redaction:
    """Runs the hook on each record before it is stored, and fails closed.

    Args:
        hook: returns the record to store, or None to drop what it says. What it raises, and
            anything but a record of the same type that can be stored, count as None, and are
            logged once for each type.
        run_id: for the log.
    """

    def __init__(self, hook: Redact, run_id: str) -> None:
        self._hook = hook
        self._run_id = run_id
        self._told: set[str] = set()

    def apply(self, record: Record) -> Record:
        """The record to store.

        Raises:
            RecordError: the hook failed on a record of an app's own that has a field with nothing
                to put in its place.
        """
        try:
            redacted = self._hook(record)
            if redacted is None:
                return placeholder(record)
            if type(redacted) is type(record):
                encode(redacted)
                return redacted
        except Exception as error:  # noqa: BLE001  it is the app's, and may raise anything
            self._tell(record, type(error).__name__)
        else:
            self._tell(record, f"returned {type(redacted).__name__}")
        return placeholder(record)

    def _tell(self, record: Record, problem: str) -> None:
        if problem not in self._told:
            self._told.add(problem)
            logger.error(
                "recorder.redact_failed",
                extra={"run_id": self._run_id, "kind": kind_of(record), "error": problem},
            )


def placeholder(record: Record) -> Record:
    """The record without what it says: identifiers, times, numbers and flags are kept.

    Of the plugin's own kinds the texts are replaced by "[redacted]". Of an app's kinds every
    string is, but a `language` and what ends in `_id`: nobody knows what the others hold.

    Raises:
        RecordError: a required field has a shape of the app's own.
    """
    return _emptied(record, kind_of(record), ours=type(record) in _OURS)


def _emptied(struct: _W, kind: str, *, ours: bool) -> _W:
    changes: dict[str, Any] = {}
    for field in fields_of(type(struct)):
        value = getattr(struct, field.name)
        if value is None:
            continue
        match field.role:
            case "text":
                # Arguments are JSON, and stay so.
                changes[field.name] = f'"{REDACTED}"' if field.name == "arguments" else REDACTED
            case "name" if not ours and not _identifies(field.name):
                changes[field.name] = REDACTED
            case "struct" if isinstance(value, Wire):
                changes[field.name] = _emptied(value, kind, ours=ours)
            case "structs" if isinstance(value, tuple):
                changes[field.name] = tuple(_emptied(part, kind, ours=ours) for part in value)
            case "any" | "struct" | "structs":
                if field.required:
                    raise RecordError(kind, field.name, "cannot be redacted")
                changes[field.name] = None
            case _:
                pass
    return msgspec.structs.replace(struct, **changes)


def _identifies(name: str) -> bool:
    return name == "language" or name.endswith("_id")
