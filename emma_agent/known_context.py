"""The last known context: what Convex last knew of a student, for when it does not answer.

One file for each student and deployment, beside the journals: `<student>-<deployment>.context`, both
as hashes. It holds the answer of `students:tutoringContext` as it came, in one line of JSON behind
its CRC-32. It is a copy, and never worth a lesson: what is damaged, of another version or too old is
as if it were not there. It goes with the student's journals when they are erased.

Everything here blocks for as long as the disk does.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zlib import crc32

from pydantic import TypeAdapter, with_config

from emma_agent.context import LastSession, TutoringContext, parse_context
from emma_agent.wire import WIRE, ContextError, Instant, parse
from livekit.plugins.convex.beside import erase_beside, path_beside

__all__ = [
    "KEPT_FOR_S",
    "MAX_BYTES",
    "MAX_FILES",
    "MAX_TOTAL_BYTES",
    "ContextTooLargeError",
    "KeptHere",
    "KnownContext",
    "forget",
    "keep",
    "look",
    "prune",
    "recall",
]

FORMAT: Final = 1
SUFFIX: Final = ".context"

KEPT_FOR_S: Final = 7 * 86_400.0
"""Longer than from one weekly lesson to the next it helps nobody."""

# A full set of slides is half of it; most contexts are some kilobytes.
MAX_BYTES: Final = 1024**2
# A disk that they filled would have no room for journals.
MAX_FILES: Final = 1_000
MAX_TOTAL_BYTES: Final = 64 * 1024**2

# Two clocks of one machine, and the time between a look at one and at the other.
_CLOCKS_DIFFER_S: Final = 60.0


class ContextTooLargeError(ValueError):
    """It is larger than `MAX_BYTES`, and is not kept."""


@with_config(WIRE)
@dataclass(frozen=True, slots=True)
class KnownContext:
    """An answer of Convex, and what it was the answer to.

    Attributes:
        deployment: `AsyncConvexClient.url`.
        lesson_id, session_key: of the job that asked.
        kept_at: when the answer came, in Unix seconds.
        context: as Convex gave it.
    """

    deployment: str
    student_id: str
    lesson_id: str | None
    session_key: str
    kept_at: Instant
    context: object

    def for_job(self, *, lesson_id: str | None, session_key: str) -> TutoringContext:
        """What it says to another job.

        Of another lesson that lesson is left out, and with it who Emma was in it. The lesson that it
        was kept in is the last one that is known of, unless this job goes on with it.

        Raises:
            ContextError: it has a shape that this worker does not know.
        """
        context = parse_context(self.context)
        if session_key != self.session_key:
            last = LastSession(
                started_at=self.kept_at,
                message_count=0,
                session_key=self.session_key,
                lesson_title=context.lesson.title if context.lesson else None,
            )
            context = replace(context, last_session=last)
        if lesson_id == self.lesson_id:
            return context
        progress = context.progress
        return replace(
            context,
            lesson=None,
            next_lesson=None,
            avatar=None,
            progress=None if progress is None else replace(progress, this_lesson=None),
        )


@dataclass(frozen=True, slots=True)
class KeptHere:
    """What is kept in a directory; `oldest_at` in Unix seconds, None where nothing is."""

    files: int = 0
    size: int = 0
    oldest_at: float | None = None


_KNOWN: Final = TypeAdapter(KnownContext)


def keep(directory: Path, known: KnownContext) -> None:
    """Keep it in the place of what was kept of this student; remove what is too old or too much.

    Whoever reads meanwhile finds the former one or this one, whole.

    Raises:
        ContextTooLargeError: nothing was changed.
        OSError: the disk refused; nothing was changed.
        ValueError: it has a value that JSON has not.
    """
    line = _encode(known)
    if len(line) > MAX_BYTES:
        raise ContextTooLargeError(f"{len(line)} bytes; the limit is {MAX_BYTES}")
    path = _path(directory, student_id=known.student_id, deployment=known.deployment)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name by which recovery removes what a crash leaves here, and an erasure finds it.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(line)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    prune(directory)


def recall(
    directory: Path, *, student_id: str, deployment: str, now: float | None = None
) -> KnownContext | None:
    """What was last kept of this student; None if nothing is there that may be used.

    Args:
        now: Unix seconds; None for the clock's.

    Raises:
        OSError: there is something, and it cannot be read.
    """
    try:
        with _path(directory, student_id=student_id, deployment=deployment).open("rb") as file:
            line = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    known = _decode(line)
    if known is None or (known.student_id, known.deployment) != (student_id, deployment):
        return None
    return known if _may_be_used(known.kept_at, time.time() if now is None else now) else None


def forget(directory: Path, *, student_id: str) -> None:
    """Remove what is kept of this student, of every deployment.

    Raises:
        OSError: the disk refused.
    """
    erase_beside(directory, subject=_subject(student_id))


def prune(directory: Path, *, now: float | None = None) -> int:
    """Remove what is too old, and of the rest the oldest where it is too much; return how many.

    Args:
        now: Unix seconds; None for the clock's.

    Raises:
        OSError: the disk refused.
    """
    now = time.time() if now is None else now
    removed = size = 0
    newest_first = sorted(_kept_in(directory), reverse=True)
    for files, (modified_at, bytes_, path) in enumerate(newest_first, 1):
        size += bytes_
        too_much = files > MAX_FILES or size > MAX_TOTAL_BYTES
        # Also one from a day that is still to come: it would stay until then, and a week.
        if too_much or not _may_be_used(modified_at, now):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def look(directory: Path) -> KeptHere:
    """How much lies there.

    Raises:
        OSError: it cannot be looked at.
    """
    kept = _kept_in(directory)
    return KeptHere(
        files=len(kept),
        size=sum(size for _, size, _ in kept),
        oldest_at=min((modified_at for modified_at, _, _ in kept), default=None),
    )


def _path(directory: Path, *, student_id: str, deployment: str) -> Path:
    return path_beside(
        directory, subject=_subject(student_id), deployment=deployment, suffix=SUFFIX
    )


def _subject(student_id: str) -> str:
    return f"student:{student_id}"  # `SessionIdentity.subject`, which the journals name


def _may_be_used(kept_at: float, now: float) -> bool:
    return -_CLOCKS_DIFFER_S <= now - kept_at <= KEPT_FOR_S


def _kept_in(directory: Path) -> list[tuple[float, int, Path]]:
    found: list[tuple[float, int, Path]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in directory.iterdir():
            # One of another process may go at any time.
            if path.suffix == SUFFIX:
                with contextlib.suppress(FileNotFoundError):
                    about = path.stat()
                    found.append((about.st_mtime, about.st_size, path))
    return found


def _encode(known: KnownContext) -> bytes:
    value = {
        "format": FORMAT,
        "deployment": known.deployment,
        "studentId": known.student_id,
        "lessonId": known.lesson_id,
        "sessionKey": known.session_key,
        "keptAt": known.kept_at * 1000,
        "context": known.context,
    }
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"JSON cannot hold it ({type(error).__name__})") from None
    return b"%08x %b\n" % (crc32(text), text)


def _decode(line: bytes) -> KnownContext | None:
    """None if a bit of it has changed, or another version wrote it."""
    text = line[9:-1]
    if line[:9] != b"%08x " % crc32(text) or line[-1:] != b"\n":
        return None
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            return None
        return parse(_KNOWN, value)
    except (ValueError, RecursionError, ContextError):
        return None
