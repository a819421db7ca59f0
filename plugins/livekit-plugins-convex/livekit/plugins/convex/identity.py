"""Whose session this is, as the job's metadata says."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from .limits import MAX_NAME_BYTES

_FIELDS = ("session_key", "student_id", "lesson_id", "participant_identity")

# The subject of a token puts `student:` in front.
_MAX_BYTES = MAX_NAME_BYTES - len("student:")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIdentity:
    """Who is taught what in which session. Never taken from a tool's or a function's argument.

    Attributes:
        session_key: our own name of the session, known before Convex answers; several runs may
            carry one session. None: the first run's id becomes it.
        student_id: the student, as your backend put it into the job's metadata; None: a guest.
        lesson_id: the lesson, or None for free conversation.
        participant_identity: who in the room is the student, or None for the first to join.

    Raises:
        ValueError: a field that is no string, too long, or holds half a surrogate pair.
    """

    session_key: str | None = None
    student_id: str | None = None
    lesson_id: str | None = None
    participant_identity: str | None = None

    def __post_init__(self) -> None:
        # A name that cannot be written would fail in the journal's header and in the token.
        for name in _FIELDS:
            if (problem := _problem(getattr(self, name))) is not None:
                raise ValueError(f"the identity has a {name} {problem}")

    @classmethod
    def from_metadata(cls, metadata: str) -> SessionIdentity:
        """Read a job's metadata: a JSON object with the attributes' names, each optional.

        Other keys are left to others.

        Raises:
            ValueError: absent, not a JSON object, or a field is no text that can be kept; one
                sentence that quotes nothing of it.
        """
        if not metadata.strip():
            raise ValueError(
                "the job has no metadata; dispatch the agent with a JSON object that names the "
                "student_id"
            )
        try:
            parsed = json.loads(metadata)
        except ValueError:
            raise ValueError("the job's metadata is not JSON") from None
        except RecursionError:
            raise ValueError("the job's metadata is JSON, but nested too deeply") from None
        if not isinstance(parsed, dict):
            raise ValueError("the job's metadata is JSON, but not an object")
        return cls(**{name: _text(name, parsed.get(name)) for name in _FIELDS})

    def named(self, run_id: str) -> SessionIdentity:
        """The same with a session key: its own, else the run's id."""
        return self if self.session_key else replace(self, session_key=run_id)

    @property
    def subject(self) -> str:
        """The `sub` of the agent's token: `student:<id>`, else `guest:<session key>`.

        Raises:
            ValueError: a guest without a session key; ask `named(...)` for one first.
        """
        if self.student_id:
            return f"student:{self.student_id}"
        if not self.session_key:
            raise ValueError("a guest's session needs a session_key before it has a subject")
        return f"guest:{self.session_key}"


def _text(name: str, value: object) -> str | None:
    if (problem := _problem(value)) is not None:
        raise ValueError(f"the job's metadata has a {name} {problem}")
    return value if isinstance(value, str) and value else None


def _problem(value: object) -> str | None:
    """What is wrong with a field, as the end of a sentence; None if nothing is."""
    if value is None:
        return None
    if not isinstance(value, str):
        return "that is not a string"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "that holds half a surrogate pair, which is not text"
    if size > _MAX_BYTES:
        return f"longer than {_MAX_BYTES} bytes"
    return None
